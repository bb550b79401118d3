"""Ages of classes from their labels, such as `20-29`, `more than 70`, `(0, 2)` or `25`."""

import re
from collections.abc import Sequence

from agebench.data.readers.age_parsing import age_range
from agebench.errors import UserError

_FAR = 1e6
_NUMBER = re.compile(r"\d+(\.\d+)?")


def label_brackets(labels: Sequence[str], open_ages: Sequence[float] = ()) -> list[tuple[float, float]]:
    """Return the youngest and the oldest age of each label, both inclusive.

    A label with an open end, such as `more than 70`, ends at `open_ages`. Without these it is as wide as the bracket below it:
    70 to 79 after `60-69`; `under 10` begins at 0.

    Args:
        labels: label of each class.
        open_ages: youngest and oldest age; empty if the card states none.

    Raises:
        UserError: a label is no age.
    """
    brackets = [_bracket(label, open_ages or (0.0, _FAR)) for label in labels]
    unknown = [label for label, bracket in zip(labels, brackets, strict=True) if bracket is None]
    if unknown:
        raise UserError(
            f"the label {unknown[0]!r} is no age; state the age of each of the {len(labels)} classes on the card: output.ages"
        )
    known = [bracket for bracket in brackets if bracket is not None]
    return [(low, _end(low, known) if high == _FAR else high) for low, high in known]


def _bracket(label: str, open_ages: Sequence[float]) -> tuple[float, float] | None:
    if _NUMBER.fullmatch(label.strip()):
        return float(label), float(label)
    return age_range(label.replace("_", " "), open_ages) or age_range(label.replace("_", "-"), open_ages)


def _end(low: float, brackets: Sequence[tuple[float, float]]) -> float:
    """Return the end of an open bracket: as wide as the closed one below it."""
    below = [(high, high - start) for start, high in brackets if high <= low]
    return low + (max(below)[1] if below else 0.0)
