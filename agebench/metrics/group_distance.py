"""Studentized distance between group means: the statistic of the permutation test of equal errors.

Shuffled group labels share one spread, observed groups need not. A plain difference of means therefore rejects groups of
equal means and unequal spread; divided by its own standard error it does not (Chung and Romano 2013, "Exact and
asymptotically robust permutation tests", Annals of Statistics 41, theorem 3.1 for k groups).
"""

import numpy as np
from scipy import special

from agebench.metrics.bootstrap import Flags, Floats, Ints, distinct_values
from agebench.metrics.permutation import LabelPermutations

# The full covariance of group means is inverted for at most so many groups; above, its diagonal is used.
_FULL_COVARIANCE = 50
# Variances below this share of the mean variance are raised to it, so that a constant group divides by a number above 0.
_SMALLEST_SHARE = 1e-9
# Items of all shuffles that are computed at once: what the fast caches of a core hold.
_BLOCK = 16_000


class GroupDistance:
    """Welch's statistic of (standardized) group means with variances by unit.

    The squared distances of the means from their precision-weighted mean, each over its variance. Variances are those of
    cluster sampling: residuals are summed within a unit before they are squared. Rows of units with several labels enter as
    deviations from their unit's mean in the stratum, and through the full covariance of the means (as in a paired test), so
    what the rows of a unit share cancels. Rows that no shuffle moves are left out.

    Args:
        items: shuffled items.
        groups: number of groups.
        weights: (S,) weights of the strata, sum 1.
        signed: whether values may be negative: means are compared as they are, and not on a log scale.
    """

    def __init__(self, items: LabelPermutations, groups: int, weights: Floats, *, signed: bool = False) -> None:
        self._groups = groups
        self._signed = signed
        self._weights = weights
        strata = len(weights)
        self._size = groups * strata
        single = self._single = items.single
        kept = self._kept = single + len(items.places)
        observed = items.observed[:kept]
        self._counts = items.counts[:kept]
        self._sums = _centered(items, observed % strata, strata)
        units = items.units[:single]
        self._first_item = np.flatnonzero(np.diff(units, prepend=-1))
        self._unit_index = np.repeat(np.arange(len(self._first_item)), np.diff(self._first_item, append=single))
        _, self._mixed_index = np.unique(items.units[single:kept], return_inverse=True)
        # A shuffle within a unit keeps its labels, so the number of several-label units in each cell never changes.
        mixed_cells = distinct_values(self._mixed_index * self._size + observed[single:]) % self._size
        self._mixed_units = np.bincount(mixed_cells, minlength=self._size)

    def __call__(self, cells: Ints) -> float:
        """Compute the statistic under one assignment of the items to cells (I,)."""
        means, single_variance, mixed = self._moments(cells[: self._kept])
        return _distance(means, single_variance, mixed)

    def shuffled(self, items: LabelPermutations, rng: np.random.Generator, count: int) -> Floats:
        """Compute the statistic under `count` shuffles of the items' labels (count,).

        Args:
            items: the items that the statistic was made of.
            rng: source of the shuffles.
            count: the number of shuffles.
        """
        if self._kept > self._single:  # units of several labels need their covariances, one shuffle at a time
            return np.array([self(items.cells(rng)) for _ in range(count)])
        block = max(1, _BLOCK // max(self._kept, self._size, 1))
        sizes = [min(block, count - start) for start in range(0, count, block)]
        return np.concatenate([self._of_whole_units(items.whole_cells(rng, size)) for size in sizes])

    def _of_whole_units(self, cells: Ints) -> Floats:
        """The statistic of many assignments of items to cells (P, I), where every unit has one label; see `_moments`."""
        n_shuffles, groups, strata = len(cells), self._groups, len(self._weights)
        shape = (n_shuffles, groups, strata)
        places = cells + self._size * np.arange(n_shuffles)[:, None]
        flat = places.ravel()

        def summed(values: Floats) -> Floats:
            return np.bincount(flat, np.tile(values, n_shuffles), minlength=n_shuffles * self._size).reshape(shape)

        total, n = summed(self._sums), summed(self._counts)
        units = np.bincount(flat, minlength=n_shuffles * self._size).reshape(shape) + self._mixed_units.reshape(
            shape[1:]
        )
        pooled = total.sum(axis=1) / np.maximum(n.sum(axis=1), 1)
        mean = np.where(n > 0, total / np.maximum(n, 1), pooled[:, None])
        alone = units < 2
        center = np.where(alone, pooled[:, None], mean)
        scale = self._weights / np.maximum(n, 1) * np.where(alone, 1.0, np.sqrt(units / np.maximum(units - 1, 1)))
        influence = (self._sums - self._counts * center.ravel()[places]) * scale.ravel()[places]
        rows, n_units = np.arange(n_shuffles)[:, None], len(self._first_item)
        by_unit = np.bincount(
            (self._unit_index + n_units * rows).ravel(), influence.ravel(), minlength=n_shuffles * n_units
        )
        labels = cells[:, self._first_item] // strata + groups * rows
        variance = np.bincount(labels.ravel(), by_unit**2, minlength=n_shuffles * groups).reshape(n_shuffles, groups)
        means = mean @ self._weights
        if not self._signed:
            positive = np.maximum(means, _SMALLEST_SHARE * means.max(axis=1, keepdims=True) + 1e-300)
            means, variance = np.log(positive), variance / positive**2
        precision = 1 / np.maximum(variance, np.maximum(_SMALLEST_SHARE * variance.mean(axis=1, keepdims=True), 1e-300))
        overall = (precision * means).sum(axis=1, keepdims=True) / precision.sum(axis=1, keepdims=True)
        distances: Floats = (precision * (means - overall) ** 2).sum(axis=1)
        return distances

    def limit_p(self, cells: Ints) -> float:
        """Compute the p value of the items as they are from the F limit of the statistic (Welch 1951, Biometrika 38)."""
        cells = cells[: self._kept]
        means, single_variance, mixed = self._moments(cells)
        statistic = _distance(means, single_variance, mixed)
        precision = 1 / _floored(single_variance + (mixed**2).sum(axis=0))
        groups = cells // len(self._weights)
        single = self._single
        units = np.bincount(groups[self._first_item], minlength=self._groups)
        units += np.bincount(
            distinct_values(self._mixed_index * self._groups + groups[single:]) % self._groups, minlength=self._groups
        )
        freedom = np.maximum(units - len(self._weights), 1)
        share = np.sum((1 - precision / precision.sum()) ** 2 / freedom)
        k = self._groups
        scale = (k - 1) * (1 + 2 * (k - 2) / (k**2 - 1) * share)
        return float(special.fdtrc(k - 1, max((k**2 - 1) / (3 * share), 1), statistic / scale))

    def _moments(self, cells: Ints) -> tuple[Floats, Floats, Floats]:
        """Standardized means (G,), their variances from one-label units (G,), and influences of other units (U, G)."""
        strata, single = len(self._weights), self._single
        total = np.bincount(cells, self._sums, minlength=self._size)
        n = np.bincount(cells, self._counts, minlength=self._size)
        by_stratum = (self._groups, strata)
        pooled = total.reshape(by_stratum).sum(axis=0) / np.maximum(n.reshape(by_stratum).sum(axis=0), 1)
        pooled = np.tile(pooled, self._groups)
        # A shuffle can empty a small cell when whole subjects move: it then takes its stratum's mean.
        mean = np.where(n > 0, total / np.maximum(n, 1), pooled)
        units = np.bincount(cells[:single], minlength=self._size) + self._mixed_units
        alone: Flags = units < 2
        # One unit does not deviate from its own mean; its distance from the stratum's mean is the best estimate there is.
        center = np.where(alone, pooled, mean)
        scale = np.tile(self._weights, self._groups) / np.maximum(n, 1)
        scale *= np.where(alone, 1.0, np.sqrt(units / np.maximum(units - 1, 1)))
        influence = (self._sums - self._counts * center[cells]) * scale[cells]
        by_unit = np.bincount(self._unit_index, influence[:single], minlength=len(self._first_item))
        label = cells[self._first_item] // strata
        variance = np.bincount(label, by_unit**2, minlength=self._groups)
        mixed = self._mixed_influence(cells[single:] // strata, influence[single:])
        means = mean.reshape(by_stratum) @ self._weights
        if self._signed:
            return means, variance, mixed
        # On a log scale the statistic is far less skewed: a sample that misses the rare large errors has both a small mean
        # and a small variance.
        positive = np.maximum(means, _SMALLEST_SHARE * means.max() + 1e-300)
        return np.log(positive), variance / positive**2, mixed / positive

    def _mixed_influence(self, labels: Ints, influence: Floats) -> Floats:
        if not len(labels):
            return np.zeros((0, self._groups))
        if self._groups > _FULL_COVARIANCE:
            # Only sums of squares by group are used then: one row holds their roots.
            keys, where = np.unique(self._mixed_index * self._groups + labels, return_inverse=True)
            squares = np.bincount(where, influence) ** 2
            return np.sqrt(np.bincount(keys % self._groups, squares, minlength=self._groups))[None]
        units = int(self._mixed_index.max()) + 1
        keys = self._mixed_index * self._groups + labels
        return np.bincount(keys, influence, minlength=units * self._groups).reshape(units, self._groups)


def _centered(items: LabelPermutations, stratum: Ints, strata: int) -> Floats:
    """Sums of the items that are shuffled; single rows as deviations from their place's mean, about the stratum's mean."""
    kept, single = len(stratum), items.single
    sums = items.sums[:kept].copy()
    if kept == single:
        return sums
    n = np.bincount(stratum, items.counts[:kept], minlength=strata)
    means = np.bincount(stratum, sums, minlength=strata) / np.maximum(n, 1)
    place = np.unique(items.places, return_inverse=True)[1]
    own = (np.bincount(place, sums[single:]) / np.bincount(place))[place]
    sums[single:] += means[stratum[single:]] - own
    return sums


def _distance(means: Floats, single_variance: Floats, mixed: Floats) -> float:
    if not len(mixed) or len(means) > _FULL_COVARIANCE:
        precision = 1 / _floored(single_variance + (mixed**2).sum(axis=0))
        center = np.sum(precision * means) / precision.sum()
        return float(np.sum(precision * (means - center) ** 2))
    covariance = np.diag(single_variance) + mixed.T @ mixed
    contrasts = np.eye(len(means))[:-1] - np.eye(len(means))[-1]
    difference, spread = contrasts @ means, contrasts @ covariance @ contrasts.T
    spread += np.eye(len(spread)) * max(_SMALLEST_SHARE * np.trace(spread) / len(spread), 1e-300)
    return float(difference @ np.linalg.solve(spread, difference))


def _floored(variances: Floats) -> Floats:
    floored: Floats = np.maximum(variances, max(_SMALLEST_SHARE * variances.mean(), 1e-300))
    return floored
