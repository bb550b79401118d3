"""Quantiles of distributions from scipy.special: importing scipy.stats takes as long as scoring 20,000 rows."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special


def t_quantile(share: float, degrees: float) -> float:
    """Return a quantile of Student's t distribution.

    Args:
        share: the probability below it, between 0 and 1.
        degrees: degrees of freedom, above 0.

    Example:
        >>> round(t_quantile(0.975, 10), 3)
        2.228
    """
    return float(special.stdtrit(degrees, share))


def beta_quantile(share: ArrayLike, a: ArrayLike, b: ArrayLike) -> NDArray[Any]:
    """Return quantiles of the beta distribution.

    Args:
        share: the probabilities below them, between 0 and 1.
        a: the first shape, above 0; NaN is returned elsewhere.
        b: the second shape, above 0; NaN is returned elsewhere.

    Example:
        >>> float(beta_quantile(0.5, 1, 1))
        0.5
    """
    return np.asarray(special.betaincinv(a, b, share))


def binomial_quantile(share: float, n: int, rate: float) -> int:
    """Return the smallest count whose cumulative binomial probability is at least `share`.

    Args:
        share: the probability, between 0 and 1.
        n: number of trials.
        rate: probability of a success.

    Example:
        >>> binomial_quantile(0.5, 10, 0.5)
        5
    """
    count = max(int(np.ceil(special.bdtrik(share, n, rate))), 0)
    # The inverse is continuous: rounding may have passed a count that suffices.
    return count - 1 if count and special.bdtr(count - 1, n, rate) >= share else count
