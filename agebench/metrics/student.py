"""One Student distribution in the place of a mixture of them."""

import numpy as np
from scipy import special

from agebench.metrics.bootstrap import Floats

# Two-sided tails at which a mixture's distribution is matched: that of a 95 % interval, and that of simultaneous ones.
_TAILS = (0.05, 0.001)
# Fewer than two degrees of freedom, which a system with one seed can have, would leave no estimate of its variance.
_FREEDOM = np.exp(np.linspace(np.log(2), np.log(1e4), 200))
_POINTS = np.array([special.stdtrit(_FREEDOM, 1 - tail / 2) for tail in _TAILS])
_NEGLIGIBLE = 1e-9  # weight of components that are left out
# Multiples of the typical scale between which the tails of a mixture are computed.
_GRID = np.exp(np.linspace(np.log(0.3), np.log(1e5), 60))


def match_mixture(weights: Floats, variances: Floats, freedom: Floats) -> tuple[Floats, Floats]:
    """Return scale (S,), squared, and degrees of freedom (S,) of the Student distributions that stand for S mixtures of such.

    Each has the two-sided 5 % and 0.1 % points of its mixture, to within 1 %. Where that would take fewer than two degrees of
    freedom, it has two and the 5 % point, and too near a 0.1 % point: so has a system with one seed beside few others.

    Args:
        weights: (K, S) shares of the components, which sum to 1.
        variances: (K, S) squares of their scales.
        freedom: (K, S) their degrees of freedom.
    """
    typical = np.exp(np.sum(weights * np.log(variances), axis=0) / 2)
    counts = np.flatnonzero(weights.max(axis=1) > _NEGLIGIBLE)
    weights, variances, freedom = weights[counts], variances[counts], freedom[counts]
    relative = typical / np.sqrt(variances)
    tails = np.array([2 * np.sum(weights * special.stdtr(freedom, -multiple * relative), axis=0) for multiple in _GRID])
    logs = np.log(np.maximum(tails, 1e-300))
    near, far = (
        np.array(
            [
                np.exp(np.interp(-np.log(tail), -logs[:, system], np.log(_GRID))) * typical[system]
                for system in range(logs.shape[1])
            ]
        )
        for tail in _TAILS
    )
    # The heavier the tails, the further is the second point from the first.
    ratios = _POINTS[1] / _POINTS[0]
    matched = np.exp(np.interp(-np.log(far / near), -np.log(ratios), np.log(_FREEDOM)))
    scale = near / np.exp(np.interp(np.log(matched), np.log(_FREEDOM), np.log(_POINTS[0])))
    return scale**2, matched
