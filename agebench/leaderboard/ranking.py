"""Mean ranks over many test sets (Demšar 2006); rankings of one test set are in `image_ranking`."""

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import pandas as pd

from agebench.leaderboard.systems import System
from agebench.metrics.comparison import critical_difference

# With fewer data sets Nemenyi's critical difference exceeds what ranks can differ by (Demšar 2006 asks for five or more).
FEWEST_TESTS, _FEWEST_SYSTEMS = 5, 3
_critical_difference = cache(critical_difference)
# A test set, whether it is the held-out part of the system's own training set, and whose images.
Test = tuple[str, bool, frozenset[Hashable]]


@dataclass(frozen=True)
class Ranking:
    """Systems that were tested on the same images, by their mean rank over the test sets.

    Attributes:
        tests: the test sets. Each is a part of their own training set to all of these systems, or to none.
        critical: critical difference of mean ranks (Nemenyi, 5 %).
        places: (row, mean rank, place), by rank. The place is one more than how many systems are shown to be better, so that
            systems that are not distinguishable from the best share the first.
    """

    tests: list[str]
    critical: float
    entries: list[tuple[System, float, int]]


@dataclass(frozen=True)
class RankingResult:
    """All that can be ranked.

    Attributes:
        rankings: every system is in one at most; the largest first.
        left_out: systems that share their tests with too few others, or whose figures are none of unseen faces.
    """

    rankings: list[Ranking]
    left_out: list[System]


def rank_systems(rows: Sequence[System], *, fewest_tests: int = FEWEST_TESTS) -> RankingResult:
    """Rank each system among those that have all the tests of a ranking, on the same images and in the same role.

    Args:
        rows: the systems.
        fewest_tests: test sets that a ranking has at least.
    """
    had = {row: test_keys(row) for row in rows if not row.has_no_rank}
    rankings = []
    while (shared := shared_by_most(list(had.values()), fewest_tests, _FEWEST_SYSTEMS)) is not None:
        group = [row for row in rows if shared <= had.get(row, frozenset())]
        rankings.append(_ranked(group, [test for test in group[0].tests if test in {name for name, *_ in shared}]))
        for row in group:
            del had[row]
    ranked = {row for of in rankings for row, *_ in of.entries}
    return RankingResult(rankings, [row for row in rows if row not in ranked])


def test_keys(row: System) -> frozenset[Test]:
    """Return the tests of a system that may be ranked: the test set, whether it is a part of its training set, and whose images."""
    with_figure = [test for test in row.tests if row.metric(test).value is not None and row.has_rank_on(test)]
    return frozenset((test, test == row.train, row.images(test)) for test in with_figure)


def shared_by_most(had: Sequence[frozenset[Test]], fewest_tests: int, fewest_systems: int) -> frozenset[Test] | None:
    """The tests of some system that most systems have, of several such the most tests; None where too few share any.

    Args:
        had: the tests of each system.
        fewest_tests: tests that are shared at least.
        fewest_systems: systems that share them at least.
    """
    alike = Counter(had)
    sharing = {
        tests: sum(count for others, count in alike.items() if tests <= others)
        for tests in alike
        if len(tests) >= fewest_tests
    }
    most = max(sharing, key=lambda tests: (sharing[tests], len(tests)), default=None)
    return most if most is not None and sharing[most] >= fewest_systems else None


def _ranked(rows: Sequence[System], tests: list[str]) -> Ranking:
    maes = pd.DataFrame({test: [row.metric(test).value for row in rows] for test in tests})
    mean = maes.rank().mean(axis=1).to_numpy(float)
    critical = _critical_difference(len(rows), len(tests))
    better = np.searchsorted(np.sort(mean), mean - critical, side="left")
    order = np.argsort(mean, kind="stable")
    return Ranking(tests, critical, [(rows[place], float(mean[place]), int(better[place]) + 1) for place in order])
