"""Types of numeric options. Their errors are a `UserError` about the value; the parser adds the option's name."""

import math
from collections.abc import Callable

from agebench.errors import UserError

OLDEST = 120  # years


def integer(low: int, high: int | None = None) -> Callable[[str], int]:
    """Return the type of an option with an integer.

    Args:
        low: smallest value.
        high: largest value; None: any.

    Returns:
        A function of the option's text, which raises UserError for any other text.
    """

    def parse(text: str) -> int:
        stripped = text.strip()
        if not stripped.removeprefix("-").removeprefix("+").isdecimal() or len(stripped) > 18:
            raise UserError(f"{_shortened(text)}: give an integer, {_range(low, high)}")
        if not _is_in_range(int(stripped), low, high):
            raise UserError(f"{_shortened(text)}: give {_range(low, high)}")
        return int(stripped)

    return parse


def number(low: float, high: float | None = None) -> Callable[[str], float]:
    """Return the type of an option with a finite number.

    Args:
        low: smallest value.
        high: largest value; None: any.

    Returns:
        A function of the option's text, which raises UserError for any other text.
    """

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value) or not _is_in_range(value, low, high):
            raise UserError(f"{_shortened(text)}: give a number, {_range(low, high)}")
        return value

    return parse


def resamples(text: str) -> int:
    """Return a number of bootstrap samples.

    Args:
        text: the option's text.

    Raises:
        UserError: it is neither 0 nor an integer of 100 or more.
    """
    value = integer(0)(text)
    if 0 < value < 100:
        raise UserError(f"{_shortened(text)}: give 100 or more, or 0 for no intervals")
    return value


# An age in years, of a person or as an estimate.
age = number(0, OLDEST)
legal_age = integer(1, OLDEST)
count = integer(1)
seed = integer(0)


def _is_in_range(value: float, low: float, high: float | None) -> bool:
    return value >= low and (high is None or value <= high)


def _range(low: float, high: float | None) -> str:
    return f"{low:g} or more" if high is None else f"from {low:g} to {high:,g}"


def _shortened(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:40]}…"
