"""Numbers and names as a reader meets them."""

import html
import re
from collections.abc import Sequence
from typing import Any

from tabulate import tabulate

DASH = "–"


def with_interval(figure: dict[str, Any] | None, *, digits: int = 2, percent: bool = False) -> str:
    """`4.52 [4.40, 4.63]`; a dash where there is no value, no brackets where there is no interval."""
    if not figure or figure.get("value") is None:
        return DASH
    value, low, high = (
        None if figure.get(key) is None else f"{figure[key] * (100 if percent else 1):.{digits}f}"
        for key in ("value", "low", "high")
    )
    unit = " %" if percent else ""
    return f"{value}{unit}" if low is None or high is None else f"{value}{unit} [{low}, {high}]"


def number(value: float | None, *, digits: int = 2) -> str:
    """A number, or a dash."""
    return DASH if value is None else f"{value:.{digits}f}"


def count(value: int) -> str:
    """`23,707`."""
    return f"{value:,}"


def duration(seconds: float) -> str:
    """`1 h 02 min`, `17 min 20 s`, `8 s`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def escaped(name: object) -> str:
    """A name from a card or from data, harmless in Markdown and in the HTML that Markdown may become."""
    text = html.escape(" ".join(str(name).split()), quote=False)
    return re.sub(r"([\\`*_\[\]|])", r"\\\1", text)


def markdown_table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; every column but the first is set right."""
    align = ["left", *["right"] * (len(headers) - 1)]
    return tabulate(rows, headers=headers, tablefmt="pipe", colalign=align, disable_numparse=True) if rows else ""
