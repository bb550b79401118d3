"""Spread of figures whose plain bootstrap intervals are too narrow, and replicates that have it.

- A mean over cells (single ages, sex x age) loses small cells in resamples, and a cell of one row shows no spread at all.
- RMSE is skewed and its own spread is estimated badly where errors have heavy tails.
- A high quantile moves in steps, and in a small sample no order statistic may lie above it.

Each is given the replicates of a better approximation instead. `docs/explanation/statistics.md` has the coverage.
"""

from dataclasses import dataclass

import numpy as np
from scipy import special

from agebench.metrics.bootstrap import Flags, Floats, Ints, Replicates
from agebench.metrics.clustered_rates import design_effect
from agebench.metrics.quantiles import t_quantile
from agebench.metrics.simultaneous import clusters_in_groups

# A cell with fewer rows is centered on the mean of its nearest cells, until they hold so many.
_SMOOTHED = 10
# Cells further apart than this (in years) are not neighbors: another sex or region.
_FARTHEST = 1_000
# Errors with a smaller tail index have no finite fourth moment: no interval of the RMSE reaches its level.
HEAVY_TAIL = 4.0
# A factor of exp(10) = 22,000 above the figure is no bound: two or three images leave the upper end open.
_UNBOUNDED = 10.0


@dataclass(frozen=True)
class Spread:
    """Standard errors of logarithms of figures, with their degrees of freedom; both (K,)."""

    errors: Floats
    freedom: Floats


def log_replicates(values: Floats, resampled: Floats, spread: Spread) -> Floats:
    """Replicates (K, B) of positive figures, Student's on a log scale, in the order of the replicates as resampled.

    Infinite where they are so large that the sample bounds the figure by nothing.
    """
    levels = _levels(resampled)
    points = special.stdtrit(np.maximum(spread.freedom, 1)[:, None], levels)
    exponents = np.clip(points * spread.errors[:, None], -50, 50)
    with np.errstate(invalid="ignore"):  # 0 times infinity
        replicates: Floats = values[:, None] * np.where(exponents > _UNBOUNDED, np.inf, np.exp(exponents))
    return np.where(np.isnan(replicates) & (values[:, None] == 0), 0.0, replicates)


def _levels(resampled: Floats) -> Floats:
    """The rank of each replicate as a probability (K, B), NaN last."""
    ranks = np.argsort(np.argsort(resampled, axis=1, kind="stable"), axis=1, kind="stable")
    levels: Floats = (ranks + 0.5) / resampled.shape[1]
    return levels


def with_rows(replicates: Replicates, rows: Ints, resampled: Floats) -> Replicates:
    """`replicates` with others (len(rows), B) in some rows, which have no skewness left to correct."""
    changed, left_out = replicates.resampled.copy(), replicates.jackknife.copy()
    changed[rows] = np.where(np.isfinite(replicates.value[rows])[:, None], resampled, np.nan)
    left_out[rows] = replicates.value[rows][:, None]
    return Replicates(replicates.value, changed, left_out, replicates.clusters)


def rmse_spread(squares: Floats, codes: Ints, clusters: Ints, groups: int) -> Spread:
    """Compute the spread of log RMSE in each group.

    Args:
        squares: (n,) squared errors.
        codes: (n,) groups, -1 for none.
        clusters: (n,) rows drawn together.
        groups: number of groups.
    """
    known = codes >= 0
    n = np.maximum(np.bincount(codes[known], minlength=groups), 1)
    mean = np.bincount(codes[known], squares[known], minlength=groups) / n
    influence = np.where(known, squares - mean[codes], 0.0) / n[codes]
    second, fourth, units = _moments(influence, codes, clusters, groups)
    with np.errstate(divide="ignore", invalid="ignore"):
        errors = np.sqrt(second * units / np.maximum(units - 1, 1)) / np.where(mean > 0, 2 * mean, 1)
    return Spread(errors, _freedom(second, fourth, units))


def _moments(influence: Floats, codes: Ints, clusters: Ints, groups: int) -> tuple[Floats, Floats, Ints]:
    """Sums of the second and fourth powers of each cluster's influence, and the number of clusters, by group."""
    known = codes >= 0
    count = int(clusters.max()) + 1
    if count == len(clusters):
        of, sums = codes[known], influence[known]
    elif groups == 1 and known.all():
        of, sums = np.zeros(count, dtype=np.int64), np.bincount(clusters, influence)
    else:
        pairs, pair = np.unique(codes[known] * count + clusters[known], return_inverse=True)
        of, sums = pairs // count, np.bincount(pair, influence[known])
    squares = sums * sums
    second, fourth = (np.bincount(of, powers, minlength=groups) for powers in (squares, squares * squares))
    return second, fourth, clusters_in_groups(codes, clusters, groups)


def _freedom(second: Floats, fourth: Floats, units: Ints) -> Floats:
    """Degrees of freedom of a variance estimate by its own relative variance (Satterthwaite)."""
    noise = np.maximum(fourth - second**2 / np.maximum(units, 1), 1e-9 * second**2 + 1e-300)
    freedom: Floats = np.clip(2 * second**2 / noise, 1, np.maximum(units - 1, 1))
    return freedom


def cell_mean_spread(errors: Floats, cells: Ints, clusters: Ints) -> Spread:
    """Compute the spread of the log of the unweighted mean over cells of the mean absolute error.

    A row's residual is taken from the mean of its cell, in cells of fewer than ten rows from that of the nearest cells.
    The same cells are assumed: the ages that the test set has.

    Args:
        errors: (n,) absolute errors.
        cells: (n,) numbers on a line (years), -1 for none; neighbors are close.
        clusters: (n,) rows drawn together.
    """
    inside = cells >= 0
    if not inside.any():
        return Spread(np.zeros(1), np.ones(1))
    cells, values, clusters = (
        (cells, errors, clusters) if inside.all() else (cells[inside], errors[inside], clusters[inside])
    )
    every = np.bincount(cells)
    present = np.flatnonzero(every)
    counts, sums = every[present], np.bincount(cells, values)[present]
    place = (np.cumsum(every > 0) - 1)[cells]
    centers, sizes = _smoothed(present, counts, sums)
    scale = np.sqrt(sizes / np.maximum(sizes - 1, 1)) / (len(present) * counts)
    squares = np.bincount(clusters, (values - centers[place]) * scale[place]) ** 2
    second, fourth = float(np.sum(squares)), float(squares @ squares)
    units = int(np.count_nonzero(np.bincount(clusters)))
    mean = float(np.mean(sums / counts))
    error = np.sqrt(second * units / max(units - 1, 1)) / mean if mean > 0 else 0.0
    freedom = _freedom(np.array([second]), np.array([fourth]), np.array([units]))
    return Spread(np.array([error]), freedom)


def _smoothed(present: Ints, counts: Ints, sums: Floats) -> tuple[Floats, Floats]:
    """Mean and number of rows of each cell, thin cells together with their nearest neighbors."""
    centers, sizes = sums / counts, counts.astype(float)
    for cell in np.flatnonzero(counts < _SMOOTHED):
        distance = np.abs(present - present[cell])
        # Rings of equal distance join as wholes, so that neither side is preferred.
        order = np.argsort(distance, kind="stable")
        order = order[distance[order] <= _FARTHEST]
        held = np.cumsum(counts[order])
        reach = distance[order][min(int(np.searchsorted(held, _SMOOTHED)), len(order) - 1)]
        near = order[distance[order] <= reach]
        centers[cell], sizes[cell] = sums[near].sum() / counts[near].sum(), counts[near].sum()
    return centers, sizes


def quantile_replicates(errors: Floats, ordered: Floats, level: float, clusters: Ints, resampled: Floats) -> Floats:
    """Replicates (B,) of a quantile: its confidence distribution from order statistics.

    The number of errors below the quantile is binomial, of n over the design effect where rows repeat clusters (Woodruff
    1952); ranks between two errors are interpolated (Nyblom 1992). Infinite where the rank exceeds the largest error.

    Args:
        errors: (n,) absolute errors.
        ordered: (n,) the same, ascending.
        level: of the quantile.
        clusters: (n,) rows drawn together.
        resampled: (B,) replicates whose order is kept.
    """
    n, units = len(errors), int(clusters.max()) + 1
    effective = float(n)
    if units < n:
        below: Flags = errors <= ordered[int(np.ceil(level * n)) - 1]
        effective /= design_effect(below, clusters)
        # The design effect is estimated from the clusters: Student's quantile instead of the normal's.
        effective *= float((special.ndtri(0.975) / t_quantile(0.975, max(units - 1, 1))) ** 2)
    levels = _levels(resampled[None])[0]
    ranks = _ranks(effective, level, levels)
    beyond = ranks > effective
    places = np.clip((ranks - 0.5) * (n / effective) - 0.5, 0, n - 1)
    lower = np.floor(places).astype(np.int64)
    upper = np.minimum(lower + 1, n - 1)
    values = ordered[lower] + (places - lower) * (ordered[upper] - ordered[lower])
    return np.where(beyond, np.inf, values)


def _ranks(n: float, level: float, probabilities: Floats) -> Floats:
    """The rank r in (0, n + 1) whose order statistic lies above the quantile with each probability."""
    low, high = np.full(len(probabilities), 1e-9), np.full(len(probabilities), n + 1 - 1e-9)
    for _ in range(36):
        middle = (low + high) / 2
        # The r-th of n errors lies below the quantile with the probability I_level(r, n - r + 1).
        above = special.betainc(middle, n + 1 - middle, level) < 1 - probabilities
        low, high = np.where(above, low, middle), np.where(above, middle, high)
    ranks: Floats = (low + high) / 2
    return ranks


def tail_index(ordered: Floats) -> float:
    """Hill's estimate of the tail index from the largest 5 % of ascending errors, five at least; NaN where undefined."""
    largest = max(5, len(ordered) // 20)
    if len(ordered) <= largest or ordered[-largest - 1] <= 0:
        return float("nan")
    mean = float(np.mean(np.log(ordered[-largest:] / ordered[-largest - 1])))
    return 1 / mean if mean > 0 else float("inf")
