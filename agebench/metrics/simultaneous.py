"""Simultaneous intervals of differences between groups, so that a pair chosen for its gap has a valid interval.

The worst and the best of several groups are a selected pair: the plain interval of their difference excludes 0 far too
often. Here the critical value is the quantile of the largest studentized difference over all pairs of all groupings in the
bootstrap (max-t, Romano and Wolf 2005, "Exact and approximate stepdown methods for multiple hypothesis testing"), which
holds for every pair at once and therefore for the selected one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import special

from agebench.metrics.bootstrap import Flags, Floats, Ints, distinct_values
from agebench.metrics.confidence_intervals import CONFIDENCE_LEVEL

# Above so many groups the pairs are not listed: their largest difference is bounded by the groups' own deviations.
_LISTED = 50
_BLOCK = 256


@dataclass(frozen=True)
class GroupReplicates:
    """Figures of the groups of one grouping, and their bootstrap replicates.

    Attributes:
        values: (k,) observed.
        resampled: (k, B); NaN where a resample lacks the group.
        weights: (k,) rows of each group.
        units: (k,) clusters in each group.
    """

    values: Floats
    resampled: Floats
    weights: Floats
    units: Ints

    @cached_property
    def freedom(self) -> Ints:
        """Degrees of freedom of each group's standard error (k,); 0: no spread is known."""
        freedom: Ints = np.maximum(self.units - 1, 0)
        return freedom

    @cached_property
    def known(self) -> Flags:
        """Return whether a group has a value and a standard error (k,)."""
        known: Flags = np.isfinite(self.values) & (self.freedom > 0) & (self.resampled.shape[1] > 0)
        return known

    @cached_property
    def deviations(self) -> Floats:
        """Replicates less the observed values (k, B), scaled up for what the bootstrap's spread lacks in small groups."""
        deviations = np.nan_to_num(self.resampled - self.values[:, None], nan=0.0, posinf=0.0, neginf=0.0)
        scale = np.sqrt(self.units / np.maximum(self.freedom, 1))
        scaled: Floats = deviations * np.where(self.known, scale, 0.0)[:, None]
        return scaled

    @cached_property
    def standard_errors(self) -> Floats:
        """Standard errors of the values (k,)."""
        errors: Floats = self.deviations.std(axis=1) if self.deviations.size else np.zeros(len(self.values))
        return errors

    @cached_property
    def pair_errors(self) -> Floats | None:
        """Standard errors of the differences (k, k); None where there are too many pairs to list."""
        k = len(self.values)
        if k > _LISTED or not self.deviations.size:
            return None
        covariance = np.cov(self.deviations, bias=True).reshape(k, k)
        variance = np.diag(covariance)
        errors: Floats = np.sqrt(np.maximum(variance[:, None] + variance[None, :] - 2 * covariance, 0))
        return errors

    def logarithms(self) -> "GroupReplicates":
        """The same on a logarithmic scale, for ratios."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return GroupReplicates(np.log(self.values), np.log(self.resampled), self.weights, self.units)

    @cached_property
    def others(self) -> Floats:
        """Rows of all other groups (k,), 1 at least."""
        rows: Floats = np.maximum(self.weights.sum() - self.weights, 1)
        return rows

    def excess(self) -> tuple[Floats, Floats]:
        """Each group's value less the mean of all other rows (k,), and its deviations (k, B)."""

        def contrast(figures: Floats) -> Floats:
            weighted = self.weights[:, None] * figures
            result: Floats = figures - (weighted.sum(axis=0) - weighted) / self.others[:, None]
            return result

        return contrast(self.values[:, None])[:, 0], contrast(self.deviations)

    def excess_half_widths(self, errors: Floats, critical: float) -> Floats:
        """Half widths of the intervals of `excess` (k,), of the people of each group; NaN where a group's spread is not known.

        Args:
            errors: (k,) standard errors of `excess`.
            critical: point of the normal distribution.
        """

        def combined(lengths: Floats) -> Floats:
            squares = (self.weights * lengths) ** 2
            length: Floats = np.sqrt(lengths**2 + np.maximum(squares.sum() - squares, 0) / self.others**2)
            return length

        reach = combined(self.standard_errors * _student(critical, self.freedom))
        independent = combined(self.standard_errors)
        half = errors * reach / np.where(independent > 0, independent, 1)
        return np.where(self.known.all(), half, np.nan)

    def largest_difference(self) -> Floats:
        """The largest studentized difference of any two groups, in each resample (B,)."""
        if self.pair_errors is None:
            # (a z_i - b z_j) / sqrt(a^2 + b^2) is at most sqrt(z_i^2 + z_j^2), and max(z_i, z_j) where the signs agree.
            z = _studentized(self.deviations, self.standard_errors)
            bound: Floats = np.hypot(z.max(axis=0, initial=0), (-z).max(axis=0, initial=0))
            return bound
        first, second = np.triu_indices(len(self.values), 1)
        pairs = self.known[first] & self.known[second]
        first, second = first[pairs], second[pairs]
        z = _studentized(self.deviations[first] - self.deviations[second], self.pair_errors[first, second])
        largest: Floats = np.abs(z).max(axis=0, initial=0)
        return largest

    def half_widths(self, critical: float, rows: slice = slice(None)) -> Floats:
        """Half widths of the intervals of the differences of the groups `rows` to all groups; infinite where unknown."""
        errors = self.standard_errors
        reach = errors * _student(critical, self.freedom)
        independent = np.hypot(errors[rows, None], errors[None, :])
        half = np.hypot(reach[rows, None], reach[None, :])
        if self.pair_errors is not None:
            with np.errstate(divide="ignore", invalid="ignore"):
                half = np.where(independent > 0, half * self.pair_errors[rows] / independent, half)
        widths: Floats = np.where(self.known[rows, None] & self.known[None, :], half, np.inf)
        return widths

    def possibly_largest(self, critical: float) -> Ints:
        """The groups of which no other group is shown to have a larger value, largest first (places)."""
        possible = np.zeros(len(self.values), dtype=bool)
        for start in range(0, len(self.values), _BLOCK):
            rows = slice(start, start + _BLOCK)
            larger = self.values[None, :] - self.values[rows, None] > self.half_widths(critical, rows)
            possible[rows] = ~larger.any(axis=1)
        places = np.flatnonzero(possible)
        return places[np.argsort(-self.values[places], kind="stable")]

    def largest_upper(self, critical: float) -> float:
        """Return the upper bound of the largest difference between any two groups; infinite where one is unknown."""
        if len(self.values) < 2 or not self.known.all():
            return float("inf")
        upper = -np.inf
        for start in range(0, len(self.values), _BLOCK):
            rows = slice(start, start + _BLOCK)
            differences = self.values[rows, None] - self.values[None, :] + self.half_widths(critical, rows)
            differences[np.arange(len(differences)), np.arange(start, start + len(differences))] = -np.inf
            upper = max(upper, float(differences.max()))
        return upper


def clusters_in_groups(codes: Ints, clusters: Ints, groups: int) -> Ints:
    """Count the clusters with rows in each group (groups,); `codes` (n,) are -1 for no group."""
    known = codes >= 0
    count = int(clusters.max()) + 1
    if count == len(clusters):
        return np.bincount(codes[known], minlength=groups)
    pairs = distinct_values(codes[known] * count + clusters[known])
    return np.bincount(pairs // count, minlength=groups)


def difference_critical(families: Sequence[GroupReplicates], level: float = CONFIDENCE_LEVEL) -> float:
    """Compute the critical value that holds for every pair of groups in all `families`; NaN without replicates."""
    return _quantile([family.largest_difference() for family in families if family.deviations.size], level)


def excess_intervals(families: Sequence[GroupReplicates], level: float = CONFIDENCE_LEVEL) -> list[Floats]:
    """Simultaneous intervals of each group's excess over all other rows: for each family (3, k), value, low, high."""
    contrasts = [family.excess() for family in families]
    errors = [deviations.std(axis=1) if deviations.size else np.zeros(len(values)) for values, deviations in contrasts]
    studentized = [
        np.abs(_studentized(deviations[family.known], error[family.known])).max(axis=0, initial=0)
        for family, (_, deviations), error in zip(families, contrasts, errors, strict=True)
        if deviations.size
    ]
    critical = _quantile(studentized, level)
    intervals = []
    for family, (values, _), error in zip(families, contrasts, errors, strict=True):
        half = family.excess_half_widths(error, critical)
        intervals.append(np.stack([values, values - half, values + half]))
    return intervals


def _quantile(largest: Sequence[Floats], level: float) -> float:
    return float(np.quantile(np.max(largest, axis=0), level)) if largest else float("nan")


def _studentized(deviations: Floats, errors: Floats) -> Floats:
    # A contrast without spread (identical groups) never deviates.
    studentized: Floats = deviations / np.where(errors > 0, errors, np.inf)[:, None]
    return studentized


def _student(critical: float, freedom: Ints) -> Floats:
    """The point of Student's distribution with the tail of a normal `critical` (k,)."""
    points: Floats = -special.stdtrit(np.maximum(freedom, 1), special.ndtr(-critical))
    return points
