"""Small things about text in tables and names."""

from typing import Any

import pandas as pd

from agebench.config.patterns import PLACE, compile_pattern

__all__ = ["PLACE", "compile_pattern", "format_template", "to_text"]


def to_text(column: "pd.Series[Any]") -> "pd.Series[str]":
    """A column as stripped text, NA where it is unknown; whole numbers without a decimal point."""
    if pd.api.types.is_float_dtype(column) and (column.dropna() % 1 == 0).all():
        column = column.astype("Int64")
    return column.astype("str").where(column.notna()).str.strip()


def format_template(template: str, columns: "dict[str, pd.Series[Any]]") -> "pd.Series[str]":
    """Texts made from a template such as `{split}/{name}.jpg`, a row each; NA where a place's value is unknown.

    Raises:
        KeyError: the template names no column.
    """
    made: Any = ""
    position = 0
    for place in PLACE.finditer(template):
        made = made + template[position : place.start()] + to_text(columns[place[1]])
        position = place.end()
    return made + template[position:]  # type: ignore[no-any-return]
