"""The few systems that the leaderboard begins with: those that people install, then the best that were trained here."""

from collections import Counter
from collections.abc import Sequence

from agebench.leaderboard.marks import has_unanswered
from agebench.leaderboard.systems import System, has_other_images, is_contaminated

# Rows of the first table.
MOST_ROWS = 12


def headline_systems(rows: Sequence[System]) -> list[System]:
    """Choose the rows of the first table, in its order.

    Systems from elsewhere come first, by their MAE on the test set that most of them share; those that left many of its images
    unanswered follow the others, and then those that were trained on a test set. The last rows are, for each training set, the
    system with the smallest MAE on the other set that most of its systems share. It has a rank there, on the images that most
    systems were tested on, and was tested on every other set that more than half of the training set's systems were tested on.
    Systems with a leaky protocol or excluded images are left out.

    Args:
        rows: all systems.
    """
    rows = [row for row in rows if not row.flatters_everywhere]
    external = [row for row in rows if row.train is None]
    shared = _shared_test(external or rows)
    best = _best_trained(rows)[:MOST_ROWS]
    external.sort(
        key=lambda row: (
            *(has_contamination(row), shared not in row.tests, has_unanswered(row, shared)),
            *(_mae(row, shared), row.name),
        )
    )
    return [*external[: MOST_ROWS - len(best)], *best]


def has_contamination(row: System) -> bool:
    """Return whether a system was trained or chosen on one of its test sets, by what its authors state."""
    return any(is_contaminated(row, test) for test in row.tests)


def _shared_test(rows: Sequence[System]) -> str:
    """Return the test set that most of the systems share; "" without systems."""
    counts = Counter(test for row in rows for test in row.tests)
    return max(counts, key=lambda test: counts[test], default="")


def _best_trained(rows: Sequence[System]) -> list[System]:
    trains = sorted({row.train for row in rows if row.train is not None})
    best: list[System] = []
    for train in trains:
        peers = [row for row in rows if row.train == train]
        away = _shared_test_but(peers, train)  # their own held-out part is a weaker test
        usual = _usual_away(peers, train)
        comparable = [
            row for row in peers if away in row.tests and row.has_rank_on(away) and not has_other_images(row, away)
        ]
        complete = [row for row in comparable if usual.issubset(row.tests)] or comparable
        best += sorted(complete, key=lambda row: (_mae(row, away), row.name))[:1]
    shared = _shared_test(rows)
    return sorted(best, key=lambda row: (row.train == shared, shared not in row.tests, _mae(row, shared), row.name))


def _usual_away(rows: Sequence[System], train: str) -> set[str]:
    """Return the test sets, other than the training set, that more than half of the systems were tested on."""
    counts = Counter(test for row in rows for test in row.tests if test != train)
    return {test for test, count in counts.items() if 2 * count > len(rows)}


def _shared_test_but(rows: Sequence[System], train: str) -> str:
    """Return the test set, other than the training set where there is another, that most of the systems share."""
    counts = Counter(test for row in rows for test in row.tests if test != train)
    return max(counts, key=lambda test: counts[test], default=train)


def _mae(row: System, test: str) -> float:
    value = row.metric(test).value if test in row.tests else None
    return float("inf") if value is None else value
