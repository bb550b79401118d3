"""One Student distribution in the place of a mixture."""

import numpy as np
import pytest
from scipy import optimize, stats

from agebench.metrics.student import match_mixture


def test_a_mixture_of_one_component_is_that_component() -> None:
    variances, freedom = np.array([[4.0, 0.01, 9.0]]), np.array([[3.0, 8.0, 500.0]])
    found, matched = match_mixture(np.ones((1, 3)), variances, freedom)
    assert np.sqrt(found) == pytest.approx(np.sqrt(variances[0]), rel=0.005)
    assert matched[:2] == pytest.approx(freedom[0, :2], rel=0.02)


def test_both_points_of_a_mixture_are_kept() -> None:
    weights, variances, freedom = np.array([[0.9], [0.1]]), np.array([[1.0], [20.0]]), np.array([[10.0], [3.0]])
    (variance,), (matched,) = match_mixture(weights, variances, freedom)

    def tail(x: float) -> float:
        return float(2 * np.sum(weights * stats.t.sf(x / np.sqrt(variances), freedom)))

    for level in (0.05, 0.001):
        exact = optimize.brentq(lambda x, level=level: tail(x) - level, 0.01, 1e4)
        assert stats.t.isf(level / 2, matched) * variance**0.5 == pytest.approx(exact, rel=0.002)


def test_fewer_than_two_degrees_of_freedom_become_two() -> None:
    (variance,), (matched,) = match_mixture(np.ones((1, 1)), np.ones((1, 1)), np.full((1, 1), 0.5))
    assert matched == pytest.approx(2)
    assert variance > 1
