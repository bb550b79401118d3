"""Ages as text: years and months, ranges in the notations of datasets, and ranges with an open end."""

import calendar
import re
from collections.abc import Sequence

import pandas as pd

from agebench.data.readers.patterns import to_text
from agebench.errors import UserError
from agebench.utils.table_cells import UNKNOWN, as_numbers

_NUMBER = r"(\d+(?:\.\d+)?)"
_YEARS = r"(?:\s*(?:years?|yrs?)(?:\s+old)?)?"
# `25 years`, `11 months`, and DICOM's age string: three digits and D, W, M or Y.
_AGE = re.compile(r"(\d+(?:[.,]\d+)?)\s*(years?|yrs?|y|yo|y/o|months?|mos?|weeks?|wks?|days?)(?:\s+(?:old|of age))?")
_DICOM = re.compile(r"(\d{3})([dwmy])")
_PER_YEAR = {"y": 1.0, "m": 12.0, "w": 365.25 / 7, "d": 365.25}
_RANGE = re.compile(rf"{_NUMBER}\s*(?:-|–|—|to)\s*{_NUMBER}{_YEARS}|[(\[]\s*{_NUMBER}\s*[,;-]\s*{_NUMBER}\s*[)\]]")
_FROM = re.compile(
    rf"(?:more than|over|above|older than|at least|>=|≥|>)\s*{_NUMBER}{_YEARS}"
    rf"|{_NUMBER}\s*(?:\+|{_YEARS}\s*(?:and|or)\s+(?:over|above|older|more))"
)
_BELOW = re.compile(rf"(?:less than|under|below|younger than|<)\s*{_NUMBER}{_YEARS}")
_UP_TO = re.compile(
    rf"(?:at most|up to|<=|≤)\s*{_NUMBER}{_YEARS}|{_NUMBER}{_YEARS}\s*(?:and|or)\s+(?:under|below|younger|less)"
)
# Spreadsheets convert 3-9 to the ninth of March or the third of September, and 10-19 to the 19th of October or October 2019;
# both orders give the same range, because its lower end comes first.
_MONTHS = {name.lower(): number for number, name in enumerate(calendar.month_abbr) if name}
_DAY_MONTH = re.compile(r"0?(\d{1,2})-([a-z]{3})")
_MONTH_YEAR = re.compile(r"([a-z]{3})-(\d{1,2})")
_DATE = re.compile(r"(\d{4})-(\d{1,2})-(\d{1,2})(?:[ t]00:00:00(?:\.0+)?)?|(\d{1,2})[./](\d{1,2})[./](\d{4})")


def resolve_ages(
    table: pd.DataFrame, values: dict[str, str], open_ages: Sequence[float], *, source: str
) -> pd.DataFrame:
    """Convert age ranges to their ends and midpoints.

    `age_low` and `age_high` are the ends, both inclusive, and `age` is the midpoint.

    Args:
        table: `age` as text or numbers, or only `age_low` and `age_high`.
        values: the card's `[options.values.age]`: text in the source -> an age, or a range as text; "" for unknown.
        open_ages: youngest and oldest age, in years, of ranges with an open end; empty if there are none.
        source: name of the table or folder in error messages.

    Returns:
        The table, unchanged if it has no range. Otherwise a number is both ends of its age, and a text that is neither number
        nor range stays, so that the caller can reject the row.

    Raises:
        UserError: a range has an open end and `open_ages` is empty.
    """
    if "age" not in table:
        if {"age_low", "age_high"} <= set(table):
            return table.assign(age=(table["age_low"] + table["age_high"]) / 2)
        return table
    if pd.api.types.is_numeric_dtype(table["age"]) and not values:
        return table
    text = to_text(table["age"])
    if values:
        text = text.replace({str(old): str(new) for old, new in values.items()})
        table = table.assign(age=text.where(text.notna(), ""))
    text = text.mask(text.isin(list(UNKNOWN)))
    labels = text.dropna().unique()
    ranges = {label: ends for label in labels if (ends := age_range(label, open_ages, source=source)) is not None}
    if ranges:  # beside ranges, a date is a range that a spreadsheet converted; alone it may be a date of birth
        ranges |= {label: ends for label in labels if (ends := _range_of_date(label)) is not None}
    number = as_numbers(text)
    ages_with_unit = {label: years for label in labels if (years := _age_with_unit(label)) is not None}
    if ages_with_unit:
        number = number.fillna(text.map(ages_with_unit).astype("float64"))
        table = table.assign(age=number.astype("object").where(number.notna(), table["age"]))
    if not ranges:
        return table
    low = text.map({label: ends[0] for label, ends in ranges.items()}).astype("float64").fillna(number)
    high = text.map({label: ends[1] for label, ends in ranges.items()}).astype("float64").fillna(number)
    middle = ((low + high) / 2).astype("object")
    return table.assign(age=middle.where(low.notna(), table["age"]), age_low=low, age_high=high)


def age_range(text: str, open_ages: Sequence[float] = (), *, source: str = "age") -> tuple[float, float] | None:
    """Parse an age range.

    Examples: `(25, 32)`, `25-32`, `25 to 32`, `more than 70`, `70+`, `under 3`, `9-Mar`.

    `more than 70` starts at 70, because the ranges of datasets are adjacent (60-69, more than 70); `under 3` ends at 2.

    Args:
        text: an age.
        open_ages: youngest and oldest age, in years, of ranges with an open end.
        source: name of the table in error messages.

    Returns:
        The ends in years, both inclusive; None for a text that is not a range.

    Raises:
        UserError: the range has an open end and `open_ages` is empty.
    """
    plain = _undo_spreadsheet(text.strip().lower())
    if match := _RANGE.fullmatch(plain):
        low, high = (float(number) for number in match.groups() if number is not None)
        return (low, high) if low <= high else None
    for pattern in (_FROM, _BELOW, _UP_TO):
        if match := pattern.fullmatch(plain):
            bound = next(float(number) for number in match.groups() if number is not None)
            if len(open_ages) != 2:
                raise UserError(
                    f"{source}: age '{text}' is a range with an open end. Set its end on the card: "
                    "options.open_ages = [0, 90] (the youngest and the oldest age)"
                )
            if pattern is _FROM:
                return bound, max(bound, float(open_ages[1]))
            bound -= pattern is _BELOW
            return min(bound, float(open_ages[0])), bound
    return None


def is_date(text: str) -> bool:
    """Return whether a text is a full date: a range that a spreadsheet converted, or a date of birth."""
    return _DATE.fullmatch(text.strip().lower()) is not None


def _range_of_date(text: str) -> tuple[float, float] | None:
    """Return the range that became a date: day and month; None for the first of a month, as October 2019 (10-19) is."""
    match = _DATE.fullmatch(text.strip().lower())
    if match is None:
        return None
    low, high = sorted(float(part) for part in (match.groups()[1:3] if match[1] else match.groups()[3:5]))
    return (low, high) if low > 1 else None


def _age_with_unit(text: str) -> float | None:
    """Return the years of an age with a unit; None for another text."""
    plain = text.strip().lower()
    match = _DICOM.fullmatch(plain) or _AGE.fullmatch(plain)
    return float(match[1].replace(",", ".")) / _PER_YEAR[match[2][0]] if match else None


def _undo_spreadsheet(text: str) -> str:
    if (match := _DAY_MONTH.fullmatch(text)) and match[2] in _MONTHS:
        low, high = sorted((int(match[1]), _MONTHS[match[2]]))
        return f"{low}-{high}"
    if (match := _MONTH_YEAR.fullmatch(text)) and match[1] in _MONTHS:
        return f"{_MONTHS[match[1]]}-{match[2]}"
    return text
