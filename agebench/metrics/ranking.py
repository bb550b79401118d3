"""Rankings of systems from the images that all of them were tested on.

One cluster bootstrap is shared by all systems: people (or images, where people are unknown) are resampled once, so that what a
face contributes to every system's error cancels in their differences. The variance between trainings is added from
`seed_variance`. The quantile of the largest studentized difference over all pairs gives simultaneous confidence intervals of all
differences, and these give confidence intervals of ranks: a system's rank is at least one more than the number of systems shown
to be better, and at most the number of all systems less those shown to be worse (Mogstad, Romano, Shaikh and Wilhelm 2024,
"Inference for ranks", Review of Economic Studies).
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import special
from threadpoolctl import threadpool_limits

from agebench.metrics.bootstrap import Flags, Floats, Ints, bootstrap_weights
from agebench.metrics.confidence_intervals import CONFIDENCE_LEVEL
from agebench.metrics.seed_variance import SeedVariances, seed_variances

RESAMPLES = 2000
# Pairs that differ by less than this many years in every resample are identical but for rounding.
_IDENTICAL = 1e-6
_TINY = 1e-300  # instead of 0 below a fraction line


@dataclass(frozen=True)
class SystemErrors:
    """The errors of one system on the images of one test set.

    Attributes:
        name: the system's name.
        training: what it was trained on: systems of one training set share seeds; None for a system that was not trained here.
        seeds: the seeds of its trainings, as many as `errors`.
        images: for each seed (n,) the images that it was tested on, as indices of images of the test set. Held-out parts
            differ from seed to seed and may overlap.
        errors: for each seed (n,) absolute errors, years.
    """

    name: str
    training: str | None
    seeds: tuple[Hashable, ...]
    images: tuple[Ints, ...]
    errors: tuple[Floats, ...]


@dataclass(frozen=True)
class Layout:
    """Which system and which seed each column of a table of metric values belongs to.

    Attributes:
        names: the systems.
        trainings: the training set of each system, None for a system that was not trained here.
        systems: (M,) the system of each column.
        seeds: the seed of each column.
    """

    names: tuple[str, ...]
    trainings: tuple[str | None, ...]
    systems: Ints
    seeds: tuple[Hashable, ...]

    @cached_property
    def mean(self) -> Floats:
        """The matrix (S, M) that averages columns over each system's seeds."""
        matrix = (self.systems[None, :] == np.arange(len(self.names))[:, None]).astype(float)
        averaging: Floats = matrix / matrix.sum(axis=1, keepdims=True)
        return averaging

    @classmethod
    def of(cls, systems: Sequence[SystemErrors]) -> "Layout":
        """Return the layout of systems whose seeds follow one another."""
        columns = [(place, seed) for place, system in enumerate(systems) for seed in system.seeds]
        return cls(
            tuple(system.name for system in systems),
            tuple(system.training for system in systems),
            np.array([place for place, _ in columns], dtype=np.int64),
            tuple(seed for _, seed in columns),
        )


@dataclass(frozen=True)
class MaeReplicates:
    """MAEs of every system and seed on one test set, and how they vary with the images.

    Attributes:
        values: (M,) MAEs, years.
        deviations: (M, B) MAEs in B resamples of the clusters, less `values`; scaled to be unbiased for few clusters.
        clusters: clusters that were resampled.
    """

    values: Floats
    deviations: Floats
    clusters: int


def resample_maes(
    systems: Sequence[SystemErrors], clusters: Ints, *, resamples: int = RESAMPLES, seed: int = 0
) -> MaeReplicates:
    """Resample the images of a test set once for all systems.

    Args:
        systems: the systems, all tested on images of the same test set.
        clusters: the cluster of each image of the test set, 0, 1, …: its person, or the image itself. An image that is in
            the test parts of two seeds is in one cluster, and drawn once for both.
        resamples: number of bootstrap resamples.
        seed: seed of the resampling.
    """
    parts = [
        (images, errors) for system in systems for images, errors in zip(system.images, system.errors, strict=True)
    ]
    tested = np.zeros(int(clusters.max()) + 1, dtype=bool)
    for images, _ in parts:
        tested[clusters[images]] = True
    codes = (np.cumsum(tested) - 1)[clusters]
    count = int(tested.sum())
    values = np.array([errors.mean() for _, errors in parts])
    sums = np.empty((count, len(parts)), dtype=np.float32)
    part_of: dict[bytes, int] = {}
    sizes: list[Floats] = []
    part_codes = np.empty(len(parts), dtype=np.int64)
    for column, (images, errors) in enumerate(parts):
        # Centered sums keep single precision exact enough: what is resampled is the deviation from the mean.
        sums[:, column] = np.bincount(codes[images], errors - values[column], minlength=count)
        key = images.tobytes()
        if key not in part_of:
            part_of[key] = len(sizes)
            sizes.append(np.bincount(codes[images], minlength=count).astype(np.float32))
        part_codes[column] = part_of[key]
    deviations = np.empty((len(parts), resamples))
    counts = np.stack(sizes, axis=1)
    start = 0
    with threadpool_limits(2, user_api="blas"):
        for make in bootstrap_weights(count, resamples, seed) if count > 1 else ():
            weights = make()
            totals = weights @ counts
            with np.errstate(divide="ignore", invalid="ignore"):
                moved = (weights @ sums) / totals[:, part_codes]
            deviations[:, start : start + len(weights)] = np.nan_to_num(moved, nan=0.0, posinf=0.0, neginf=0.0).T
            start += len(weights)
    return MaeReplicates(values, deviations[:, :start] * np.sqrt(count / max(count - 1, 1)), count)


@dataclass(frozen=True)
class RankingEstimate:
    """Differences between all pairs of systems with simultaneous intervals, and the ranks that follow.

    Attributes:
        names: the systems.
        values: (S,) each system's metric, the mean over its seeds.
        halves: (S,) half widths of the 95 % intervals of `values`, each for itself.
        differences: (S, S) value of the row's system less that of the column's.
        pair_halves: (S, S) half widths of the simultaneous intervals of `differences`.
        critical: the quantile of the largest studentized difference, on the scale of a normal distribution.
        unusual: (S,) whether a system's seeds differ more than those of the other systems of its training set.
        unknown_seeds: whether a training set has no system with two seeds: its rows are single trained models.
    """

    names: tuple[str, ...]
    values: Floats
    halves: Floats
    differences: Floats
    pair_halves: Floats
    critical: float
    unusual: Flags
    unknown_seeds: bool

    @cached_property
    def better(self) -> Flags:
        """Matrix (S, S): True where the row's system is shown to be better (lower) than the column's."""
        shown: Flags = self.differences < -self.pair_halves
        return shown

    @property
    def pairs_shown(self) -> int:
        """Number of pairs that are shown to differ."""
        return int(self.better.sum())

    @property
    def rank_low(self) -> Ints:
        """The lower ends of the simultaneous 95 % intervals of ranks (S,)."""
        low: Ints = 1 + self.better.sum(axis=0)
        return low

    @property
    def rank_high(self) -> Ints:
        """The upper ends of the simultaneous 95 % intervals of ranks (S,)."""
        high: Ints = len(self.names) - self.better.sum(axis=1)
        return high


def rank(
    layout: Layout,
    replicates: MaeReplicates,
    *,
    pooled: bool = False,
    seed: int = 0,
    level: float = CONFIDENCE_LEVEL,
) -> RankingEstimate:
    """Rank systems by their metric, lower being better.

    Args:
        layout: the system and seed of each column.
        replicates: metric values and their deviations in resamples of the images.
        pooled: whether all systems of a training set are taken to have one variance between seeds, see `seed_variances`.
        seed: seed of the draws of the trainings' effects.
        level: simultaneous confidence level.
    """
    values = layout.mean @ replicates.values
    images = layout.mean @ replicates.deviations
    effects = _training_effects(layout, replicates, pooled)
    rng = np.random.default_rng([seed, 1])
    draws = images + effects.draw(images.shape[1], rng)
    image_variance = _pair_variance(np.cov(images, bias=True).reshape(len(values), len(values)))
    variance = image_variance + effects.pair_variance
    errors = np.sqrt(variance)
    errors[errors < _IDENTICAL] = np.inf
    uncertain = image_variance**2 / max(replicates.clusters - 1, 1) + effects.pair_uncertainty
    fewest = np.minimum(effects.fewest, max(replicates.clusters - 1, 1))
    # Satterthwaite's degrees of freedom, never fewer than those of the part that has the fewest: the squares contain what is
    # subtracted from the variances for the images.
    freedom = np.maximum(variance**2 / np.maximum(uncertain, _TINY), fewest)
    fixed = effects.fixed_uncertainty + image_variance**2 / max(replicates.clusters - 1, 1)
    critical = _critical(draws, effects, variance - effects.own_pairs, fixed, fewest, rng, level)
    halves = np.where(np.isfinite(errors), errors, 0.0) * _student_point(critical, freedom)
    single_variance = images.var(axis=1) + effects.variance
    single_uncertain = images.var(axis=1) ** 2 / max(replicates.clusters - 1, 1) + effects.uncertainty
    single_freedom = np.maximum(single_variance**2 / np.maximum(single_uncertain, _TINY), np.diag(fewest))
    return RankingEstimate(
        layout.names,
        values,
        np.sqrt(single_variance) * _student_point(float(special.ndtri((1 + level) / 2)), single_freedom),
        values[:, None] - values[None, :],
        halves,
        critical,
        effects.unusual,
        effects.unknown,
    )


def _pair_variance(covariance: Floats) -> Floats:
    variance = np.diag(covariance)
    pairs: Floats = np.maximum(variance[:, None] + variance[None, :] - 2 * covariance, 0.0)
    return pairs


def _critical(
    draws: Floats,
    effects: "_TrainingEffects",
    rest: Floats,
    uncertain: Floats,
    fewest: Floats,
    rng: np.random.Generator,
    level: float,
) -> float:
    """The quantile of the largest studentized difference over all pairs, on the scale of a normal distribution.

    Each draw has its own estimate of the variances between trainings, so that the quantile allows for one estimate that is too
    small and thereby moves all pairs of its system. Differences are made comparable by `_normal_score`: without it, pairs with few
    degrees of freedom would decide the quantile for all.

    Args:
        draws: (S, B) draws of the systems' metrics about their values.
        effects: the effects of trainings.
        rest: (S, S) variance of each difference without the systems' own effects of trainings.
        uncertain: (S, S) squared variances over degrees of freedom, without these.
        fewest: (S, S) lower limit of the degrees of freedom of each difference.
        rng: for the estimates.
        level: of the quantile.
    """
    if len(draws) < 2:
        return float(special.ndtri((1 + level) / 2))
    largest = np.zeros(draws.shape[1])
    own, raw = effects.estimated(draws.shape[1], rng)
    for row in range(len(draws) - 1):
        columns = slice(row + 1, None)
        variance = np.maximum(rest[row, columns, None] + own[row] + own[columns], 0.0)
        errors = np.sqrt(variance)
        lower = np.minimum(effects.freedom[row], effects.freedom[columns])[:, None]
        doubt = uncertain[row, columns, None] + (raw[row] + raw[columns]) ** 2 / lower
        freedom = np.maximum(variance**2 / np.maximum(doubt, _TINY), fewest[row, columns, None])
        apart = np.abs(draws[row] - draws[columns]) / np.where(errors < _IDENTICAL, np.inf, errors)
        scores = _normal_score(apart, freedom)
        np.maximum(largest, scores.max(axis=0), out=largest)
    return float(np.quantile(largest, level))


def _normal_score(t: Floats, freedom: Floats) -> Floats:
    """The normal deviate with the tail of Student's `t` >= 0, by Wallace's approximation (1959), which is monotonic in t."""
    freedom = np.clip(freedom, 1, 1e6)
    score: Floats = np.sqrt(freedom * np.log1p(t**2 / freedom)) * (8 * freedom + 1) / (8 * freedom + 3)
    return score


def _student_point(score: float, freedom: Floats) -> Floats:
    """The inverse of `_normal_score`, elementwise."""
    freedom = np.clip(freedom, 1, 1e6)
    point: Floats = np.sqrt(freedom * np.expm1((score * (8 * freedom + 3) / (8 * freedom + 1)) ** 2 / freedom))
    return point


@dataclass(frozen=True)
class _TrainingEffects:
    """The part that the choice of the seeds adds to the uncertainty of systems and of their differences.

    Attributes:
        own: (S,) variance of each system's own effects in its mean over seeds.
        own_raw: (S,) the same before the share of the sampled images is subtracted.
        freedom: (S,) degrees of freedom of `own_raw`.
        fewest: (S, S) the fewest degrees of freedom of any part of a difference; on the diagonal of a single system.
        common: (S, E) loadings of the effects that seeds have on all systems of a training set, in standard deviations.
        pair_uncertainty: (S, S) sums of squared variances over their degrees of freedom, of differences.
        uncertainty: (S,) the same of single systems.
        unusual: (S,) see `RankingEstimate`.
        unknown: see `RankingEstimate.unknown_seeds`.
    """

    own: Floats
    own_raw: Floats
    freedom: Floats
    fewest: Floats
    common: Floats
    fixed_uncertainty: Floats
    pair_uncertainty: Floats
    uncertainty: Floats
    unusual: Flags
    unknown: bool

    @property
    def variance(self) -> Floats:
        """Variances of single systems (S,)."""
        variance: Floats = self.own + np.sum(self.common**2, axis=1)
        return variance

    @property
    def pair_variance(self) -> Floats:
        """Variances of differences (S, S)."""
        variance: Floats = _pair_variance(self.common @ self.common.T + np.diag(self.own))
        return variance

    @property
    def own_pairs(self) -> Floats:
        """The part of the variances of differences that comes from the systems' own effects (S, S)."""
        pairs: Floats = self.own[:, None] + self.own[None, :]
        return pairs

    def estimated(self, count: int, rng: np.random.Generator) -> tuple[Floats, Floats]:
        """Draw `count` estimates of `own` and `own_raw` (S, count), were these the true variances."""
        finite = np.where(np.isfinite(self.freedom), self.freedom, 1.0)[:, None]
        raw = self.own_raw[:, None] * (rng.chisquare(finite, (len(self.own), count)) / finite)
        return np.maximum(self.own[:, None] + raw - self.own_raw[:, None], 0.0), raw

    def draw(self, count: int, rng: np.random.Generator) -> Floats:
        """Draw `count` effects of every system (S, count)."""
        own = np.sqrt(self.own)[:, None] * rng.standard_normal((len(self.own), count))
        drawn: Floats = own + self.common @ rng.standard_normal((self.common.shape[1], count))
        return drawn


def _training_effects(layout: Layout, replicates: MaeReplicates, pooled: bool = False) -> _TrainingEffects:
    """Estimate the variances between seeds of every training set."""
    count = len(layout.names)
    own, own_raw, freedom = np.zeros(count), np.zeros(count), np.full(count, np.inf)
    pair_uncertain, single_uncertain = np.zeros((count, count)), np.zeros(count)
    fewest = np.full((count, count), np.inf)
    unusual, loadings, unknown = np.zeros(count, dtype=bool), [np.zeros((count, 0))], False
    for training in dict.fromkeys(layout.trainings):
        if training is None:
            continue
        members = np.flatnonzero([other == training for other in layout.trainings])
        found, n_seeds, table = _training_set(layout, replicates, members, pooled)
        unknown |= not found.own_freedom.any()
        own[members] = found.own / n_seeds
        own_raw[members], freedom[members] = found.own_raw / n_seeds, np.maximum(found.own_freedom, 1)
        unusual[members] = found.unusual
        share = np.zeros((count, table.shape[1]))
        share[members] = np.where(table >= 0, 1 / n_seeds[:, None], 0.0)
        loadings.append(np.sqrt(found.common) * share)
        if found.common_freedom:
            loads = found.common_raw * (share @ share.T)
            apart = _pair_variance(loads) + np.diag(np.diag(loads))
            fewest = np.where(apart > 0, np.minimum(fewest, found.common_freedom), fewest)
            pair_uncertain += _pair_variance(loads) ** 2 / found.common_freedom
            single_uncertain += np.diag(loads) ** 2 / found.common_freedom
    # The smaller number of degrees of freedom counts: with Welch's, of two systems of which one seems not to vary, too many pairs
    # are shown to differ.
    fewest = np.minimum(fewest, np.minimum(freedom[:, None], freedom[None, :]))
    sums = own_raw[:, None] + own_raw[None, :]
    fixed = pair_uncertain.copy()
    pair_uncertain += sums**2 / np.minimum(freedom[:, None], freedom[None, :])
    single_uncertain += own_raw**2 / freedom
    return _TrainingEffects(
        own, own_raw, freedom, fewest, np.hstack(loadings), fixed, pair_uncertain, single_uncertain, unusual, unknown
    )


def _training_set(
    layout: Layout, replicates: MaeReplicates, members: Ints, pooled: bool = False
) -> tuple[SeedVariances, Floats, Ints]:
    """The variances of one training set's systems, their numbers of seeds (S,), and their columns (S, K), -1 for none."""
    seeds = list(
        dict.fromkeys(seed for seed, system in zip(layout.seeds, layout.systems, strict=True) if system in members)
    )
    table = np.full((len(members), len(seeds)), -1)
    index = {int(member): row for row, member in enumerate(members)}
    for column, (system, seed) in enumerate(zip(layout.systems, layout.seeds, strict=True)):
        if int(system) in index:
            table[index[int(system)], seeds.index(seed)] = column
    values = np.where(table >= 0, replicates.values[table], np.nan)
    noise = np.where((table >= 0)[:, :, None], replicates.deviations[table], np.nan)
    return seed_variances(values, noise, pooled=pooled), (table >= 0).sum(axis=1).astype(float), table
