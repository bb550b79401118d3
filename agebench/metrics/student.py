"""One Student distribution in the place of a mixture of them."""

from collections.abc import Callable

import numpy as np
from scipy import special

from agebench.metrics.bootstrap import Floats

# Two-sided tails at which a mixture's distribution is matched: that of a 95 % interval, and that of simultaneous ones.
_TAILS = (0.05, 0.001)
# Fewer than two degrees of freedom, which a system with one seed can have, would leave no estimate of its variance.
_FREEDOM = np.exp(np.linspace(np.log(2), np.log(1e4), 200))
_POINTS = np.array([special.stdtrit(_FREEDOM, 1 - tail / 2) for tail in _TAILS])
_NEGLIGIBLE = 1e-9  # weight of components that are left out; a thousand of them are a thousandth of the rarer tail
# Multiples of the typical scale between which the points of a mixture are searched, and steps of the search among them.
_GRID = np.linspace(np.log(0.3), np.log(1e5), 8)
_STEPS = 10


def match_mixture(weights: Floats, variances: Floats, freedom: Floats) -> tuple[Floats, Floats]:
    """Return scale (S,), squared, and degrees of freedom (S,) of the Student distributions that stand for S mixtures of such.

    Each has the two-sided 5 % and 0.1 % points of its mixture, to within 0.2 %. Where that would take fewer than two degrees of
    freedom, it has two and the 5 % point, and too near a 0.1 % point: so has a system with one seed beside few others.

    Args:
        weights: (K, S) shares of the components, which sum to 1.
        variances: (K, S) squares of their scales.
        freedom: (K, S) their degrees of freedom.
    """
    typical = np.exp(np.sum(weights * np.log(variances), axis=0) / 2)
    component, system = np.nonzero(weights > _NEGLIGIBLE)
    weight, own_freedom = weights[component, system], freedom[component, system]
    relative = typical[system] / np.sqrt(variances[component, system])

    def log_tail(multiple: Floats) -> Floats:
        """The logarithms (S,) of the two-sided tails beyond multiples (S,), in logarithms, of the typical scales."""
        tails = weight * special.stdtr(own_freedom, -np.exp(multiple)[system] * relative)
        return np.log(np.maximum(2 * np.bincount(system, tails, len(typical)), 1e-300))

    on_grid = np.array([log_tail(np.full(len(typical), multiple)) for multiple in _GRID])
    near, far = (np.exp(_solve(log_tail, on_grid, np.log(tail))) * typical for tail in _TAILS)
    # The heavier the tails, the further is the second point from the first.
    ratios = _POINTS[1] / _POINTS[0]
    matched = np.exp(np.interp(-np.log(far / near), -np.log(ratios), np.log(_FREEDOM)))
    scale = near / np.exp(np.interp(np.log(matched), np.log(_FREEDOM), np.log(_POINTS[0])))
    return scale**2, matched


def _solve(decreasing: Callable[[Floats], Floats], on_grid: Floats, wanted: float) -> Floats:
    """Return (S,) points at which S decreasing functions have a value, by false position in the Illinois variant.

    Args:
        decreasing: S points -> the S functions there.
        on_grid: (G, S) the functions at the points of `_GRID`; one that never has the value gets the nearer end.
        wanted: the value.
    """
    columns = np.arange(on_grid.shape[1])
    above = np.clip(np.sum(on_grid > wanted, axis=0), 1, len(_GRID) - 1)
    low, high = _GRID[above - 1].copy(), _GRID[above].copy()
    at_low, at_high = on_grid[above - 1, columns] - wanted, on_grid[above, columns] - wanted
    moved = np.zeros(len(columns))  # 1: the last step moved the lower end; -1: the upper one
    middle = low
    for _ in range(_STEPS):
        apart = at_low - at_high
        middle = np.clip(low + (high - low) * at_low / np.where(apart > 0, apart, 1.0), low, high)
        value = decreasing(middle) - wanted
        is_low = value > 0
        # The end that stays twice in a row counts half, so that the other one does not creep.
        at_high = np.where(is_low & (moved == 1), at_high / 2, at_high)
        at_low = np.where(~is_low & (moved == -1), at_low / 2, at_low)
        low, at_low = np.where(is_low, middle, low), np.where(is_low, value, at_low)
        high, at_high = np.where(is_low, high, middle), np.where(is_low, at_high, value)
        moved = np.where(is_low, 1, -1)
    return np.asarray(middle)
