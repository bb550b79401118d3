"""The figures of age estimation, each a function of sums over rows, so that weights resample them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from agebench.metrics.bootstrap import Flags, Floats, Ints, reindex

CS_LEVELS = tuple(range(11))
# Ages read from text carry rounding errors: an error of 5 years is within 5 years although 0.1 and 5.1 are 4.999… apart.
ROUNDING = 1e-9
# The columns of n, abs and detrended: they come first, and are all that age-standardized errors and biases need.
ERROR_COLUMNS = (0, 1, 2)
_KNOTS = 10.0  # years between the knots of the trend of errors over age
# Variances up to this (years squared) are rounding errors of a constant.
_CONSTANT = 1e-9
QUANTILES = {"median_ae": 0.5, "p95_ae": 0.95}


@dataclass(frozen=True)
class MetricFeatures:
    """The sums over rows: `columns[name]` is the place of a feature in `values` (n, F).

    Attributes:
        values: (n, F) float64.
        columns: feature name -> column.
        ordered_errors: absolute errors, ascending; the quantiles are read from it.
        shares: name of a quantile -> the share of errors up to it.
        spearman: the rank correlation as observed (NaN without spread).
    """

    values: Floats
    columns: dict[str, int]
    ordered_errors: Floats
    shares: dict[str, float]
    spearman: float

    def column(self, name: str) -> Floats:
        """One feature of every row (n,)."""
        values: Floats = self.values[:, self.columns[name]]
        return values

    def of(self, sums: Floats, name: str) -> Floats:
        """The sums of one feature out of (sets, F, resamples)."""
        return sums[:, self.columns[name], :]


def signed_error(table: pd.DataFrame) -> Floats:
    """Estimate minus label, years (n,)."""
    error: Floats = table["age_pred"].to_numpy(float) - table["age"].to_numpy(float)
    return error


def is_within(error: Floats, years: Floats | float) -> Flags:
    """Return whether the absolute error is at most `years`."""
    inside: Flags = np.abs(error) <= years + ROUNDING
    return inside


def age_limits(table: pd.DataFrame) -> tuple[Floats, Floats]:
    """Lowest and highest age that each label leaves possible, years (n,); both are the age itself where the label is no range."""
    age = table["age"].to_numpy(float)
    if not {"age_low", "age_high"} <= set(table.columns):
        return age, age
    low, high = table["age_low"].to_numpy(float), table["age_high"].to_numpy(float)
    return np.where(np.isnan(low), age, low), np.where(np.isnan(high), age, high)


def has_ranges(table: pd.DataFrame) -> bool:
    """Return whether some labels are ranges [age_low, age_high] rather than ages."""
    return {"age_low", "age_high"} <= set(table.columns) and bool((table["age_low"] < table["age_high"]).any())


def _interval_error(table: pd.DataFrame) -> Floats:
    """Signed distance of the estimate to the label's range [age_low, age_high], years (n,); 0 within, NaN without a range."""
    predicted = table["age_pred"].to_numpy(float)
    low, high = table["age_low"].to_numpy(float), table["age_high"].to_numpy(float)
    distance: Floats = predicted - np.clip(predicted, low, high)
    return distance


def _without_age_trend(error: Floats, age: Floats) -> Floats:
    """Subtract from signed errors (n,) their common trend over age: a linear spline with a knot every ten years.

    Args:
        error: estimate less label, years.
        age: label, years.
    """
    years = np.floor(age).astype(np.int64)
    codes = reindex(years - years.min())
    counts = np.bincount(codes).astype(float)
    centers, means = np.bincount(codes, age) / counts, np.bincount(codes, error) / counts
    knots = np.arange(np.floor(centers.min() / _KNOTS) * _KNOTS, centers.max() + _KNOTS, _KNOTS)
    basis = np.stack([np.interp(centers, knots, unit) for unit in np.eye(len(knots))], axis=1)
    weights = np.sqrt(counts)
    heights = np.linalg.lstsq(basis * weights[:, None], means * weights, rcond=None)[0]
    detrended: Floats = error - np.interp(age, knots, heights)
    return detrended


def epsilon_error(error: Floats, label_std: Floats) -> Floats:
    """1 - exp(-error² / (2 std²)), (n,): the error of ChaLearn LAP for labels that are means of votes.

    Escalera et al. 2015, "ChaLearn Looking at People 2015: apparent age and cultural event recognition", ICCV workshops.
    A label without spread (std 0) allows no error: 0 where the estimate is exact, else 1.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        epsilon = -np.expm1(-(error**2) / (2 * label_std**2))
    return np.where((label_std == 0) & (error == 0), 0.0, epsilon)


def quantile(ordered: Floats, level: Floats | float) -> Floats:
    """The quantile of ascending numbers at `level`: where the distribution function crosses it, the middle of a flat part.

    Definition 2 of Hyndman and Fan (1996): unlike the interpolating ones it does not change when every row is doubled.
    """
    place = np.clip(level, 0, 1) * len(ordered)
    whole_place = np.round(place)
    place = np.where(np.abs(place - whole_place) < 1e-6, whole_place, place)
    last = len(ordered) - 1
    below = np.clip(np.ceil(place).astype(np.int64) - 1, 0, last)
    above = np.clip(np.floor(place).astype(np.int64), 0, last)
    middle: Floats = (ordered[below] + ordered[above]) / 2
    return middle


def make_features(table: pd.DataFrame, train_ages: tuple[float, float] | None = None) -> MetricFeatures:
    """Features of predictions; columns age, age_pred, and where there are any age_low, age_high, label_std."""
    age, predicted = table["age"].to_numpy(float), table["age_pred"].to_numpy(float)
    error = signed_error(table)
    ordered = np.sort(np.abs(error))
    made: dict[str, Floats] = {"n": np.ones(len(table)), "abs": np.abs(error)}  # FIRST
    made |= {"detrended": _without_age_trend(error, age), "error": error, "square": error**2}
    made |= {f"cs{years}": is_within(error, years) for years in CS_LEVELS}
    # Centered, so that variances in single precision do not cancel.
    y, p = age - age.mean(), predicted - predicted.mean()
    made |= {"y": y, "p": p, "yy": y * y, "pp": p * p, "yp": y * p}
    spearman, influence = _spearman(age, predicted)
    made["spearman"] = influence
    made |= {name: is_within(error, float(quantile(ordered, level))) for name, level in QUANTILES.items()}
    if train_ages is not None:
        inside = (age >= train_ages[0]) & (age <= train_ages[1])
        made |= {"n_inside": inside, "abs_inside": inside * np.abs(error)}
    if "label_std" in table:
        made |= _where_known("epsilon", epsilon_error(error, table["label_std"].to_numpy(float)))
    if {"age_low", "age_high"} <= set(table.columns):
        distance = _interval_error(table)
        made |= _where_known("range", np.abs(distance)) | {"range_hit": distance == 0}
    # Columns one after another: they are written, and read again, one by one.
    values = np.empty((len(table), len(made)), order="F")
    for place, column in enumerate(made.values()):
        values[:, place] = column
    shares = {name: float(np.mean(made[name])) for name in QUANTILES}
    return MetricFeatures(values, {name: place for place, name in enumerate(made)}, ordered, shares, spearman)


def _where_known(name: str, values: Floats) -> dict[str, Floats]:
    known = np.isfinite(values)
    return {name: np.where(known, values, 0.0), f"n_{name}": known.astype(float)}


def _spearman(age: Floats, predicted: Floats) -> tuple[float, Floats]:
    """The rank correlation and its influence function on every row (n,), of mean 0.

    A resample's ranks are not the ranks of the whole; to first order its correlation is the observed one plus the weighted
    mean of the influence (Croux and Dehon 2010, "Influence functions of the Spearman and Kendall correlation measures":
    the row's own product of ranks, and its part in everyone else's ranks).
    """
    n = len(age)
    by_age, by_estimate = _SortedRows.of(age), _SortedRows.of(predicted)
    a, b = by_age.ranks / n, by_estimate.ranks / n
    spread = a.std() * b.std()
    # Rounding leaves a hair of spread in constant ranks; estimates that vary only by rounding are constant too.
    if min(age.var(), predicted.var()) <= _CONSTANT:
        return np.nan, np.zeros(n)
    rho = float(np.mean((a - a.mean()) * (b - b.mean())) / spread)
    own = (a - a.mean()) * (b - b.mean())
    others = by_age.mean_at_or_above(b - b.mean()) + by_estimate.mean_at_or_above(a - a.mean())
    influence = (own + others) / spread
    # The denominator, a sum of squared ranks, is a constant but for ties.
    return rho, influence - influence.mean()


@dataclass(frozen=True)
class _SortedRows:
    """Rows sorted by a value.

    Attributes:
        order: (n,) the rows by ascending value.
        first: (V,) where each distinct value begins in this order.
        value_codes: (n,) which distinct value each row has, in this order.
    """

    order: Ints
    first: Ints
    value_codes: Ints

    @classmethod
    def of(cls, values: Floats) -> "_SortedRows":
        """Sort values (n,)."""
        order = np.argsort(values, kind="stable")
        ordered = values[order]
        is_first = np.ones(len(values), dtype=bool)
        is_first[1:] = ordered[1:] != ordered[:-1]
        return cls(order, np.flatnonzero(is_first), np.cumsum(is_first) - 1)

    @property
    def ranks(self) -> Floats:
        """Ranks of the rows (n,) from 1; equal values have their mean rank."""
        last = np.append(self.first[1:], len(self.order))
        return self._by_row((self.first + 1 + last) / 2)

    def mean_at_or_above(self, weights: Floats) -> Floats:
        """Compute for each row i the mean over rows j of weights[j] [value[j] > value[i]], equals counting half."""
        sums = np.add.reduceat(weights[self.order], self.first)
        above = np.cumsum(sums[::-1])[::-1] - sums / 2
        return self._by_row(above / len(self.order))

    def _by_row(self, by_value: Floats) -> Floats:
        result = np.empty(len(self.order))
        result[self.order] = by_value[self.value_codes]
        return result


PER_GROUP_METRICS = ("mae", "bias", "rmse", *(f"cs{completed_years}" for completed_years in CS_LEVELS))


def per_group_metrics(features: MetricFeatures, sums: Floats, names: Sequence[str] = PER_GROUP_METRICS) -> Floats:
    """The figures `names` of every set: (sets, len(names), resamples), NaN for an empty set."""
    n = features.of(sums, "n")
    summed = {"mae": "abs", "bias": "error", "rmse": "square"}
    means = np.stack([features.of(sums, summed.get(name, name)) / n for name in names], axis=1)
    if "rmse" in names:
        place = list(names).index("rmse")
        means[:, place] = np.sqrt(means[:, place])
    return means


def overall_only_metrics(features: MetricFeatures, sums: Floats) -> dict[str, Floats]:
    """The figures of the whole test set besides those of `plain`; sums (1, F, resamples), figures (resamples,)."""

    def of(name: str) -> Floats:
        summed: Floats = features.of(sums, name)[0]
        return summed

    n = of("n")
    y, p = of("y") / n, of("p") / n
    variance_y, variance_p = of("yy") / n - y * y, of("pp") / n - p * p
    # Rounding leaves a hair of variance where all ages are one.
    constant = np.minimum(variance_y, variance_p) <= _CONSTANT
    made = {
        "r2": np.where(variance_y <= _CONSTANT, np.nan, 1 - of("square") / n / variance_y),
        "pearson": np.where(constant, np.nan, (of("yp") / n - y * p) / np.sqrt(variance_y * variance_p)),
        "spearman": np.clip(features.spearman + of("spearman") / n, -1, 1),
    }
    for name, level in QUANTILES.items():
        # Bahadur: a sample quantile moves against the share of errors below it (Woodruff 1952 for intervals made so).
        made[name] = quantile(features.ordered_errors, level - (of(name) / n - features.shares[name]))
    if "n_inside" in features.columns:
        made["mae_within_train_ages"] = of("abs_inside") / of("n_inside")
    if "epsilon" in features.columns:
        made["epsilon_error"] = of("epsilon") / of("n_epsilon")
    if "range" in features.columns:
        made["range_mae"] = of("range") / of("n_range")
        made["range_hit"] = of("range_hit") / of("n_range")
    return made


def mean_over_sets(features: MetricFeatures, sums: Floats) -> Floats:
    """MAE as the unweighted mean over the sets that have rows: sums (sets, F, resamples) -> (resamples,)."""
    n = features.of(sums, "n")
    mae = np.where(n > 0, features.of(sums, "abs") / np.where(n > 0, n, 1), 0.0)
    mean: Floats = mae.sum(axis=0) / (n > 0).sum(axis=0)
    return mean


def years(table: pd.DataFrame) -> Ints:
    """The label's completed years (n,)."""
    whole_years: Ints = np.floor(table["age"].to_numpy(float)).astype(np.int64)
    return whole_years
