"""Small things about text in tables and names."""

import re
from typing import Any

import pandas as pd

from agebench.errors import UserError

# {age}, {} or {subject:\d+}; the expression may hold counts such as \d{4}.
PLACE = re.compile(r"\{(\w*)(?::((?:[^{}]|\{\d+(?:,\d*)?\})+))?\}")


def as_text(column: "pd.Series[Any]") -> "pd.Series[str]":
    """A column as stripped text, NA where it is unknown; whole numbers without a decimal point."""
    if pd.api.types.is_float_dtype(column) and (column.dropna() % 1 == 0).all():
        column = column.astype("Int64")
    return column.astype("str").where(column.notna()).str.strip()


def compile_pattern(
    pattern: str, *, age: str = "", needs: tuple[str, ...] = ("age",), option: str = "pattern"
) -> re.Pattern[str]:
    """The regular expression of a pattern, to be matched with a whole path; `age` is what {age} looks like if it is plain.

    Args:
        pattern: see `agebench.data.readers.folder.FolderReader`.
        age: as above; empty: like any other label.
        needs: labels that must be in it.
        option: what the card calls it, for messages.

    Raises:
        UserError: a label of `needs` is missing, a name stands twice, or an expression is none.
    """
    expression, position = "", 0
    for place in PLACE.finditer(pattern):
        name, looks = place.groups()
        looks = looks or (age if name == "age" else "")
        expression += re.escape(pattern[position : place.start()])
        expression += f"(?P<{name}>{looks or '[^/]+?'})" if name else f"(?:{looks or '[^/]*?'})"
        position = place.end()
    expression += re.escape(pattern[position:])
    try:
        compiled = re.compile(f"(?:.*/)?{expression}", re.IGNORECASE)
    except re.error as error:
        raise UserError(f"options.{option} = '{pattern}': {error.msg}") from error
    for name in needs:
        if name not in compiled.groupindex:
            raise UserError(f"options.{option} = '{pattern}': it has no {{{name}}}")
    return compiled


def fill_in(template: str, columns: "dict[str, pd.Series[Any]]") -> "pd.Series[str]":
    """Texts made from a template such as `{split}/{name}.jpg`, a row each; NA where a place's value is unknown.

    Raises:
        KeyError: the template names no column.
    """
    made: Any = ""
    position = 0
    for place in PLACE.finditer(template):
        made = made + template[position : place.start()] + as_text(columns[place[1]])
        position = place.end()
    return made + template[position:]  # type: ignore[no-any-return]
