"""The marks of a figure, without which it must not be read, and how many images are behind it."""

from collections.abc import Sequence

from agebench.leaderboard.systems import (
    Caveat,
    System,
    excludes,
    failures_on,
    has_leakage,
    has_other_images,
    is_contaminated,
    is_subset,
)
from agebench.reports.formatting import format_count

HOME, LEAK, PARTIAL, OTHER, TRAINED_ON, UNKNOWN, UNANSWERED = "°", "‡", "†", "≠", "§", "?", "¶"
# Where fewer of the given images have an estimate, the figure has the mark `UNANSWERED`.
ANSWERED_SHARE = 0.95
_MISSED = f"{100 * (1 - ANSWERED_SHARE):.0f} %"
NO_ESTIMATES = f"{UNANSWERED} more than {_MISSED} of the images got no estimate (no face found, or not readable)"
LEGEND = (
    "In parentheses: images with an estimate, of all images of the test set (or of the copy that was read) that the system was not "
    "trained or validated on. "
    f"{HOME} tested on the held-out part of its own training set. {LEAK} its protocol leaks: images or people of the test are "
    f"trained on. {PARTIAL} images were left out (`--exclude`, `--limit`, or a copy that lacks some): never ranked. "
    f"{OTHER} other images or labels than most systems were tested on. "
    f"{TRAINED_ON} the system was trained or chosen on this test set, by what its authors state: never ranked. "
    f"{UNKNOWN} what it was trained on is not known. "
    f"{NO_ESTIMATES}: they are in no error and in no rate."
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
        + UNKNOWN * (has_unknown_training_data(row) and not is_contaminated(row, test))
        + UNANSWERED * has_unanswered(row, test)
    )


def has_unknown_training_data(row: System) -> bool:
    """Return whether it is not known on what a system from elsewhere was trained."""
    return row.train is None and any(note.caveat is Caveat.UNKNOWN_TRAINING_DATA for note in row.caveats)


def has_unanswered(row: System, test: str) -> bool:
    """Return whether many images of a test set got no estimate, because no face was found or they could not be read."""
    lost, read = failures_on(row, test) if test in row.tests else (0, 0)
    return lost > (1 - ANSWERED_SHARE) * read
