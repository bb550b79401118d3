"""Rankings of systems from the images that all of them were tested on.

One cluster bootstrap is shared by all systems: people (or images, where people are unknown) are resampled once, so that what a
face contributes to every system's error cancels in their differences. The variance between trainings is added from
`seed_variance`. The quantile of the largest difference over all pairs, each on the scale of its own tail, gives simultaneous
confidence intervals of all differences, and these give confidence intervals of ranks: a system's rank is at least one more than
the number of systems shown to be better, and at most the number of all systems less those shown to be worse (Mogstad, Romano,
Shaikh and Wilhelm 2024, "Inference for ranks", Review of Economic Studies).
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
# Systems whose difference typically moves by less than this many years in a resample are identical but for rounding.
_IDENTICAL = 1e-6
_TINY = 1e-300  # instead of 0 below a fraction line or as a tail
# Points at which tails are computed, as multiples of a typical standard deviation.
_POINTS = np.concatenate([np.linspace(0, 6, 19), np.exp(np.linspace(np.log(6.5), np.log(1e4), 21))])


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
        critical: the quantile of the largest difference, on the scale of a normal distribution.
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
    possible = effects.possible(images.shape[1], replicates.clusters, rng)
    draws = images * np.sqrt(possible.images) + possible.draw(rng)
    covariance = np.cov(images, bias=True).reshape(len(values), len(values))
    tails = [_Tails.of(possible.pair_variance(row, covariance)) for row in range(len(values) - 1)]
    critical = _critical(draws, tails, level)
    halves = np.zeros_like(covariance)
    for row, tail in enumerate(tails):
        halves[row, row + 1 :] = halves[row + 1 :, row] = tail.point(critical)
    single = _Tails.of(possible.variance(covariance))
    return RankingEstimate(
        layout.names,
        values,
        single.point(float(special.ndtri((1 + level) / 2))),
        values[:, None] - values[None, :],
        halves,
        critical,
        effects.unusual,
        effects.unknown,
    )


def _critical(draws: Floats, tails: "Sequence[_Tails]", level: float) -> float:
    """The quantile of the largest difference over all pairs, on the scale of a normal distribution.

    Each difference is replaced by the normal deviate of its own tail: otherwise pairs with long tails would decide the quantile
    for all (Beran 1988, "Balanced simultaneous confidence sets").

    Args:
        draws: (S, B) draws of the systems' metrics about their values.
        tails: for each row but the last, the tails of its differences to the later ones.
        level: of the quantile.
    """
    if len(draws) < 2:
        return float(special.ndtri((1 + level) / 2))
    largest = np.zeros(draws.shape[1])
    for row, tail in enumerate(tails):
        np.maximum(largest, tail.score(np.abs(draws[row] - draws[row + 1 :])).max(axis=0), out=largest)
    return float(np.quantile(largest, level))


@dataclass(frozen=True)
class _Tails:
    """Tails of zero-mean variables that are normal given a variance which is not known exactly.

    Attributes:
        points: (G,) points, as multiples of `scale`.
        scores: (J, G) for each variable the normal deviates with the same tails.
        scale: (J,) the typical standard deviation of each variable; 0 for one that does not vary.
    """

    points: Floats
    scores: Floats
    scale: Floats

    @classmethod
    def of(cls, variances: Floats) -> "_Tails":
        """Compute the tails of J variables from B possible variances of each (J, B)."""
        deviations = np.sqrt(variances)
        scale = np.median(deviations, axis=1)
        scale[scale < _IDENTICAL] = 0.0
        relative = deviations / np.where(scale > 0, scale, 1.0)[:, None]
        relative[scale == 0] = 1.0
        inverse = 1 / np.maximum(relative, _TINY)
        tails = np.stack([special.ndtr(-point * inverse).mean(axis=1) for point in _POINTS], axis=1)
        return cls(_POINTS, -special.ndtri(np.maximum(tails, _TINY)), scale)

    def score(self, apart: Floats) -> Floats:
        """The normal deviates (J, B) with the tails of distances (J, B)."""
        scores = np.empty_like(apart)
        for row, (one, scale) in enumerate(zip(apart, self.scale, strict=True)):
            scores[row] = np.interp(one / scale, self.points, self.scores[row]) if scale else 0.0
        return scores

    def point(self, score: float) -> Floats:
        """The distances (J,) with the tail of a normal deviate; more than rounding where a variable does not vary."""
        points = [np.interp(score, row, self.points) for row in self.scores]
        return np.maximum(np.array(points) * self.scale, _IDENTICAL)


@dataclass(frozen=True)
class _PossibleVariances:
    """Variances that the estimates leave possible, each drawn as its estimate times degrees of freedom over a chi-square.

    Attributes:
        own: (S, B) of each system's own effects in its mean over seeds.
        common: for each training set (B,) of the effect that a seed has on its systems.
        shares: for each training set (S, K) the share of each seed in each system's mean.
        images: (B,) of the images, as multiples of the estimate.
    """

    own: Floats
    common: tuple[Floats, ...]
    shares: tuple[Floats, ...]
    images: Floats

    def draw(self, rng: np.random.Generator) -> Floats:
        """Draw one effect of the trainings for each of the variances (S, B)."""
        drawn = np.sqrt(self.own) * rng.standard_normal(self.own.shape)
        for variance, share in zip(self.common, self.shares, strict=True):
            drawn += share @ (np.sqrt(variance) * rng.standard_normal((share.shape[1], len(variance))))
        return np.asarray(drawn)

    def variance(self, covariance: Floats) -> Floats:
        """Variances of single systems (S, B), from the covariance of what the images contribute (S, S)."""
        total = np.diag(covariance)[:, None] * self.images + self.own
        for variance, share in zip(self.common, self.shares, strict=True):
            total += np.sum(share**2, axis=1)[:, None] * variance
        return np.asarray(total)

    def pair_variance(self, row: int, covariance: Floats) -> Floats:
        """Variances of the differences of a system to the later ones (S - row - 1, B)."""
        later = slice(row + 1, None)
        spread = np.diag(covariance)
        sampled = np.maximum(spread[row] + spread[later] - 2 * covariance[row, later], 0.0)
        total = sampled[:, None] * self.images + self.own[row] + self.own[later]
        for variance, share in zip(self.common, self.shares, strict=True):
            total += np.sum((share[row] - share[later]) ** 2, axis=1)[:, None] * variance
        return np.asarray(total)


@dataclass(frozen=True)
class _TrainingEffects:
    """The part that the choice of the seeds adds to the uncertainty of systems and of their differences.

    Attributes:
        own_raw: (S,) variance of each system's own effects in its mean over seeds, with the share of the sampled images.
        own_sampled: (S,) that share.
        freedom: (S,) degrees of freedom of `own_raw`.
        sets: the variances of each training set.
        shares: for each training set (S, K) the share of each seed in each system's mean.
        unusual: (S,) see `RankingEstimate`.
        unknown: see `RankingEstimate.unknown_seeds`.
    """

    own_raw: Floats
    own_sampled: Floats
    freedom: Floats
    sets: tuple[SeedVariances, ...]
    shares: tuple[Floats, ...]
    unusual: Flags
    unknown: bool

    def possible(self, count: int, clusters: int, rng: np.random.Generator) -> _PossibleVariances:
        """Draw `count` variances of every part; those of the images have one degree of freedom less than clusters."""
        own = self.own_raw[:, None] * _factors(self.freedom, count, rng) - self.own_sampled[:, None]
        common = [
            found.common_raw * _factors(np.array([found.common_freedom]), count, rng)[0] - found.common_sampled
            for found in self.sets
        ]
        return _PossibleVariances(
            np.maximum(own, 0.0),
            tuple(np.maximum(variance, 0.0) for variance in common),
            self.shares,
            _factors(np.array([max(clusters - 1.0, 1.0)]), count, rng)[0],
        )


def _factors(freedom: Floats, count: int, rng: np.random.Generator) -> Floats:
    """Draw degrees of freedom over chi-squares (S, count), one from each of `count` equal parts; 1 where they are 0 or infinite.

    Drawing one from each part keeps the tails of a variable apart from the chance of the draws.
    """
    usable = np.isfinite(freedom) & (freedom > 0)
    levels = (rng.permuted(np.tile(np.arange(count), (len(freedom), 1)), axis=1) + 0.5) / count
    finite = np.where(usable, freedom, 1.0)[:, None]
    factors = finite / np.maximum(special.chdtri(finite, 1 - levels), _TINY)
    return np.where(usable[:, None], factors, 1.0)


def _training_effects(layout: Layout, replicates: MaeReplicates, pooled: bool = False) -> _TrainingEffects:
    """Estimate the variances between seeds of every training set."""
    count = len(layout.names)
    own_raw, own_sampled, freedom = *np.zeros((2, count)), np.full(count, np.inf)
    unusual, unknown = np.zeros(count, dtype=bool), False
    sets, shares = [], []
    for training in dict.fromkeys(layout.trainings):
        if training is None:
            continue
        members = np.flatnonzero([other == training for other in layout.trainings])
        found, n_seeds, table = _training_set(layout, replicates, members, pooled)
        unknown |= not found.own_freedom.any()
        own_raw[members], own_sampled[members] = found.own_raw / n_seeds, found.own_sampled / n_seeds
        freedom[members] = np.maximum(found.own_freedom, 1)
        unusual[members] = found.unusual
        share = np.zeros((count, table.shape[1]))
        share[members] = np.where(table >= 0, 1 / n_seeds[:, None], 0.0)
        sets.append(found)
        shares.append(share)
    return _TrainingEffects(own_raw, own_sampled, freedom, tuple(sets), tuple(shares), unusual, unknown)


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
