"""The marks of a figure, without which it must not be read, and how many images are behind it."""

from collections.abc import Sequence

from agebench.leaderboard.systems import System, excludes, has_leakage, has_other_images, is_contaminated, is_subset
from agebench.reports.formatting import format_count

HOME, LEAK, PARTIAL, OTHER, TRAINED_ON = "°", "‡", "†", "≠", "§"
LEGEND = (
    "In parentheses: images tested, of all images of the test set that the system was not trained or validated on. "
    f"{HOME} tested on the held-out part of its own training set. {LEAK} its protocol leaks: images or people of the test are "
    f"trained on. {PARTIAL} images were left out (`--exclude`, `--limit`, or a copy that lacks some): never ranked. "
    f"{OTHER} other images or labels than most systems were tested on. "
    f"{TRAINED_ON} the system was trained or chosen on this test set, by what its authors state: never ranked."
)


def tested_of(row: System, test: str) -> str:
    """`4,742 of 4,742`: images tested, of those that could have been.

    Over seeds that differ, the smallest to the largest, and `all 4,741 to 4,742` where none left any out; `?` where the
    record has no number.
    """
    tested = row.tested(test)
    numbers, possible = [seed.n for seed in tested], [seed.of for seed in tested if seed.of is not None]
    if numbers == possible and len(set(numbers)) > 1:
        return f"all {_span(numbers)}"
    return f"{_span(numbers)} of {_span(possible) if len(possible) == len(tested) else '?'}"


def _span(numbers: Sequence[int]) -> str:
    low, high = min(numbers), max(numbers)
    return format_count(low) if low == high else f"{format_count(low)} to {format_count(high)}"


def caveat_symbol(row: System, test: str) -> str:
    """Return the symbols that a figure must not be read without; `LEGEND` has their meaning."""
    home = test == row.train
    partial = any(map(excludes, row.records)) or is_subset(row, test)
    return (
        HOME * home
        + LEAK * (home and any(map(has_leakage, row.records)))
        + TRAINED_ON * is_contaminated(row, test)
        + PARTIAL * partial
        + OTHER * (not partial and has_other_images(row, test))
    )
