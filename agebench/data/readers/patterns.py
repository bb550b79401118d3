"""Text of table columns: conversion to text, and templates such as `{split}/{name}.jpg`."""

from typing import Any

import pandas as pd

from agebench.config.patterns import PLACE, compile_pattern

__all__ = ["PLACE", "compile_pattern", "format_template", "to_text"]


def to_text(column: "pd.Series[Any]") -> "pd.Series[str]":
    """Convert a column to stripped text, NA for unknown values.

    Whole numbers have no decimal point.
    """
    if pd.api.types.is_float_dtype(column) and (column.dropna() % 1 == 0).all():
        column = column.astype("Int64")
    return column.astype("str").where(column.notna()).str.strip()


def format_template(template: str, columns: "dict[str, pd.Series[Any]]") -> "pd.Series[str]":
    """Fill a template such as `{split}/{name}.jpg` for each row.

    Args:
        template: text with column names in braces.
        columns: column name -> values.

    Returns:
        One text per row; NA if one of its values is unknown.

    Raises:
        KeyError: the template names a missing column.
    """
    text: Any = ""
    position = 0
    for placeholder in PLACE.finditer(template):
        text = text + template[position : placeholder.start()] + to_text(columns[placeholder[1]])
        position = placeholder.end()
    return text + template[position:]  # type: ignore[no-any-return]
