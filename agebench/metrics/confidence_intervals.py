"""Intervals: percentile and BCa from bootstrap replicates, Wilson and Clopper-Pearson for rates."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from agebench.metrics.bootstrap import Floats, Ints, Replicates
from agebench.metrics.metric_specs import FigureKey, metric_of
from agebench.metrics.quantiles import beta_quantile
from agebench.metrics.schema import IntervalKind, MetricValue

__all__ = [
    "CONFIDENCE_LEVEL",
    "NEAR",
    "IntervalKind",
    "bootstrap_interval",
    "clopper_pearson",
    "exact_at_edges",
    "metric_value",
]
__all__ += ["json_number", "metric_values", "wilson"]

CONFIDENCE_LEVEL = 0.95
# Replicates are sums in single precision: one this close to the value, relative to it, may lie on either side of it.
_ROUNDING = 2e-6
# A replicate within this share of the replicates' standard deviation from the value counts in part as below it. Counted as a
# whole or not at all, rounding would decide, and the ends would differ between machines.
NEAR = 0.01
_QUARTILE_RANGE = 1.349  # of the normal distribution, in standard deviations
# No resample lies outside the values of the clusters themselves: of five of them even the smallest and the largest replicate hold
# the figure in 94 % of samples only. Below this number of clusters, intervals are Student's.
FEW_CLUSTERS = 10


def bootstrap_interval(
    found: Replicates,
    kind: IntervalKind = "bca",
    level: float = CONFIDENCE_LEVEL,
    near: float = NEAR,
    clusters: Ints | None = None,
) -> tuple[Floats, Floats]:
    """Lower and upper ends, each (K,), NaN where there are no replicates; each interval contains its point value.

    `percentile` takes the quantiles of the replicates. `bca` shifts them for the bias of the median of the replicates and
    for skewness, the acceleration coming from the jackknife (Efron 1987, "Better bootstrap confidence intervals").
    Both reach a little further with few clusters
    (Hesterberg 2015, "What teachers should know about the bootstrap": the expanded percentile interval).

    Args:
        found: the figures and their replicates.
        kind: `bca` or `percentile`.
        level: of the interval.
        near: for `bca`, see `NEAR`; 0 for records made before version 3 of the intervals.
        clusters: (K,) clusters behind each figure, of which fewer than `FEW_CLUSTERS` give Student's interval; 0 for a figure
            whose replicates allow for few clusters themselves. None: all that were resampled, and no interval is Student's.
    """
    value, resampled = found.value, found.resampled
    low, high = np.full(len(value), np.nan), np.full(len(value), np.nan)
    if not resampled.shape[1]:
        return low, high
    behind = np.zeros(len(value), dtype=np.int64) if clusters is None else clusters
    units = np.maximum(np.where(behind > 0, behind, found.clusters), 2)
    # The bootstrap's spread is that of n, not n - 1, and its quantiles the normal's, not Student's.
    reach = special.stdtrit(units - 1, (1 + level) / 2) * (units / (units - 1)) ** 0.5
    # Of two clusters the upper tail is 1 but for rounding, and its quantile would be infinite.
    tails = np.minimum(special.ndtr(np.stack([-reach, reach], axis=1)), np.nextafter(1, 0))
    ordered = np.sort(resampled, axis=1)  # NaN goes to the end.
    count = (~np.isnan(ordered)).sum(axis=1)  # Infinite replicates are an open end.
    levels = tails
    if kind == "bca":
        levels = _bca_levels(found, ordered, count, tails, near)
    known = np.isfinite(value) & (count > 0)
    for side, ends in enumerate((low, high)):
        place = np.clip(levels[known, side] * (count[known] - 1), 0, count[known] - 1)
        below = np.floor(place).astype(int)
        above = np.minimum(below + 1, count[known] - 1)
        rows = np.flatnonzero(known)
        fraction = place - below
        with np.errstate(invalid="ignore"):
            between = ordered[rows, below] * (1 - fraction) + ordered[rows, above] * fraction
        ends[known] = np.where(np.isinf(ordered[rows, above]), ordered[rows, above], between)
    few = np.flatnonzero(known & (behind > 0) & (behind < FEW_CLUSTERS))
    if len(few):
        half = student_half_widths(found.rows(few), units[few], level)
        low[few], high[few] = value[few] - half, value[few] + half
    # A figure on the edge of what it can be (a CS of 1) may have all its replicates to one side.
    return np.fmin(low, np.where(known, value, np.nan)), np.fmax(high, np.where(known, value, np.nan))


def student_half_widths(found: Replicates, clusters: Ints, level: float = CONFIDENCE_LEVEL) -> Floats:
    """Return half widths (K,) of Student's intervals about the values: of the images, and of the seeds where there are several.

    Args:
        found: the figures and their replicates.
        clusters: (K,) clusters behind each figure.
        level: of the interval.
    """
    units, tail = np.maximum(clusters, 2), (1 + level) / 2
    images = _image_errors(found) * special.stdtrit(units - 1, tail) * (units / (units - 1)) ** 0.5
    seeds = 0.0 if found.seed_errors is None else found.seed_errors * special.stdtrit(found.seed_freedom, tail)
    half: Floats = np.hypot(images, seeds)
    return half


def _image_errors(found: Replicates) -> Floats:
    return np.nanstd(found.resampled, axis=1) if found.image_errors is None else found.image_errors


def _bca_levels(found: Replicates, ordered: Floats, count: Ints, tails: Floats, near: float) -> Floats:
    below, n = _below_value(found.value, ordered, count, near), np.maximum(count, 1)
    shift = special.ndtri(np.clip(below / n, 0.5 / n, 1 - 0.5 / n))[:, None]
    known = np.isfinite(found.jackknife)
    left_out = np.where(known, found.jackknife, 0.0)
    mean = left_out.sum(axis=1, keepdims=True) / np.maximum(known.sum(axis=1, keepdims=True), 1)
    change = np.where(known, mean - left_out, 0.0)
    spread = np.maximum((change**2).sum(axis=1), 1e-100)
    acceleration = (change**3).sum(axis=1) / (6 * spread**1.5)
    moved = shift + special.ndtri(tails)
    levels: Floats = special.ndtr(shift + moved / (1 - acceleration[:, None] * moved))
    return levels


def _below_value(value: Floats, ordered: Floats, count: Ints, near: float) -> Floats:
    """Return how many replicates lie below the value; one equal to it but for rounding counts half, one near it in part.

    With whole-year predictions many replicates equal the value.

    Args:
        value: (K,).
        ordered: (K, B) replicates in ascending order, NaN last.
        count: (K,) replicates that are not NaN.
        near: in standard deviations, see `NEAR`.
    """
    rows, last = np.arange(len(value)), np.maximum(count - 1, 0)
    with np.errstate(invalid="ignore", over="ignore"):
        quartiles = ordered[rows, last // 4], ordered[rows, last * 3 // 4]
        spread = (quartiles[1] - quartiles[0]) / _QUARTILE_RANGE
        reach = np.maximum(near * np.where(np.isfinite(spread), spread, 0.0), np.finfo(float).tiny)
        equal = _ROUNDING * np.abs(value)[:, None]
        share = value[:, None] - ordered
        share -= np.clip(share, -equal, equal)
        share /= 2 * reach[:, None]
        share += 0.5
        below: Floats = np.nansum(np.clip(share, 0, 1, out=share), axis=1)
    return below


def difference_p_value(found: Replicates, clusters: int) -> float | None:
    """Return the p value of a difference: twice the smaller share of replicates on either side of 0.

    Where no replicate lies on the other side, their number alone bounds that share, and a correction for many pairs could never be
    passed. Student's tail is taken there if it is smaller, with the degrees of freedom of people and seeds together (Satterthwaite
    1946, "An approximate distribution of estimates of variance components"). With fewer than `FEW_CLUSTERS` it is always taken.

    Args:
        found: the difference (K = 1) and its replicates; none: no p value.
        clusters: people or images behind the difference.
    """
    replicates = found.resampled[0]
    if not len(replicates):
        return None
    side = int(min(np.sum(replicates <= 0), np.sum(replicates >= 0)))
    p = min(1.0, 2 * (1 + side) / (1 + len(replicates)))
    units = max(clusters, 2)
    of_images = float(_image_errors(found)[0]) ** 2 * units / (units - 1)
    of_seeds = 0.0 if found.seed_errors is None else float(found.seed_errors[0]) ** 2
    variance = of_images + of_seeds
    if not variance > 0:
        return p
    freedom = variance**2 / (of_images**2 / (units - 1) + of_seeds**2 / max(found.seed_freedom, 1))
    students = float(2 * special.stdtr(freedom, -abs(float(found.value[0])) / variance**0.5))
    return students if clusters < FEW_CLUSTERS else p if side else min(p, students)


def metric_value(value: float, low: float = np.nan, high: float = np.nan) -> MetricValue:
    """Return a metric value with its interval; numbers that are not finite become None."""
    return MetricValue(value=json_number(value), ci_low=json_number(low), ci_high=json_number(high))


def json_number(value: float) -> float | None:
    """Return `value` for JSON: None for NaN and infinity."""
    return float(value) if np.isfinite(value) else None


def metric_values(
    keys: Sequence[FigureKey],
    found: Replicates,
    kind: IntervalKind = "bca",
    near: float = NEAR,
    clusters: Ints | None = None,
) -> dict[FigureKey, MetricValue]:
    """Return each metric with its 95 % interval (see `bootstrap_interval`), clipped to the values that its metric can have.

    One cluster behind a figure shows no spread: it has no interval.
    """
    low, high = bootstrap_interval(found, kind, near=near, clusters=clusters)
    if clusters is not None:
        low, high = (np.where(clusters == 1, np.nan, ends) for ends in (low, high))
    metrics = [metric_of(key) for key in keys]
    limits = [metric.lower for metric in metrics], [metric.upper for metric in metrics]
    with np.errstate(invalid="ignore"):
        ends = np.clip(low, *limits), np.clip(high, *limits)
    return {key: metric_value(*three) for key, *three in zip(keys, found.value, *ends, strict=True)}


def wilson(hits: NDArray[Any], n: NDArray[Any], level: float = CONFIDENCE_LEVEL) -> tuple[Floats, Floats]:
    """Wilson's score interval of hits/n, elementwise; NaN where n = 0 (Wilson 1927)."""
    z = special.ndtri((1 + level) / 2)
    with np.errstate(all="ignore"):
        rate = hits / n
        centre = (rate + z**2 / (2 * n)) / (1 + z**2 / n)
        half = z / (1 + z**2 / n) * np.sqrt(rate * (1 - rate) / n + z**2 / (4 * n**2))
        return np.clip(centre - half, 0, 1), np.clip(centre + half, 0, 1)


def clopper_pearson(hits: NDArray[Any], n: NDArray[Any], level: float = CONFIDENCE_LEVEL) -> tuple[Floats, Floats]:
    """The exact interval of hits/n, elementwise; NaN where n = 0 (Clopper and Pearson 1934). hits need not be whole."""
    hits, n = np.asarray(hits, float), np.asarray(n, float)
    tail = (1 - level) / 2
    with np.errstate(all="ignore"):
        low = np.where(hits > 0, beta_quantile(tail, hits, n - hits + 1), 0.0)
        high = np.where(hits < n, beta_quantile(1 - tail, hits + 1, n - hits), 1.0)
    return np.where(n > 0, low, np.nan), np.where(n > 0, high, np.nan)


def exact_at_edges(share: MetricValue, clusters: int) -> MetricValue:
    """Return a share of exactly 0 or 1 with its exact interval, any other as it is.

    The resamples of such a share are all the same, so the bootstrap claims to be certain.

    Args:
        share: the share; one without an interval is returned without one.
        clusters: number of people, or of images where people are unknown, behind the share.
    """
    value = share.value
    if value is None or value not in (0, 1) or share.ci_low is None:
        return share
    low, high = clopper_pearson(np.array([value * clusters]), np.array([clusters]))
    return metric_value(value, low[0], high[0])
