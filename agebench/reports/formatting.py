"""Numbers and names as a reader meets them."""

import html
import re
from collections.abc import Mapping, Sequence
from typing import Any

from tabulate import tabulate

DASH = "–"
MIN_GROUP = 30  # groups with fewer images are shown, not ranked

# What Markdown reads as markup; an underscore only where it does not stand inside a word.
_MARKUP = re.compile(r"([\\`*\[\]|~$]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9]))")


def format_ci(figure: Mapping[str, Any] | None, *, digits: int = 2, percent: bool = False, sign: bool = False) -> str:
    """`4.52 [4.40, 4.63]`; a dash where there is no value, no brackets where there is no interval; an open end is ∞.

    Args:
        figure: `value`, `low` and `high`, each of which may be None or missing.
        digits: decimals.
        percent: the figure is a share of 1 and shown as `55.8 % [54.4, 57.2]`.
        sign: show a plus too.
    """
    figure = figure or {}
    value, low, high = (
        format_number(figure.get(key), digits=digits, percent=percent, sign=sign) for key in ("value", "low", "high")
    )
    if value == DASH:
        return DASH
    shown = f"{value} %" if percent else value
    if high == DASH and low != DASH:
        high = "∞"  # The sample has no upper bound, as of a 95th percentile from 50 images.
    return shown if DASH in (low, high) else f"{shown} [{low}, {high}]"


def format_number(value: float | None, *, digits: int = 2, percent: bool = False, sign: bool = False) -> str:
    """A number, or a dash; never `-0.00`."""
    if value is None:
        return DASH
    return f"{value * (100 if percent else 1):{'+' if sign else '-'}z.{digits}f}"


def format_count(value: int | None) -> str:
    """`23,707`, or a dash."""
    return DASH if value is None else f"{value:,}"


def format_p_value(p: float) -> str:
    """`p = 0.012`, `p < 0.001`."""
    return f"p = {p:.3f}" if p >= 0.001 else "p < 0.001"


def format_duration(seconds: float | None) -> str:
    """`1 h 02 min`, `17 min 20 s`, `8.4 s`, or a dash."""
    if seconds is None:
        return DASH
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def sanitize(name: object) -> str:
    """A name on one line, without characters that move a cursor or hide."""
    words = " ".join(str(name).split())
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in words)


def escape_markdown(name: object) -> str:
    """A name from a card or from data, harmless in Markdown and in the HTML that Markdown may become."""
    return _MARKUP.sub(r"\\\1", html.escape(sanitize(name), quote=False))


_LATEX = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "–": "--",
    "°": r"\textdegree{}",
    "†": r"\textdagger{}",
    "‡": r"\textdaggerdbl{}",
    "≠": r"$\neq$",
    "×": r"$\times$",
}


def latex_escaped(name: object) -> str:
    """Return a name as text for LaTeX: no character of it is a command; the marks of our tables become commands."""
    return "".join(_LATEX.get(character, character) for character in sanitize(name))


def group_name(grouping: str, group: str) -> str:
    """A crossing `female*Asian` as `female × Asian`; in plain groupings a `*` is somebody's letter."""
    return group.replace("*", " × ") if "*" in grouping else group


def is_below_min_n(entry: Mapping[str, Any]) -> bool:
    """Whether a group has too few images to be ranked."""
    return not entry.get("ranked", (entry.get("n") or 0) >= MIN_GROUP)


def join_words(words: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


def settings(values: Mapping[str, Any]) -> str:
    """`lr 0.001, schedule one-cycle`: what is set, without what is None."""
    return ", ".join(
        f"{escape_markdown(key)} {escape_markdown(value)}" for key, value in values.items() if value is not None
    )


def picture(name: str, caption: str) -> str:
    """The figure `figures/<name>.png` with its caption below."""
    return f"![{name.replace('-', ' ')}](figures/{name}.png)\n\n*{caption}*"


def markdown_table(headers: Sequence[str], rows: Sequence[Sequence[str]], *, align: Sequence[str] = ()) -> str:
    """A Markdown table, "" without rows; unless `align` says so, every column but the first is set right."""
    if not rows:
        return ""
    align = align or ["left", *["right"] * (len(headers) - 1)]
    made: str = tabulate(rows, headers=headers, tablefmt="pipe", colalign=align, disable_numparse=True)
    return made


def group_table(heading: str, entries: Mapping[str, Any]) -> str:
    """One row a group of metrics.json: n, MAE, at equal ages where that is known, bias and CS@5."""
    even = any(entry.get("mae_standardised") for entry in entries.values())
    rows = []
    for group, entry in entries.items():
        shown = escape_markdown(group_name(heading, group)) + (" (n < 30)" if is_below_min_n(entry) else "")
        row = [shown, format_count(entry.get("n")), format_ci(entry.get("mae"))]
        row += [format_ci(entry.get("mae_standardised"))] * even
        row += [
            format_ci(entry.get("bias"), sign=True),
            format_ci(entry.get("cs5"), digits=1, percent=True),
        ]
        rows.append(row)
    headers = [escape_markdown(group_name(heading, heading)), "n", "MAE (years)", *["age-standardized MAE"] * even]
    return markdown_table([*headers, "bias (years)", "CS@5"], rows)
