"""Checks of single options of readers, whose values a card states in any type."""

import math
from typing import Any

from agebench.errors import UserError


def check_flag(name: str, value: Any) -> bool:
    """Return an option that is true or false.

    Args:
        name: the option.
        value: its value on the card.

    Raises:
        UserError: the value is neither.
    """
    if not isinstance(value, bool):
        raise UserError(f"options.{name} = {value!r}: must be true or false")
    return value


def check_number(name: str, value: Any, low: float, high: float) -> float:
    """Return an option that is a number, of the type that the card states.

    Args:
        name: the option.
        value: its value on the card.
        low: the least value that is allowed.
        high: the greatest value that is allowed.

    Raises:
        UserError: the value is no number from `low` to `high`.
    """
    if not _is_number(value) or not low <= value <= high:
        raise UserError(f"options.{name} = {value!r}: must be a number from {low:g} to {high:g}")
    return value  # type: ignore[no-any-return]


def check_open_ages(ages: Any) -> tuple[float, ...]:
    """Return the youngest and the oldest age of ranges with an open end; empty if the card states none.

    Args:
        ages: the value of `open_ages` on the card.

    Raises:
        UserError: the value is not two ascending ages.
    """
    numbers = tuple(ages) if isinstance(ages, list | tuple) else (ages,)
    if numbers and not (len(numbers) == 2 and all(map(_is_number, numbers)) and 0 <= numbers[0] < numbers[1]):
        raise UserError(f"options.open_ages = {ages!r}: must be the youngest and the oldest age, e.g. [0, 90]")
    return numbers


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
