"""Formatting of numbers, names and tables in reports."""

import html
import re
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from tabulate import tabulate

from agebench.metrics.schema import GroupMetrics, MetricValue

DASH = "–"
MIN_GROUP = 30  # images; smaller groups are listed but not ranked
MIN_CELL = 5  # images; figures of fewer are meaningless for a group, and are not printed
OPEN_END = "∞"
NOT_COMPARED = " (not compared)"  # of a group with fewer images than --min-group, by default MIN_GROUP

# Markdown markup; an underscore inside a word is plain text.
_MARKUP = re.compile(r"([\\`*\[\]|~$]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9]))")


class Sized(Protocol):
    """The metrics of a group that has a minimum size."""

    @property
    def n(self) -> int:
        """Number of images."""

    @property
    def eligible(self) -> bool | None:
        """True if it has enough images to be compared; None where that was not recorded."""


def format_ci(
    metric: MetricValue | Mapping[str, Any] | None, *, digits: int = 2, percent: bool = False, sign: bool = False
) -> str:
    """Format a metric with its interval, as `4.52 [4.40, 4.63]`.

    Args:
        metric: the metric, or the JSON of one. Without a value the result is a dash, without an interval it has no brackets.
        digits: number of decimals.
        percent: multiply by 100 and format as `55.8 % [54.4, 57.2]`.
        sign: also write a plus sign.
    """
    metric = metric if isinstance(metric, MetricValue) else MetricValue.model_validate(metric or {})
    value, low, high = (
        format_number(number, digits=digits, percent=percent, sign=sign)
        for number in (metric.value, metric.ci_low, metric.ci_high)
    )
    if value == DASH:
        return DASH
    text = f"{value} %" if percent else value
    if high == DASH and low != DASH:
        high = OPEN_END  # The sample has no upper bound, for example a 95th percentile of 50 images.
    return text if DASH in (low, high) else f"{text} [{low}, {high}]"


def format_number(value: float | None, *, digits: int = 2, percent: bool = False, sign: bool = False) -> str:
    """Format a number without a negative zero; None becomes a dash.

    Args:
        value: the number.
        digits: the number of decimals.
        percent: whether to multiply by 100.
        sign: whether positive values get a plus sign.

    Returns:
        The text.
    """
    if value is None:
        return DASH
    return f"{value * (100 if percent else 1):{'+' if sign else '-'}z.{digits}f}"


def format_count(value: int | None, noun: str = "") -> str:
    """Format a count, such as `23,707` or, of a noun, `1 face` and `2 faces`; None becomes a dash."""
    number = DASH if value is None else f"{value:,}"
    return f"{number} {noun}{'' if value == 1 else 's'}" if noun else number


def format_p_value(p: float) -> str:
    """Format a p-value, such as `p = 0.012` or `p < 0.001`."""
    return f"p = {p:.3f}" if p >= 0.001 else "p < 0.001"


def format_duration(seconds: float | None) -> str:
    """Format a duration, such as `1 h 02 min`, `17 min 20 s` or `8.4 s`; None becomes a dash."""
    if seconds is None:
        return DASH
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def sanitize(name: object) -> str:
    """Put a name on one line and replace control characters and invisible characters."""
    line = " ".join(str(name).split())
    if line.isprintable():
        return line
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in line)


def escape_markdown(name: object) -> str:
    """Escape a name for Markdown, and for the HTML that Markdown is converted to."""
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
    """Escape a name for LaTeX; the symbols of the tables become LaTeX commands."""
    return "".join(_LATEX.get(character, character) for character in sanitize(name))


def group_name(grouping: str, group: str) -> str:
    """Format a crossing `female*Asian` as `female × Asian`; in plain groupings a `*` is part of the name."""
    return group.replace("*", " × ") if "*" in grouping else group


def is_below_min_n(group: Sized) -> bool:
    """Return whether a group has too few images to be compared."""
    return not (group.n >= MIN_GROUP if group.eligible is None else group.eligible)


def is_too_few(n: int) -> bool:
    """Return whether a group has so few images that its figures are not printed.

    Args:
        n: its images.
    """
    return n < MIN_CELL


def explain_open_ends() -> str:
    """Return the sentence that explains the sign for infinity as the end of an interval."""
    return f"{OPEN_END}: so few images give no upper bound for this figure."


def join_words(words: Sequence[str]) -> str:
    """Join words as `a`, `a and b`, or `a, b and c`."""
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


def settings(values: Mapping[str, object]) -> str:
    """Format settings as `lr 0.001, schedule one-cycle`; settings that are None are omitted."""
    return ", ".join(
        f"{escape_markdown(key)} {escape_markdown(value)}" for key, value in values.items() if value is not None
    )


def picture(name: str, caption: str) -> str:
    """Return the Markdown of the image `figures/<name>.png` with its caption."""
    return f"![{name.replace('-', ' ')}](figures/{name}.png)\n\n*{caption}*"


def markdown_table(headers: Sequence[str], rows: Sequence[Sequence[str]], *, align: Sequence[str] = ()) -> str:
    """Format a Markdown table.

    Args:
        headers: the Markdown of the column headers.
        rows: the Markdown of the cells, row by row.
        align: `left`, `center` or `right` by column; by default the first column is left-aligned and the others are
            right-aligned.

    Returns:
        The table, "" without rows.
    """
    if not rows:
        return ""
    align = align or ["left", *["right"] * (len(headers) - 1)]
    table: str = tabulate(rows, headers=headers, tablefmt="pipe", colalign=align, disable_numparse=True)
    return table


def group_table(heading: str, groups: Mapping[str, GroupMetrics]) -> str:
    """Format one row per group: n, MAE, age-standardized MAE where known, bias and CS@5."""
    standardized = any(group.age_standardized_mae for group in groups.values())
    rows = []
    for name, group in groups.items():
        label = escape_markdown(group_name(heading, name)) + (NOT_COMPARED if is_below_min_n(group) else "")
        if is_too_few(group.n) and group.mae.value is not None:
            rows.append([label, format_count(group.n), "too few", *[DASH] * (2 + standardized)])
            continue
        row = [label, format_count(group.n), format_ci(group.mae)]
        row += [format_ci(group.age_standardized_mae)] * standardized
        row += [format_ci(group.bias, sign=True), format_ci(group.cs5, digits=1, percent=True)]
        rows.append(row)
    headers = [escape_markdown(group_name(heading, heading)), "n", "MAE (years)"]
    headers += ["age-standardized MAE"] * standardized
    return markdown_table([*headers, "bias (years)", "CS@5"], rows)
