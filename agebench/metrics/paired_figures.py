"""Paired differences of systems in the figures that one buys by: errors, gates, gaps, failures to process; with margins.

All systems are resampled together by person, so that what the images share cancels. A margin is tested by two one-sided tests
(Schuirmann 1987, "A comparison of the two one-sided tests procedure and the power approach", J. Pharmacokinetics and
Biopharmaceutics 15) at 5 % each: the ends of the paired 90 % interval are compared with the margin.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
import pandas as pd

from agebench.errors import UserError
from agebench.metrics.age_gates import Gate
from agebench.metrics.bootstrap import (
    ClusterBootstrap,
    Flags,
    Floats,
    Ints,
    Replicates,
    distinct_values,
    encode_clusters,
    t_quantile_draws,
)
from agebench.metrics.clustered_rates import clustered_rate
from agebench.metrics.confidence_intervals import (
    CONFIDENCE_LEVEL,
    IntervalKind,
    bootstrap_interval,
    difference_p_value,
    metric_value,
    student_half_widths,
)
from agebench.metrics.fairness import SIGNIFICANT, holm
from agebench.metrics.gaps import GroupComparison, compare_groups
from agebench.metrics.groups import MIN_GROUP, group_columns, groupings
from agebench.metrics.point import age_limits, is_within
from agebench.metrics.quantiles import t_quantile
from agebench.metrics.schema import FigureDifference, FigureDifferences, MarginTest, MetricValue

# Both one-sided tests of a margin have this level; their bounds are the ends of an interval of 1 - 2 * MARGIN_LEVEL.
MARGIN_LEVEL = 0.05
# Minors that pass are also compared by single year, for so many years below the legal age.
_YEARS_BELOW = 3


class FigureKind(StrEnum):
    """Kinds of figures that systems are compared by; margins are named after them."""

    MAE = "mae"
    BIAS = "bias"
    CS5 = "cs5"
    FPR = "fpr"
    FNR = "fnr"
    GAP = "gap"
    FAILURE = "failure"

    @property
    def is_share(self) -> bool:
        """Return whether the figure is a share of images."""
        return self in (FigureKind.CS5, FigureKind.FPR, FigureKind.FNR, FigureKind.FAILURE)

    @property
    def worse_sign(self) -> int:
        """1 where larger values are worse, -1 where smaller values are, 0 where neither is."""
        return -1 if self is FigureKind.CS5 else 0 if self is FigureKind.BIAS else 1


@dataclass(frozen=True)
class FigureOptions:
    """Figures, margins and resampling of a comparison.

    Attributes:
        gates: age gates; each gives an FPR, an FNR, and the FPR of the last years below the legal age.
        minor_ages: first and last completed year of the minors that count; None: all below the legal age.
        groups: group columns and crossings whose largest gaps are compared; None: every column with 2 to 20 groups.
        margins: kind of figure -> the difference that does not matter, in years or as a share.
        minimum: images of a group that counts for a gap.
        resamples: bootstrap samples; 0: differences without intervals and tests.
        seed: seed of these samples.
        interval: bootstrap method; `percentile` is always used for gaps and for several seeds.
    """

    gates: tuple[Gate, ...] = ()
    minor_ages: tuple[int, int] | None = None
    groups: tuple[str, ...] | None = None
    margins: Mapping[FigureKind, float] = field(default_factory=dict)
    minimum: int = MIN_GROUP
    resamples: int = 1000
    seed: int = 0
    interval: IntervalKind = "bca"


def parse_margins(texts: Sequence[str]) -> dict[FigureKind, float]:
    """Parse margins such as `mae=0.25` and `fpr=0.02`.

    Args:
        texts: kind of figure and margin, in years or as a share.

    Raises:
        UserError: another form, an unknown figure, or a margin that is not positive.
    """
    margins = {}
    for text in texts:
        name, _, number = text.partition("=")
        try:
            kind, margin = FigureKind(name.strip()), float(number.strip().removesuffix("%"))
        except ValueError:
            kinds = ", ".join(FigureKind)
            raise UserError(
                f"--margin {text}: write FIGURE=NUMBER, e.g. mae=0.25 or fpr=0.02; figures: {kinds}"
            ) from None
        if number.strip().endswith("%"):
            if not kind.is_share:
                raise UserError(f"--margin {text}: {kind} is in years; write it without %")
            margin /= 100
        if not 0 < margin < np.inf:
            raise UserError(f"--margin {text}: the margin must be above 0")
        if kind.is_share and margin > 1:
            raise UserError(f"--margin {text}: {number} is above 1. Write a share or a percentage, e.g. 0.05 or 5%")
        margins[kind] = margin
    return margins


def compare_figures(
    systems: Mapping[str, Sequence[pd.DataFrame]],
    unanswered: Mapping[str, pd.DataFrame],
    options: FigureOptions,
) -> FigureDifferences:
    """Compare every pair of systems by all figures.

    Images that some system did not answer are left out of MAE, bias, gaps and FPR of all systems. They count against the system
    that did not answer: as a miss in CS@5, as a refusal of an adult in FNR, and as a failure to process.

    Args:
        systems: name -> predictions, one table a seed.
        unanswered: name -> labels of images without a prediction of that system, where a file of labels lists them.
        options: figures, margins and resampling.

    Returns:
        Figures of every system, their differences, and who did not answer what.
    """
    images = _Images.align(systems, unanswered)
    plan = _Plan(images, options)
    replicates = plan.replicates()
    counts = [len(estimates) for estimates in images.estimates]
    trained = _mean_over_seeds(replicates, counts, len(plan.figures))
    names = images.names
    figures = {
        name: {
            figure.key: plan.system_value(figure, place, index, trained, counts[index])
            for place, figure in enumerate(plan.figures)
        }
        for index, name in enumerate(names)
    }
    pairs = list(itertools.combinations(range(len(names)), 2))
    tests: dict[tuple[int, int], dict[str, FigureDifference]] = {pair: {} for pair in pairs}
    for place, figure in enumerate(plan.figures):
        contrasts = [_contrast(plan, figure, place, pair, trained, counts) for pair in pairs]
        for pair, difference in zip(pairs, _with_holm(contrasts), strict=True):
            tests[pair][figure.key] = difference
    return FigureDifferences(
        n=len(images.table),
        n_common=int(images.common.sum()),
        systems=figures,
        pairs=[[names[a], names[b]] for a, b in pairs],
        differences=[tests[pair] for pair in pairs],
        unanswered={name: int((~images.answered[index]).sum()) for index, name in enumerate(names)},
        groups_at_equal_ages={part.grouping.name: bool(len(part.age_standardized_groups)) for part in plan.gaps},
    )


@dataclass(frozen=True)
class _Images:
    """All images of a comparison, in an order that does not depend on the files.

    Attributes:
        names: systems.
        table: labels (n rows): age, subject and groups where known.
        estimates: for each system (seeds, n), years; NaN where it did not answer.
        answered: for each system (n,).
        common: (n,) whether all systems answered.
        clusters: (n,) images of one person.
    """

    names: tuple[str, ...]
    table: pd.DataFrame
    estimates: tuple[Floats, ...]
    answered: tuple[Flags, ...]
    common: Flags
    clusters: Ints

    @classmethod
    def align(cls, systems: Mapping[str, Sequence[pd.DataFrame]], unanswered: Mapping[str, pd.DataFrame]) -> "_Images":
        tables = [table for several in systems.values() for table in several]
        labels = pd.concat([*tables, *unanswered.values()], ignore_index=True).drop_duplicates("sample_id")
        hashes = pd.util.hash_array(labels["sample_id"].to_numpy(object), categorize=False)
        labels = labels.iloc[np.argsort(hashes, kind="stable")].reset_index(drop=True)
        ids = pd.Index(labels["sample_id"])
        estimates = tuple(
            np.stack([table.set_index("sample_id")["age_pred"].reindex(ids).to_numpy(float) for table in several])
            for several in systems.values()
        )
        answered = tuple(~np.isnan(part).any(axis=0) for part in estimates)
        subject = labels["subject"].to_numpy(object) if "subject" in labels else None
        common: Flags = np.logical_and.reduce(answered)
        return cls(tuple(systems), labels, estimates, answered, common, encode_clusters(subject, len(labels)))


@dataclass(frozen=True)
class _Figure:
    """A figure that is a ratio of sums: what is counted in each system's rows, among which rows.

    Attributes:
        key: its name in comparison.json.
        kind: what it is.
        among: (n,) rows of the denominator.
        values: for each system (seeds, n): the numerator, 0 outside `among`.
    """

    key: str
    kind: FigureKind
    among: Flags
    values: tuple[Floats, ...]


class _Plan:
    """The figures of a comparison, and their replicates."""

    def __init__(self, images: _Images, options: FigureOptions) -> None:
        self.images, self.options = images, options
        common = images.table[images.common].reset_index(drop=True)
        self.gaps = [
            part
            for grouping in groupings(common, group_columns(common) if options.groups is None else options.groups)
            if len((part := compare_groups(common, grouping, options.minimum)).groups) > 1
        ]
        self.ratios = [*self._errors(), *(figure for gate in options.gates for figure in self._gate(gate))]
        self.figures = [
            *self.ratios,
            *(_Figure(_gap_key(part), FigureKind.GAP, images.common, ()) for part in self.gaps),
        ]
        self.people = self._count_people()

    def _errors(self) -> list[_Figure]:
        images = self.images
        age = images.table["age"].to_numpy(float)
        signed = [np.nan_to_num(np.where(images.common, part - age, 0.0)) for part in images.estimates]
        hits = [
            is_within(np.abs(np.where(np.isnan(part), np.inf, part - age)), 5.0).astype(float)
            for part in images.estimates
        ]
        everything = np.ones(len(age), dtype=bool)
        figures = [
            _Figure("mae", FigureKind.MAE, images.common, tuple(np.abs(part) for part in signed)),
            _Figure("bias", FigureKind.BIAS, images.common, tuple(signed)),
            _Figure("cs5", FigureKind.CS5, everything, tuple(hits)),
        ]
        if not images.common.all():
            failed = tuple(np.isnan(part).astype(float) for part in images.estimates)
            figures.append(_Figure("failure", FigureKind.FAILURE, everything, failed))
        return figures

    def _gate(self, gate: Gate) -> list[_Figure]:
        images = self.images
        # As in `age_gates`: a range of ages counts where it lies on one side of the legal age as a whole.
        youngest, oldest = (np.floor(limit) for limit in age_limits(images.table))
        years = np.where(youngest == oldest, youngest, -1)
        low, high = self.options.minor_ages or (0, gate.legal - 1)
        minors = images.common & (youngest >= low) & (oldest <= min(high, gate.legal - 1))
        adults = youngest >= gate.legal
        if not minors.any() or not adults.any():
            return []
        passes = [np.nan_to_num(part, nan=-np.inf) >= gate.challenge for part in images.estimates]

        def passing(key: str, among: Flags) -> _Figure:
            return _Figure(key, FigureKind.FPR, among, tuple((part & among).astype(float) for part in passes))

        refused = tuple((~part & adults).astype(float) for part in passes)
        last_years = range(gate.legal - 1, max(gate.legal - 1 - _YEARS_BELOW, -1), -1)
        by_year = [(year, minors & (years == year)) for year in last_years]
        return [
            passing(f"fpr({gate.label})", minors),
            _Figure(f"fnr({gate.label})", FigureKind.FNR, adults, refused),
            *(passing(f"fpr({gate.label}, age {year})", among) for year, among in by_year if among.any()),
        ]

    def replicates(self) -> Replicates:
        """Replicates of all figures of every system's seeds: the first system's first seed first."""
        images = self.images
        seeds = [len(part) for part in images.estimates]
        masks = {figure.among.tobytes(): figure.among for figure in self.ratios}
        places = {key: place for place, key in enumerate(masks)}
        columns = [mask.astype(float) for mask in masks.values()]
        n_masks, n_ratios = len(columns), len(self.ratios)
        for index, count in enumerate(seeds):
            columns += [figure.values[index][seed] for seed in range(count) for figure in self.ratios]
        denominators = [places[figure.among.tobytes()] for figure in self.ratios]
        error_columns = [n_masks + place * n_ratios for place in range(sum(seeds))]  # MAE is the first ratio.
        sampler = ClusterBootstrap(
            np.column_stack(columns),
            [np.zeros(len(images.table), dtype=np.int64)],
            images.clusters,
            fine=[self._cells(part) for part in self.gaps],
            fine_columns=[places[images.common.tobytes()], *error_columns],
        )

        def figures(sums: Sequence[Floats]) -> Floats:
            whole, *cells = sums
            below = whole[0, denominators]
            parts = []
            for place in range(sum(seeds)):
                start = n_masks + place * n_ratios
                parts.append(whole[0, start : start + n_ratios] / below)
                parts += [
                    _largest_gap(part, cell[:, 0], cell[:, 1 + place])[None]
                    for part, cell in zip(self.gaps, cells, strict=True)
                ]
            return np.concatenate(parts)

        return sampler.replicates(figures, resamples=self.options.resamples, seed=self.options.seed)

    def _cells(self, part: GroupComparison) -> Ints:
        """(n,) cells of group and age, or of groups alone where ages cannot be compared; -1 outside."""
        inside = part.cells if len(part.age_standardized_groups) else _positions(part)
        cells = np.full(len(self.images.table), -1)
        cells[self.images.common] = inside
        return cells

    def _count_people(self) -> dict[str, int]:
        """Count the people, or images of unknown people, behind each figure; of a gap, those of the smallest group."""
        clusters = self.images.clusters
        counts = {figure.key: len(distinct_values(clusters[figure.among])) for figure in self.ratios}
        for part in self.gaps:
            in_groups = part.grouping.cluster_counts(clusters[self.images.common])
            counts[_gap_key(part)] = int(in_groups[part.groups].min())
        return counts

    def system_value(self, figure: _Figure, place: int, index: int, trained: "_Trained", seeds: int) -> MetricValue:
        """Value of one system's figure.

        Shares of one seed have exact intervals. Over several seeds the interval holds the spread of trainings; that of a share is
        nowhere narrower than the exact one of the mean over seeds, because replicates of a share of 0 are all 0.
        """
        exact = MetricValue()
        if figure.kind.is_share:
            has_people = len(distinct_values(self.images.clusters)) < len(self.images.table)
            hits = figure.values[index].mean(axis=0)
            exact = clustered_rate(hits, figure.among, self.images.clusters if has_people else None)
            if seeds == 1:
                return exact
        row = np.array([index * len(self.figures) + place])
        found = trained.means.rows(row)
        if seeds > 1:
            rng = np.random.default_rng(self.options.seed + place)
            found = trained.with_seeds(found, place, 1 / seeds, rng)
        is_plain = seeds > 1 or figure.kind is FigureKind.GAP
        kind: IntervalKind = "percentile" if is_plain else self.options.interval
        low, high = bootstrap_interval(found, kind, clusters=np.array([self.people[figure.key]]))
        ends = low[0], high[0]
        if exact.ci_low is not None and exact.ci_high is not None and found.resampled.size:
            ends = max(min(low[0], exact.ci_low), 0.0), min(max(high[0], exact.ci_high), 1.0)
        return metric_value(found.value[0], *ends)


def _gap_key(part: GroupComparison) -> str:
    """Name of a grouping's gap among the figures."""
    return f"gap({part.grouping.name})"


def _positions(part: GroupComparison) -> Ints:
    positions = np.full(len(part.grouping.names) + 1, -1)
    positions[part.groups] = np.arange(len(part.groups))
    codes: Ints = positions[part.grouping.codes]
    return codes


def _largest_gap(part: GroupComparison, n: Floats, total: Floats) -> Floats:
    """Largest MAE of a group less the smallest (b,), at equal ages where the groups can be compared so."""
    if len(part.age_standardized_groups):
        maes = part.standardized_means(n, total)
    else:
        maes = np.where(n > 0, total / np.where(n > 0, n, 1), np.nan)
    gap: Floats = np.nanmax(maes, axis=0) - np.nanmin(maes, axis=0)
    return gap


@dataclass(frozen=True)
class _Trained:
    """Figures of all systems, with what is known of the spread between trainings.

    Attributes:
        means: replicates of every system's means over its seeds.
        errors: (figures,) standard deviation of one training's figure.
        freedom: its degrees of freedom.
    """

    means: Replicates
    errors: Floats
    freedom: int

    def with_seeds(self, found: Replicates, place: int, share: float, rng: np.random.Generator) -> Replicates:
        """Add the spread of trainings to the replicates of one value of a figure.

        Args:
            found: the value (K = 1), such as a difference.
            place: of the figure.
            share: variance of the value over that of one training, such as 1 / 3 for a mean over three.
            rng: draws.
        """
        draws = t_quantile_draws(self.freedom + 1, found.resampled.shape[1], rng)
        return found.with_seeds(np.array([self.errors[place] * share**0.5]), self.freedom, draws)


def _mean_over_seeds(replicates: Replicates, counts: Sequence[int], n_figures: int) -> _Trained:
    """Compute every system's means over its seeds, and the spread of one training.

    The spread is pooled over systems. Figures of seeds also differ because each training errs differently on few images; the
    bootstrap holds that part, so it is subtracted.
    """
    starts = np.cumsum([0, *counts])
    squares, noise = np.zeros(n_figures), np.zeros(n_figures)
    parts: list[list[Floats]] = [[], [], []]
    for start, count in zip(starts[:-1], counts, strict=True):
        rows = slice(start * n_figures, (start + count) * n_figures)
        shaped = [
            part[rows].reshape(count, n_figures, -1)
            for part in (replicates.value[:, None], replicates.resampled, replicates.jackknife)
        ]
        means = [part.mean(axis=0) for part in shaped]
        for part, mean in zip(parts, means, strict=True):
            part.append(mean)
        if count > 1:
            squares += ((shaped[0] - means[0]) ** 2).sum(axis=(0, 2))
            noise += (shaped[1] - means[1]).var(axis=2).sum(axis=0) if shaped[1].shape[2] else 0.0
    freedom = sum(count - 1 for count in counts)
    value, resampled, jackknife = (np.concatenate(part) for part in parts)
    errors = np.sqrt(np.maximum(squares - noise, 0) / max(freedom, 1))
    return _Trained(Replicates(value[:, 0], resampled, jackknife, replicates.clusters), errors, freedom)


def _contrast(
    plan: _Plan,
    figure: _Figure,
    place: int,
    pair: tuple[int, int],
    trained: _Trained,
    counts: Sequence[int],
) -> FigureDifference:
    """Difference of one pair of systems in one figure, before Holm's correction."""
    means = trained.means
    rows = [index * len(plan.figures) + place for index in pair]
    replicates = Replicates(
        np.array([means.value[rows[0]] - means.value[rows[1]]]),
        (means.resampled[rows[0]] - means.resampled[rows[1]])[None],
        (means.jackknife[rows[0]] - means.jackknife[rows[1]])[None],
        means.clusters,
    )
    has_seeds = any(counts[index] > 1 for index in pair)
    if has_seeds:
        share = sum(1 / counts[index] for index in pair if counts[index] > 1)
        replicates = trained.with_seeds(replicates, place, share, np.random.default_rng(plan.options.seed + place))
    resampled = replicates.resampled
    kind: IntervalKind = "percentile" if has_seeds or figure.kind is FigureKind.GAP else plan.options.interval

    people = plan.people[figure.key]

    def ends(level: float) -> tuple[float, float]:
        found = bootstrap_interval(replicates, kind, level, clusters=np.array([people]))
        low, high = (float(part[0]) for part in found)
        if level < CONFIDENCE_LEVEL and resampled.size:
            # Tests of margins must keep their level: quantiles of few replicates alone are now and then too near.
            half = float(student_half_widths(replicates, np.array([people]), level)[0])
            low, high = min(low, replicates.value[0] - half), max(high, replicates.value[0] + half)
        if figure.kind.is_share and resampled.size:
            wide = _paired_share_interval(plan, figure, pair, level)
            low, high = min(low, wide[0]), max(high, wide[1])
        return low, high

    difference = metric_value(replicates.value[0], *ends(CONFIDENCE_LEVEL))
    margin = plan.options.margins.get(figure.kind)
    test = (
        None if margin is None or not resampled.size else _margin_test(figure.kind, margin, ends(1 - 2 * MARGIN_LEVEL))
    )
    p = difference_p_value(replicates, people)
    return FigureDifference(kind=figure.kind.value, difference=difference, p=p, shown=False, margin=test)


def _paired_share_interval(plan: _Plan, figure: _Figure, pair: tuple[int, int], level: float) -> tuple[float, float]:
    """Interval of a difference of two shares of the same images, with width where hardly any image differs.

    Agresti and Min 2005 ("Simple improved confidence intervals for comparing matched proportions", Statistics in Medicine 24):
    Wald's interval after half an image is added to each cell of the fourfold table. Images count over the design effect.
    """
    among = figure.among
    differences = figure.values[pair[0]].mean(axis=0)[among] - figure.values[pair[1]].mean(axis=0)[among]
    codes = np.unique(plan.images.clusters[among], return_inverse=True)[1]
    n, people = len(differences), int(codes.max()) + 1
    mean, square = float(differences.mean()), float((differences**2).mean())
    variance = square - mean**2
    effect = n / people
    if people > 1 and variance > 0:
        residuals = np.bincount(codes, differences - mean)
        effect = max(1.0, people / (people - 1) * float((residuals**2).sum()) / (n * variance))
    worth = n / effect
    centre = mean * worth / (worth + 2)
    spread = np.sqrt(square * worth + 1 - (mean * worth) ** 2 / (worth + 2)) / (worth + 2)
    half = t_quantile((1 + level) / 2, max(people - 1, 1)) * spread
    return max(centre - half, -1.0), min(centre + half, 1.0)


def _margin_test(kind: FigureKind, margin: float, ends: tuple[float, float]) -> MarginTest:
    low, high = ends
    below, above = bool(high < margin), bool(low > -margin)
    a_holds, b_holds = (below, above) if kind.worse_sign >= 0 else (above, below)
    directed = kind.worse_sign != 0
    return MarginTest(
        margin=margin,
        low=float(low),
        high=float(high),
        a_not_inferior=a_holds if directed else None,
        b_not_inferior=b_holds if directed else None,
        equivalent=below and above,
    )


def _with_holm(contrasts: Sequence[FigureDifference]) -> list[FigureDifference]:
    """Add p values corrected over the pairs, and whether a difference is shown: by the test and by the interval."""
    p_values = [contrast.p for contrast in contrasts if contrast.p is not None]
    if len(p_values) < len(contrasts):
        return [*contrasts]
    results = []
    for contrast, p in zip(contrasts, holm(p_values), strict=True):
        low, high = contrast.difference.ci_low, contrast.difference.ci_high
        excludes_zero = low is not None and high is not None and (low > 0 or high < 0)
        results.append(contrast.model_copy(update={"p_holm": p, "shown": excludes_zero and p < SIGNIFICANT}))
    return results
