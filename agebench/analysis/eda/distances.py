"""Distances between label distributions, and their distribution for random splits."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray

MAX_AGE = 120
N_PERMUTATIONS = 400


def age_histogram(age: "pd.Series[float]") -> NDArray[np.int64]:
    """Count ages by completed year, 0 to 120.

    Args:
        age: ages in years.

    Returns:
        (121,) counts.
    """
    return np.bincount(np.clip(np.floor(age.to_numpy(float)).astype(np.int64), 0, MAX_AGE), minlength=MAX_AGE + 1)


def wasserstein(first: NDArray[np.int64], second: NDArray[np.int64]) -> float:
    """Compute the Wasserstein distance between two age histograms in years.

    Args:
        first: (121,) counts by year.
        second: (121,) counts by year.

    Returns:
        The distance, or NaN if a histogram is empty.
    """
    if not first.sum() or not second.sum():
        return float("nan")
    return float(np.abs(_share(first).cumsum() - _share(second).cumsum()).sum())


def histogram_intersection(first: NDArray[np.int64], second: NDArray[np.int64]) -> float:
    """Compute the overlap of two normalized histograms.

    Args:
        first: (121,) counts by year.
        second: (121,) counts by year.

    Returns:
        1 for equal histograms, 0 for disjoint ones.
    """
    return float(np.minimum(_share(first), _share(second)).sum())


def total_variation(first: Mapping[str, int], second: Mapping[str, int]) -> float:
    """Compute the total variation distance between two group distributions.

    Args:
        first: the number of images by group.
        second: the number of images by group.

    Returns:
        The share of images that would have to change their group, 0 to 1.
    """
    totals = [max(1, sum(counts.values())) for counts in (first, second)]
    names = {*first, *second}
    return sum(abs(first.get(name, 0) / totals[0] - second.get(name, 0) / totals[1]) for name in names) / 2


def wasserstein_null_quantile(whole: NDArray[np.int64], first: int, second: int, *, seed: int = 0) -> float:
    """Compute the 95 % quantile of the Wasserstein distance between two random disjoint subsets.

    Args:
        whole: (121,) the age histogram of all images.
        first: the number of images in the first subset.
        second: the number of images in the second subset; both together at most the number of all images.
        seed: the seed of the random subsets.

    Returns:
        The distance in years.
    """
    generator = np.random.default_rng([seed, 0xD157])
    subset = generator.multivariate_hypergeometric(whole, first, size=N_PERMUTATIONS, method="marginals")
    other = np.array(
        [generator.multivariate_hypergeometric(left, second, method="marginals") for left in whole - subset]
    )
    distances = np.abs(subset.cumsum(axis=1) / max(first, 1) - other.cumsum(axis=1) / max(second, 1)).sum(axis=1)
    return float(np.quantile(distances, 0.95))


def _share(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    shares: NDArray[np.float64] = counts / max(1, counts.sum())
    return shares
