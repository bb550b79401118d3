"""Sizes of a test in people and images, and the resolution of an existing test set.

Sizes follow from normal approximations with a design effect for several images of a person (Kish 1965, "Survey Sampling",
section 5.4), and from exact binomial power for rates of age gates. The groups of a pilot, which may be of few people, have
Student's quantiles.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from agebench.errors import UserError
from agebench.metrics.age_gates import Gate
from agebench.metrics.bootstrap import Floats, Ints
from agebench.metrics.clustered_rates import effective_sizes, row_clusters
from agebench.metrics.confidence_intervals import CONFIDENCE_LEVEL
from agebench.metrics.groups import group_columns, groupings
from agebench.metrics.point import age_limits, signed_error
from agebench.metrics.schema import (
    GapSize,
    GroupPower,
    IntervalSize,
    LabelNoise,
    PilotFigures,
    PlanResult,
    RateSize,
)

HALF_WIDTHS = (1.0, 0.5, 0.25, 0.1)
GAPS = (1.0, 0.5, 0.25)
FPR_LIMITS = (0.05, 0.01, 0.001)
LABEL_ERRORS = (1.0, 2.0, 3.0)
# Typical of the recorded runs on unconstrained photographs: spread of the absolute error in years, share of its variance that
# the images of a person have in common, and the true FPR as a share of the limit that is to be shown.
DEFAULT_SPREAD, DEFAULT_SHARED, RATE_MARGIN = 4.5, 0.3, 0.5
DEFAULT_GATE = Gate(18, 25.0)
_Z = float(stats.norm.ppf((1 + CONFIDENCE_LEVEL) / 2))
_TAIL = (1 - CONFIDENCE_LEVEL) / 2
_MOST_MINORS = 10_000_000
# Fewer images do not show how much errors vary.
MIN_PILOT = 10


@dataclass(frozen=True)
class PlanOptions:
    """Claims that a test is to show.

    Attributes:
        half_widths: half widths of the MAE's 95 % interval, years.
        gaps: differences in MAE between two groups, years.
        fpr_limits: false positive rates that are to be shown at 95 %.
        power: probability of showing what is true.
        images_per_person: images of each person.
        pairs: pairs of groups that are compared; more than one: Bonferroni.
        gate: the age gate, for a pilot's rate and for the groups of an existing test set.
    """

    half_widths: tuple[float, ...] = HALF_WIDTHS
    gaps: tuple[float, ...] = GAPS
    fpr_limits: tuple[float, ...] = FPR_LIMITS
    power: float = 0.8
    images_per_person: float = 1.0
    pairs: int = 1
    gate: Gate = DEFAULT_GATE

    def check(self) -> None:
        """Reject values that are out of range.

        Raises:
            UserError: a size, rate or power that is impossible.
        """
        sizes = (*self.half_widths, *self.gaps)
        if any(not 1e-3 <= size <= 100 for size in sizes):
            raise UserError("half widths and gaps must lie between 0.001 and 100 years")
        if any(not 1e-5 <= limit < 1 for limit in self.fpr_limits):
            raise UserError("rates must lie between 0.00001 and 1, e.g. 0.01")
        if not 0.05 < self.power < 1:
            raise UserError(f"--power {self.power:g}: must lie between 0.05 and 1, e.g. 0.8")
        if not 1 <= self.images_per_person <= 10_000 or not 1 <= self.pairs <= 1_000_000:
            raise UserError("images per person must lie between 1 and 10,000, pairs of groups between 1 and 1,000,000")


def make_plan(pilot: pd.DataFrame | None, options: PlanOptions, groups: Sequence[str] | None = None) -> PlanResult:
    """Compute the sizes that a test needs, and what a pilot's test set could have shown.

    Args:
        pilot: predictions with labels; None: typical values.
        options: what the test is to show.
        groups: group columns and crossings of the pilot; None: every column with 2 to 20 groups.

    Raises:
        UserError: an option is out of range, the pilot has fewer than `MIN_PILOT` images, or a group column is missing.
    """
    options.check()
    if pilot is not None and len(pilot) < MIN_PILOT:
        raise UserError(
            f"a pilot of {len(pilot)} image{'s' * (len(pilot) != 1)} does not show how much the errors vary; give {MIN_PILOT} "
            "images or more, or leave it out to plan with typical values"
        )
    figures = _typical_figures() if pilot is None else _pilot_figures(pilot)
    effect = 1 + (options.images_per_person - 1) * figures.shared
    return PlanResult(
        pilot=figures,
        power=options.power,
        images_per_person=options.images_per_person,
        intervals=[_interval_size(half_width, figures.spread, effect, options) for half_width in options.half_widths],
        gaps=[_gap_size(gap, figures.spread, effect, options) for gap in options.gaps],
        rates=[rate_size(limit, limit * RATE_MARGIN, options.power) for limit in options.fpr_limits],
        groups=[] if pilot is None else _group_powers(pilot, options, groups),
        label_noise=[] if pilot is None else label_noise_sensitivity(signed_error(pilot)),
    )


def _typical_figures() -> PilotFigures:
    return PilotFigures(n=0, people=0, mae=None, spread=DEFAULT_SPREAD, shared=DEFAULT_SHARED)


def _pilot_figures(pilot: pd.DataFrame) -> PilotFigures:
    errors, clusters = np.abs(signed_error(pilot)), row_clusters(pilot)
    people = int(clusters.max()) + 1
    return PilotFigures(
        n=len(errors),
        people=people if people < len(errors) else None,
        mae=float(errors.mean()),
        spread=float(errors.std(ddof=1)),
        shared=shared_variance(errors, clusters) if people < len(errors) else DEFAULT_SHARED,
    )


def shared_variance(values: Floats, clusters: Ints) -> float:
    """Estimate the share of the variance that rows of a cluster have in common (intraclass correlation, by analysis of variance).

    Args:
        values: (n,) numbers.
        clusters: (n,) codes 0, 1, …; some cluster has several rows.
    """
    sizes = np.bincount(clusters)
    sizes = sizes[sizes > 0]
    codes = np.unique(clusters, return_inverse=True)[1]
    means = np.bincount(codes, values) / sizes
    n, k = len(values), len(sizes)
    if k < 2 or n == k:
        return 0.0
    between = float((sizes * (means - values.mean()) ** 2).sum()) / (k - 1)
    within = float(((values - means[codes]) ** 2).sum()) / (n - k)
    typical = (n - float((sizes**2).sum()) / n) / (k - 1)
    total = between + (typical - 1) * within
    return float(np.clip((between - within) / total, 0, 1)) if total > 0 else 0.0


def _people(images: float, options: PlanOptions) -> tuple[int, int]:
    """People and images for so many images' worth, with whole people."""
    people = max(int(np.ceil(images / options.images_per_person - 1e-9)), 2)  # one person shows no spread
    return people, int(np.ceil(people * options.images_per_person - 1e-9))


def _interval_size(half_width: float, spread: float, effect: float, options: PlanOptions) -> IntervalSize:
    people, images = _people((_Z * spread / half_width) ** 2 * effect, options)
    return IntervalSize(half_width=half_width, people=people, images=images)


def _gap_size(gap: float, spread: float, effect: float, options: PlanOptions) -> GapSize:
    reach = float(stats.norm.isf(_TAIL / options.pairs) + stats.norm.ppf(options.power))
    people, images = _people(2 * (reach * spread / gap) ** 2 * effect, options)
    return GapSize(gap=gap, people_per_group=people, images_per_group=images)


def rate_size(limit: float, rate: float, power: float) -> RateSize:
    """Find the fewest minors by which a rate below `limit` is shown, when `rate` is the true one.

    The rate is shown where the upper end of its exact 95 % interval is at most `limit`: with `allowed` or fewer passing minors.

    Args:
        limit: rate that is to be shown.
        rate: true rate, below the limit.
        power: probability of showing it.
    """
    n_least = int(np.ceil(np.log(_TAIL) / np.log1p(-limit)))
    allowed = 0
    while True:
        # n is the smallest number of minors with which `allowed` passing ones still show the limit.
        n = _fewest_minors(allowed, limit)
        if stats.binom.cdf(allowed, n, rate) >= power or n > _MOST_MINORS:
            return RateSize(limit=limit, rate=rate, minors=n, allowed=allowed, minors_without_any=n_least)
        allowed += 1


def _fewest_minors(allowed: int, limit: float) -> int:
    """The smallest n for which the upper end of Clopper and Pearson's interval of allowed / n is at most `limit`."""
    low, high = allowed + 1, 2 * int((allowed + 5) / limit) + 10
    while stats.binom.cdf(allowed, high, limit) > _TAIL:
        high *= 2
    while low < high:
        middle = (low + high) // 2
        # The upper end is at most the limit where so few would pass with probability 2.5 % or less at the limit.
        low, high = (low, middle) if stats.binom.cdf(allowed, middle, limit) <= _TAIL else (middle + 1, high)
    return low


def _group_powers(pilot: pd.DataFrame, options: PlanOptions, groups: Sequence[str] | None) -> list[GroupPower]:
    """Resolution of the pilot's test set by group, and each MAE shrunk towards the whole."""
    errors, clusters = np.abs(signed_error(pilot)), row_clusters(pilot)
    oldest = np.floor(age_limits(pilot)[1])
    passes = pilot["age_pred"].to_numpy(float) >= options.gate.challenge
    rows = []
    for grouping in groupings(pilot, group_columns(pilot) if groups is None else groups):
        inside = [np.flatnonzero(grouping.codes == code) for code in range(len(grouping.names))]
        means = np.array([errors[part].mean() for part in inside])
        standard_errors = np.array([_standard_error(errors[part], clusters[part]) for part in inside])
        shrunk = shrink(means, standard_errors)
        for place, (name, part) in enumerate(zip(grouping.names, inside, strict=True)):
            error = standard_errors[place]
            rest = np.setdiff1d(np.flatnonzero(grouping.codes >= 0), part)
            against = _standard_error(errors[rest], clusters[rest]) if len(rest) > 1 else np.nan
            people, people_of_rest = (len(np.unique(clusters[some])) for some in (part, rest))
            gap = np.hypot(_reach(people, options.power) * error, _reach(people_of_rest, options.power) * against)
            minors = part[oldest[part] < options.gate.legal]
            one_group = np.zeros(len(minors), dtype=np.int64)
            worth = float(effective_sizes(passes[minors], one_group, 1, clusters[minors])[0])
            rows.append(
                GroupPower(
                    grouping=grouping.name,
                    group=name,
                    n=len(part),
                    people=people,
                    mae=float(means[place]),
                    mae_shrunk=_finite(shrunk[place]),
                    half_width=_finite(_student(people, 1 - _TAIL) * error),
                    smallest_gap=_finite(gap),
                    minors=len(minors),
                    smallest_fpr=None if worth < 1 else float(1 - _TAIL ** (1 / worth)),
                )
            )
    return rows


def _student(people: int, level: float) -> float:
    """Student's quantile for a standard error from so many people."""
    return float(stats.t.ppf(level, max(people - 1, 1)))


def _reach(people: int, power: float) -> float:
    """Standard errors from so many people by which a difference is shown with this power."""
    return _student(people, 1 - _TAIL) + _student(people, power)


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _standard_error(values: Floats, clusters: Ints) -> float:
    """Standard error of a mean over rows of clusters; infinite for fewer than two clusters."""
    codes = np.unique(clusters, return_inverse=True)[1]
    count = int(codes.max(initial=-1)) + 1
    if count < 2:
        return float("inf")
    residuals = np.bincount(codes, values - values.mean())
    return float(np.sqrt(count / (count - 1) * (residuals**2).sum()) / len(values))


def shrink(means: Floats, standard_errors: Floats) -> Floats:
    """Shrink groups' means towards their common mean by empirical Bayes.

    The variance between groups is that of Paule and Mandel 1982 ("Consensus values and weighting factors", J. Research of the
    National Bureau of Standards 87): the one with which the weighted squares of deviations equal their degrees of freedom. A mean
    keeps the share of its distance that is not noise. A group without a standard error is set to the common mean.

    Args:
        means: (k,) of the groups.
        standard_errors: (k,) theirs; infinite where unknown.
    """
    known = np.isfinite(standard_errors)
    if known.sum() < 2:
        return np.asarray(means, dtype=float)
    values, variances = means[known], standard_errors[known] ** 2 + 1e-12

    def excess(between: float) -> float:
        weights = 1 / (variances + between)
        mean = (weights * values).sum() / weights.sum()
        return float((weights * (values - mean) ** 2).sum()) - (len(values) - 1)

    low, high = 0.0, float(np.var(values) * len(values) + 1e-12)
    if excess(0.0) > 0:
        for _ in range(100):
            middle = (low + high) / 2
            low, high = (middle, high) if excess(middle) > 0 else (low, middle)
    weights = 1 / (variances + low)
    centre = float((weights * values).sum() / weights.sum())
    kept = np.zeros(len(means))
    kept[known] = low / (low + variances)
    shrunk: Floats = centre + kept * (means - centre)
    return shrunk


def label_noise_sensitivity(errors: Floats, spreads: Sequence[float] = LABEL_ERRORS) -> list[LabelNoise]:
    """Estimate the MAE against true ages if the labels err by independent normal errors.

    The labels' variance is part of the observed variance of errors. Errors are scaled about their mean to what remains of it, so
    that bias and shape are kept.

    Args:
        errors: (n,) estimate minus label, years.
        spreads: standard deviations of the labels' errors, years.
    """
    mean, variance = float(errors.mean()), float(errors.var())
    results = []
    for spread in spreads:
        remaining = variance - spread**2
        mae = None
        if remaining > 0:
            mae = float(np.abs(mean + (errors - mean) * np.sqrt(remaining / variance)).mean())
        results.append(LabelNoise(label_sd=spread, mae=mae))
    return results
