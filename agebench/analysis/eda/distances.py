"""How far apart two sets of labels lie, and how far chance alone would put them."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray

MAX_AGE = 120
N_PERMUTATIONS = 400


def age_histogram(age: "pd.Series[float]") -> NDArray[np.int64]:
    """(121,) how many of the ages lie in each completed year of life, 0 to 120."""
    return np.bincount(np.clip(np.floor(age.to_numpy(float)).astype(np.int64), 0, MAX_AGE), minlength=MAX_AGE + 1)


def wasserstein(first: NDArray[np.int64], second: NDArray[np.int64]) -> float:
    """Years that a label must move on average to turn one histogram of single years into the other; NaN for an empty one."""
    if not first.sum() or not second.sum():
        return float("nan")
    return float(np.abs(_share(first).cumsum() - _share(second).cumsum()).sum())


def histogram_intersection(first: NDArray[np.int64], second: NDArray[np.int64]) -> float:
    """The share that two histograms have in common: 1 where they are the same, 0 where they share nothing."""
    return float(np.minimum(_share(first), _share(second)).sum())


def total_variation(first: Mapping[str, int], second: Mapping[str, int]) -> float:
    """The share of images that would have to change their group to turn one into the other, 0 to 1."""
    sums = [max(1, sum(of.values())) for of in (first, second)]
    names = {*first, *second}
    return sum(abs(first.get(name, 0) / sums[0] - second.get(name, 0) / sums[1]) for name in names) / 2


def wasserstein_null_quantile(whole: NDArray[np.int64], first: int, second: int, *, seed: int = 0) -> float:
    """The distance in years that two parts of `whole`, drawn blindly, exceed in one case of twenty.

    Args:
        whole: a histogram of single years.
        first: images in one part.
        second: images in the other; both together at most what `whole` has.
        seed: of the draws.
    """
    generator = np.random.default_rng([seed, 0xD157])
    one = generator.multivariate_hypergeometric(whole, first, size=N_PERMUTATIONS, method="marginals")
    other = np.array([generator.multivariate_hypergeometric(left, second, method="marginals") for left in whole - one])
    apart = np.abs(one.cumsum(axis=1) / max(first, 1) - other.cumsum(axis=1) / max(second, 1)).sum(axis=1)
    return float(np.quantile(apart, 0.95))


def _share(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    shares: NDArray[np.float64] = counts / max(1, counts.sum())
    return shares
