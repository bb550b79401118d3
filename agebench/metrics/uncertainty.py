"""The quality of a model's own uncertainty: scores of predicted distributions, and conformal intervals."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import special

from agebench.errors import UserError
from agebench.metrics.bootstrap import ClusterBootstrap, Floats, Ints, Replicates, bootstrap_weights
from agebench.metrics.clustered_rates import clustered_rate, group_rates, row_clusters, subject_codes
from agebench.metrics.confidence_intervals import (
    IntervalKind,
    bootstrap_interval,
    exact_at_edges,
    metric_value,
    metric_values,
)
from agebench.metrics.groups import groupings
from agebench.metrics.metric_specs import FigureKey
from agebench.metrics.point import age_limits
from agebench.metrics.prediction_format import canonical
from agebench.metrics.prediction_io import probabilities
from agebench.metrics.schema import (
    ConformalLevel,
    ConformalResult,
    GroupCoverage,
    LevelCoverage,
    RejectionCurve,
    ReliabilityCurve,
    UncertaintyResult,
)

LEVELS = (0.5, 0.8, 0.9, 0.95)
_CURVE = np.linspace(0.05, 0.95, 19)
_KEPT = np.linspace(0.05, 1, 20)
# An estimate is the mean of its distribution, or its median or mode: years that these may lie apart in most images.
_FAR = 5.0
# (n + 1) level is to be a whole rank where it is one on paper: 10 * 0.9 = 9.
_ROUNDING = 1e-9
# Half precision ends at 6e-8: what it stores as 0 may be this much.
_LEAST = 2.0**-24


@dataclass(frozen=True)
class PredictiveScores:
    """A predicted distribution of age for every image.

    Attributes:
        nll: (n,) negative log-likelihood of the label, nats (of a year-wide class, or of a density a year).
        crps: (n,) continuous ranked probability score, years.
        pit_low, pit_high: (n,) the distribution function below and at the label, in [0, 1]; equal where it is continuous.
        widths: (n, len(LEVELS)) widths of the central intervals, years.
        std: (n,) standard deviation, years.
    """

    nll: Floats
    crps: Floats
    pit_low: Floats
    pit_high: Floats
    widths: Floats
    std: Floats

    def covered(self, level: float) -> Floats:
        """Return whether the central interval of probability `level` holds the label (n,), in [0, 1].

        At a jump of the distribution function any value between its ends is as good: the share of them that lies in the
        interval counts, the mean of randomized values (Czado, Gneiting and Held 2009, "Predictive model assessment for count data",
        Biometrics 65). A model that is right about every class so covers each level exactly.
        """
        low, high = (1 - level) / 2, (1 + level) / 2
        jump = self.pit_high - self.pit_low
        shared = np.minimum(self.pit_high, high) - np.maximum(self.pit_low, low)
        at_point = (self.pit_low >= low) & (self.pit_low <= high)
        return np.where(jump > 0, np.clip(shared, 0, None) / np.where(jump > 0, jump, 1), at_point)


def score_gaussian(age: Floats, mean: Floats, std: Floats) -> PredictiveScores:
    """A normal distribution for every image; all arguments (n,), years.

    CRPS: Gneiting and Raftery 2007, "Strictly proper scoring rules, prediction, and estimation", section 4.2.
    """
    std = np.maximum(std, 1e-6)
    z = (age - mean) / std
    density = np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)
    nll = z**2 / 2 + np.log(std) + np.log(2 * np.pi) / 2
    crps = std * (z * (2 * special.ndtr(z) - 1) + 2 * density - 1 / np.sqrt(np.pi))
    reach = special.ndtri((1 + np.asarray(LEVELS)) / 2)
    pit = special.ndtr(z)
    return PredictiveScores(nll, crps, pit, pit, 2 * std[:, None] * reach, std)


def score_categorical(age: Floats, probs: Floats, first_age: int = 0) -> PredictiveScores:
    """Score a probability for every whole age.

    CRPS is that of point masses at the whole ages, for every label: between them, or beyond the first or last one. The
    likelihood and the distribution function are those of the class nearest to the label, [a - 0.5, a + 0.5) for age a; outside
    all classes the likelihood is 0, which counts as the smallest value of half precision. Widths spread each class evenly.

    Args:
        age: (n,) labels, years.
        probs: (n, A), rows summing to 1.
        first_age: what the first class stands for.
    """
    n, classes = probs.shape
    ages = first_age + np.arange(classes)
    nearest = np.floor(age + 0.5).astype(np.int64) - first_age
    is_class = (nearest >= 0) & (nearest < classes)
    label = np.clip(nearest, 0, classes - 1)
    rows = np.arange(n)
    cdf = np.cumsum(probs, axis=1)
    likelihood = np.where(is_class, probs[rows, label], 0.0)
    nll = -np.log(np.maximum(likelihood, _LEAST))
    pit_low = np.where(is_class, np.clip(cdf[rows, label] - likelihood, 0, 1), nearest >= classes)
    mean = probs @ ages
    std = np.sqrt(np.maximum(probs @ ages.astype(float) ** 2 - mean**2, 0))
    widths = np.stack([_quantile(cdf, probs, (1 + c) / 2) - _quantile(cdf, probs, (1 - c) / 2) for c in LEVELS], 1)
    return PredictiveScores(
        nll, _point_mass_crps(age, cdf, ages), pit_low, np.minimum(pit_low + likelihood, 1), widths, std
    )


def _point_mass_crps(age: Floats, cdf: Floats, ages: Ints) -> Floats:
    """Compute the CRPS (n,) of point masses at `ages` (A,) from their distribution functions `cdf` (n, A).

    The integral of the squared distance to the label's step: the label may divide the year between two ages, or lie beyond them.
    """
    before = np.clip(age[:, None] - ages[:-1], 0, 1)
    within = np.sum(cdf[:, :-1] ** 2 * before + (1 - cdf[:, :-1]) ** 2 * (1 - before), axis=1)
    crps: Floats = within + np.maximum(ages[0] - age, 0) + np.maximum(age - ages[-1], 0)
    return crps


def _quantile(upper: Floats, probs: Floats, level: float) -> Floats:
    """Return where the distribution function crosses `level`, in classes from the lower end of the first (n,)."""
    place = np.minimum((upper < level).sum(axis=1), probs.shape[1] - 1)
    rows = np.arange(len(probs))
    mass = np.maximum(probs[rows, place], 1e-12)
    crossing: Floats = place + np.clip((level - (upper[rows, place] - probs[rows, place])) / mass, 0, 1)
    return crossing


def uncertainty(
    table: pd.DataFrame,
    *,
    first_age: int = 0,
    resamples: int = 1000,
    seed: int = 0,
    interval: IntervalKind = "bca",
) -> UncertaintyResult | None:
    """Score the predicted distributions: `p` where there is one, else a normal one of `age_std`; None with neither.

    Args:
        table: predictions, see `check_predictions`.
        first_age: what the first entry of `p` stands for.
        resamples: bootstrap samples.
        seed: of them.
        interval: `bca` or `percentile`.

    Raises:
        UserError: `p` is no distribution, or its mean is far from `age_pred`: it starts at another age.
    """
    if not {"p", "age_std"} & set(table):
        return None
    table = canonical(table)
    age = table["age"].to_numpy(float)
    probs = probabilities(table)
    if probs is not None:
        _check_first_age(probs, table["age_pred"].to_numpy(float), first_age)
        found, source = score_categorical(age, probs, first_age), "p"
    elif "age_std" in table:
        found, source = (
            score_gaussian(age, table["age_pred"].to_numpy(float), table["age_std"].to_numpy(float)),
            "age_std",
        )
    else:
        return None
    clusters = row_clusters(table)
    covered = np.column_stack([found.covered(level) for level in LEVELS])
    features = np.column_stack([np.ones(len(table)), found.nll, found.crps, covered, found.widths])
    keys: list[FigureKey] = [("nll",), ("crps",)]
    keys += [(f"{level:g}", metric) for metric in ("coverage", "width") for level in LEVELS]

    def means(sums: Sequence[Floats]) -> Floats:
        return np.asarray(sums[0][0, 1:] / sums[0][0, :1])

    sampler = ClusterBootstrap(features, [np.zeros(len(table), dtype=np.int64)], clusters)
    replicates = sampler.replicates(means, resamples=resamples, seed=seed)
    every = metric_values(keys, replicates, interval, clusters=np.full(len(keys), sampler.count))
    levels = {
        f"{level:g}": LevelCoverage(
            coverage=exact_at_edges(every[f"{level:g}", "coverage"], sampler.count), width=every[f"{level:g}", "width"]
        )
        for level in LEVELS
    }
    observed = [float(np.mean(found.covered(level))) for level in _CURVE]
    return UncertaintyResult(
        source=source,
        nll=every["nll",],
        crps=every["crps",],
        levels=levels,
        reliability=ReliabilityCurve(nominal=[round(float(level), 2) for level in _CURVE], observed=observed),
        rejection=_risk_coverage_curve(
            np.abs(table["age_pred"].to_numpy(float) - age), found.std, clusters, resamples, seed
        ),
    )


def _check_first_age(probs: Floats, predicted: Floats, first_age: int) -> None:
    apart = float(np.median(predicted - (first_age + probs @ np.arange(probs.shape[1]))))
    if abs(apart) > _FAR:
        raise UserError(
            f"column p: its mean lies {abs(apart):.0f} years {'below' if apart > 0 else 'above'} age_pred, if its first entry "
            f"stands for age {first_age}; state that age with --p-first-age (perhaps {first_age + round(apart)})"
        )


def _risk_coverage_curve(
    errors: Floats, doubt: Floats, clusters: Ints, resamples: int = 200, seed: int = 0
) -> RejectionCurve:
    """Compute the MAE of the images that remain when the most uncertain are rejected, and its area.

    Args:
        errors: (n,) absolute errors, years.
        doubt: (n,) the uncertainty that the model states; the largest are rejected first.
        clusters: (n,) rows drawn together in the bootstrap.
        resamples: bootstrap samples for the area; 200 at most are made.
        seed: of them.
    """
    order = np.argsort(doubt, kind="stable")
    sorted_errors, sorted_clusters = errors[order], clusters[order]

    def curves(weights: Floats) -> Floats:
        kept = np.cumsum(weights, axis=1, dtype=np.float64)
        total = np.cumsum(weights * sorted_errors, axis=1, dtype=np.float64)
        made = np.empty((len(weights), len(_KEPT)))
        for row in range(len(weights)):
            at = np.searchsorted(kept[row], _KEPT * kept[row, -1] - 1e-9)
            made[row] = total[row, at] / kept[row, at]
        return made

    curve = curves(np.ones((1, len(errors))))[0]
    count = int(clusters.max()) + 1
    areas = np.empty(0)
    if count > 1 and resamples:
        blocks = bootstrap_weights(count, min(resamples, 200), seed)
        areas = np.concatenate([curves(row[None, sorted_clusters]).mean(axis=1) for make in blocks for row in make()])
    found = Replicates(np.array([curve.mean()]), areas[None], np.zeros((1, 1)), count)
    low, high = bootstrap_interval(found, "percentile", clusters=np.array([count]))
    best = np.sort(errors)
    at = np.maximum(np.ceil(_KEPT * len(errors) - 1e-9).astype(int), 1) - 1
    return RejectionCurve(
        kept=[round(float(kept), 2) for kept in _KEPT],
        mae=curve.tolist(),
        area=metric_value(float(curve.mean()), float(low[0]), float(high[0])),
        area_random=float(errors.mean()),
        area_best=float((np.cumsum(best)[at] / (at + 1)).mean()),
    )


def conformal(
    calibration: pd.DataFrame,
    table: pd.DataFrame,
    *,
    groups: Sequence[str] = (),
    levels: Sequence[float] = LEVELS,
) -> ConformalResult:
    """Calibrate split-conformal intervals, and measure their coverage and width on another set.

    The score is the absolute error, over `age_std` where both tables have it; of a label that is a range of ages it is the distance
    to the farther end, so that the interval holds the true age wherever in the range that lies. Its quantile at rank
    ceil((n + 1) level) covers new images of the same kind at least at `level` (Lei et al. 2018, "Distribution-free predictive
    inference for regression", section 2.2). Where subjects are known it covers an image of a new person: each of K people weighs
    1/(K + 1), shared evenly by his images, and infinity the rest (Lee, Barber and Willett 2023, "Distribution-free inference
    with hierarchical data", arXiv 2306.06342, section 3). With one image a person the two are the same. On another dataset the
    guarantee need not hold: that is what the coverage by group shows.

    Args:
        calibration: predictions on the validation part.
        table: predictions on the test set.
        groups: group columns, or crossings.
        levels: nominal coverage.

    Raises:
        UserError: a group column is not there.
    """
    scaled = "age_std" in calibration and "age_std" in table
    scores, scale = _scores(calibration, scaled), _scale(table, scaled)
    errors = _scores(table, scaled)
    clusters = subject_codes(table)
    made = groupings(table, groups)
    everyone = np.ones(len(table), dtype=bool)
    whose = row_clusters(calibration)
    count = calibration_units(calibration)
    results = {}
    for level in levels:
        if count < min_calibration_size(level):
            continue
        radius = _reach(scores, whose, level)
        covered = errors <= radius
        results[f"{level:g}"] = ConformalLevel(
            radius=radius,
            width=float(np.mean(2 * radius * scale)),
            coverage=clustered_rate(covered, everyone, clusters),
            groups={
                grouping.name: {
                    name: GroupCoverage(n=int(n), coverage=coverage)
                    for name, n, coverage in zip(
                        grouping.names,
                        grouping.counts,
                        group_rates(covered, everyone, grouping.codes, len(grouping.names), clusters),
                        strict=True,
                    )
                }
                for grouping in made
            },
        )
    return ConformalResult(
        n_calibration=len(calibration),
        people_calibration=None if subject_codes(calibration) is None else count,
        scaled=scaled,
        levels=results,
    )


def _reach(scores: Floats, clusters: Ints, level: float) -> float:
    """The score at which the people's (K + 1) level-th begins, each person's one evenly shared by his images."""
    n_people = int(clusters.max()) + 1
    rank = level * (n_people + 1) - _ROUNDING
    if n_people == len(scores):  # one image a person: a rank among all scores, which takes no sorting
        place = min(max(int(np.ceil(rank)) - 1, 0), len(scores) - 1)
        return float(np.partition(scores, place)[place])
    share = 1 / np.bincount(clusters)[clusters]
    order = np.argsort(scores, kind="stable")
    place = int(np.searchsorted(np.cumsum(share[order]), rank))
    return float(scores[order][min(place, len(scores) - 1)])


def calibration_units(calibration: pd.DataFrame) -> int:
    """Return the number of calibration units: people, or images where people are not known."""
    return int(row_clusters(calibration).max(initial=-1)) + 1


def min_calibration_size(level: float) -> int:
    """Return the number of people that an interval of `level` needs: with fewer, rank ceil((n + 1) level) is above n."""
    return max(1, int(np.ceil((level - _ROUNDING) / (1 - level))))


def _scores(table: pd.DataFrame, scaled: bool) -> Floats:
    predicted = table["age_pred"].to_numpy(float)
    low, high = age_limits(table)
    errors: Floats = np.maximum(predicted - low, high - predicted) / _scale(table, scaled)
    return errors


def _scale(table: pd.DataFrame, scaled: bool) -> Floats:
    return np.maximum(table["age_std"].to_numpy(float), 1e-6) if scaled else np.ones(len(table))
