"""Systems in order, as far as there is one."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import pandas as pd

from agebench.evaluation.comparison import critical_difference
from agebench.reports.systems import LEAKY, SEEN, Row, flags, test_sets

_critical_difference = cache(critical_difference)


@dataclass(frozen=True)
class Ranking:
    """Systems by their mean rank over test sets.

    Attributes:
        tests: the test sets.
        critical: mean ranks that lie closer than this cannot be told apart (Nemenyi, 5 %).
        places: (row, mean rank, place), by rank. The place is one more than how many systems are shown to be better, so that
            systems which cannot be told apart from the best share the first.
        left_out: systems that lack one of the test sets, or whose figures are none of unseen faces.
    """

    tests: list[str]
    critical: float
    places: list[tuple[Row, float, int]]
    left_out: list[Row]


def ranking(rows: Sequence[Row]) -> Ranking | None:
    """Mean ranks over the test sets that at least half of the systems share; None for too few of either."""
    fair = [row for row in rows if not {LEAKY, SEEN} & set(flags(row))]
    tests = sorted(test_sets(fair), key=lambda test: -sum(test in row.tests for row in fair))
    while len(tests) > 2 and 2 * sum(set(tests) <= set(row.tests) for row in fair) < len(fair):
        tests.pop()
    whole = [row for row in fair if set(tests) <= set(row.tests)]
    maes = pd.DataFrame({test: [row.figure(test).get("value", np.nan) for row in whole] for test in tests})
    if len(tests) < 2 or len(whole) < 3 or maes.isna().to_numpy().any():
        return None
    mean = maes.rank().mean(axis=1).to_numpy(float)
    critical = _critical_difference(len(whole), len(tests))
    better = np.searchsorted(np.sort(mean), mean - critical, side="left")
    order = np.argsort(mean, kind="stable")
    places = [(whole[place], float(mean[place]), int(better[place]) + 1) for place in order]
    ranked = set(map(id, whole))
    return Ranking(tests, critical, places, [row for row in rows if id(row) not in ranked])
