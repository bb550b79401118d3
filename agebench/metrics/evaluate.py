"""Compute all metrics for the predictions on one test set."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from agebench.errors import UserError
from agebench.metrics import point
from agebench.metrics.analytic_intervals import (
    HEAVY_TAIL,
    Spread,
    cell_mean_spread,
    log_replicates,
    quantile_replicates,
    rmse_spread,
    tail_index,
    with_rows,
)
from agebench.metrics.bootstrap import ClusterBootstrap, Floats, Ints, Replicates, distinct_values, pool_seeds
from agebench.metrics.clustered_rates import row_clusters, subject_codes
from agebench.metrics.confidence_intervals import NEAR, IntervalKind, exact_at_edges, metric_value, metric_values
from agebench.metrics.gaps import GroupComparison, SignedErrors, compare_groups, gap_results
from agebench.metrics.groups import MIN_GROUP, Grouping, age_bands, groupings, year_codes
from agebench.metrics.metric_specs import SPECS, FigureKey, Unit
from agebench.metrics.point import CS_LEVELS, MetricFeatures
from agebench.metrics.prediction_format import canonical_order
from agebench.metrics.schema import BootstrapMethod, GroupMetrics, MetricValue, SeedMetric, SeedSummary, TestResult
from agebench.metrics.simultaneous import clusters_in_groups

# How intervals are computed: 2 has simultaneous intervals of gaps, better ones of balanced MAE, RMSE and quantiles, and
# numbers rows by their ids; in 3 a replicate near the value counts in part as below it, so that rounding decides nothing; in 4
# intervals of a group count its own people, and are Student's where these are few. Records state which they have; those without
# a number have 1.
VERSION = 4
_IN_GROUPS = ("mae", "bias", "rmse", "cs5")
# Figures of some of the images -> the feature that counts these.
_COUNTED_BY = {
    "mae_within_train_ages": "n_inside",
    "epsilon_error": "n_epsilon",
    "range_mae": "n_range",
    "range_hit": "n_range",
}
# Figures of all images whose replicates `_Plan.refined` replaces.
_REFINED = ("balanced_mae", "balanced_mae_bands", "rmse", *point.QUANTILES)


def evaluate(
    table: pd.DataFrame,
    *,
    groups: Sequence[str] = (),
    train_ages: tuple[float, float] | None = None,
    resamples: int = 1000,
    seed: int = 0,
    interval: IntervalKind = "bca",
    minimum: int = MIN_GROUP,
    version: int = VERSION,
) -> TestResult:
    """Compute all metrics of one test set, each with its 95 % bootstrap interval (None where undefined).

    The bootstrap resamples subjects where `subject` is known, else images. Shares (CS@k) lie between 0 and 1.

    Args:
        table: predictions as `check_predictions` gives them: age, age_pred, and where there are any subject, age_low and
            age_high (the label is a range), label_std (the label's standard deviation), group columns.
        groups: the columns to group by, or crossings 'a*b'; gender*race joins by itself when both are there.
        train_ages: (lowest, highest) age in the training set, for the MAE within it.
        resamples: bootstrap samples, and shuffles of the tests; 0: no intervals, no tests.
        seed: of both.
        interval: `bca` or `percentile`.
        minimum: groups with fewer rows are shown but neither ranked nor compared.
        version: an earlier `VERSION`, to compute the intervals of a record again as it has them.

    Raises:
        UserError: a group column is not there.
    """
    return evaluate_seeds(
        [table],
        groups=groups,
        train_ages=train_ages,
        resamples=resamples,
        seed=seed,
        interval=interval,
        minimum=minimum,
        version=version,
    )


def evaluate_seeds(
    tables: Sequence[pd.DataFrame],
    *,
    groups: Sequence[str] = (),
    train_ages: tuple[float, float] | None = None,
    resamples: int = 1000,
    seed: int = 0,
    interval: IntervalKind = "bca",
    minimum: int = MIN_GROUP,
    version: int = VERSION,
    tests: bool = True,
) -> TestResult:
    """Compute the metrics of one system trained from several seeds: every figure is the mean over them.

    The intervals are hierarchical percentile intervals: seeds vary, and subjects (or images) within. `seeds` holds each seed's
    overall figures, their mean and standard deviation.

    Args:
        tables: predictions, one table a seed, all of the same images; labels and groups are read from the first.
        groups: as of `evaluate`.
        train_ages: as of `evaluate`.
        resamples: as of `evaluate`.
        seed: as of `evaluate`.
        interval: as of `evaluate`, for a single table; several have percentile intervals.
        minimum: as of `evaluate`.
        version: as of `evaluate`.
        tests: whether gaps are tested by permutation; intervals do not depend on it.

    Raises:
        UserError: the tables are not of the same images, or a group column is not there.
    """
    tables = _same_images(tables)
    order = canonical_order(tables[0]) if version > 1 else None
    if order is not None:
        tables = [one.take(order).reset_index(drop=True) for one in tables]
    table = tables[0]
    several = [point.make_features(one, train_ages) for one in tables]
    whose, clusters = subject_codes(table), row_clusters(table)
    made = groupings(table, groups)
    errors, signed, detrended = (
        np.mean([features.column(name) for features in several], axis=0) for name in ("abs", "error", "detrended")
    )
    compared = [compare_groups(table, grouping, minimum) for grouping in made]
    plan = _Plan(several, [age_bands(table["age"].to_numpy(float)), *made], compared)
    sampler = plan.sampler(table, clusters)
    apart = sampler.replicates(plan.statistic, resamples=resamples, seed=seed)
    if apart.resampled.shape[1]:
        apart = plan.refined(apart, year_codes(table["age"].to_numpy(float)), clusters)
    found = pool_seeds(apart, len(tables), seed)
    if len(tables) > 1:
        interval = "percentile"  # The seeds' heavy-tailed part makes a correction for skewness unsteady.
    people = {grouping.name: grouping.cluster_counts(clusters) for grouping in plan.shown}
    every = metric_values(
        plan.keys(),
        found,
        interval,
        NEAR if version > 2 else 0.0,
        plan.clusters_behind(people, clusters) if version > 3 else None,
    )
    entry = TestResult(
        n=len(table),
        subjects=None if whose is None else int(table["subject"].nunique()),
        overall=_overall(plan, every, clusters),
        cs=[every["overall", f"cs{level}"].value for level in CS_LEVELS],
        groups={
            grouping.name: _group_table(grouping, every, people[grouping.name], minimum, named=whose is not None)
            for grouping in plan.shown
        },
        gaps=gap_results(
            compared,
            every,
            dict(zip(plan.keys(), found.resampled, strict=True)),
            errors,
            clusters,
            signed_errors=SignedErrors(signed, detrended),
            permutations=resamples if tests else 0,
            seed=seed,
        ),
        n_unknown={grouping.name: int(grouping.unknown) for grouping in plan.shown},
        train_ages=None if train_ages is None else [float(age) for age in train_ages],
        method=_method(found, interval, whose is not None, seed, version),
        undercovering=_undercovering(several) if found.resampled.shape[1] else [],
        notes=_notes(table, plan.shown, minimum),
    )
    if len(tables) == 1:
        return entry
    return entry.model_copy(update={"seeds": _seed_summary(plan, apart.value.reshape(len(tables), -1))})


class _Plan:
    """Which figures there are, in which order: their names, and their values from sums."""

    def __init__(
        self, several: Sequence[MetricFeatures], shown: Sequence[Grouping], compared: Sequence[GroupComparison]
    ) -> None:
        self.several = several
        self.shown = shown
        self.compared = compared
        ones = np.ones((1, several[0].values.shape[1], 1))
        with np.errstate(all="ignore"):
            whole = tuple(point.overall_only_metrics(several[0], ones))
        self.overall_names = (*point.PER_GROUP_METRICS, *whole, "balanced_mae", "balanced_mae_bands")

    def sampler(self, table: pd.DataFrame, clusters: Ints) -> ClusterBootstrap:
        """Gives the sums that `statistic` wants; over single years and strata, of n, abs and detrended alone."""
        width = self.several[0].values.shape[1]
        return ClusterBootstrap(
            np.hstack([features.values for features in self.several])
            if len(self.several) > 1
            else self.several[0].values,
            [np.zeros(len(table), dtype=np.int64), *(grouping.codes for grouping in self.shown)],
            clusters,
            fine=[year_codes(table["age"].to_numpy(float)), *(one.cells for one in self.compared)],
            fine_columns=[
                place * width + column for place in range(len(self.several)) for column in point.ERROR_COLUMNS
            ],
        )

    def refined(self, apart: Replicates, ages: Ints, clusters: Ints) -> Replicates:
        """Replace the replicates of figures whose bootstrap intervals are too narrow; see `analytic`."""
        rows_of = {key: row for row, key in enumerate(self.keys())}
        whole = np.zeros(len(clusters), dtype=np.int64)
        for seed, features in enumerate(self.several):
            errors, squares = features.column("abs"), features.column("square")
            spreads: dict[FigureKey, Spread] = {
                ("overall", "balanced_mae"): cell_mean_spread(errors, ages, clusters),
                ("overall", "balanced_mae_bands"): cell_mean_spread(errors, self.shown[0].codes, clusters),
                ("overall", "rmse"): rmse_spread(squares, whole, clusters, 1),
            }
            rows = [rows_of[key] for key in spreads]
            parts = [*spreads.values()]
            for grouping in self.shown:
                rows += [rows_of[grouping.name, group, "rmse"] for group in grouping.names]
                parts.append(rmse_spread(squares, grouping.codes, clusters, len(grouping.names)))
            spread = Spread(*(np.concatenate([getattr(part, key) for part in parts]) for key in ("errors", "freedom")))
            places = np.array(rows) + seed * len(rows_of)
            apart = with_rows(apart, places, log_replicates(apart.value[places], apart.resampled[places], spread))
            for name, level in point.QUANTILES.items():
                place = np.array([rows_of["overall", name] + seed * len(rows_of)])
                replicates = quantile_replicates(
                    errors, features.ordered_errors, level, clusters, apart.resampled[place[0]]
                )
                apart = with_rows(apart, place, replicates[None])
        return apart

    def keys(self) -> list[FigureKey]:
        keys: list[FigureKey] = [("overall", name) for name in self.overall_names]
        for grouping in self.shown:
            keys += [(grouping.name, group, metric) for group in grouping.names for metric in _IN_GROUPS]
        return [*keys, *(key for one in self.compared for key in one.figure_keys())]

    def clusters_behind(self, people: Mapping[str, Ints], clusters: Ints) -> Ints:
        """Count the clusters behind each figure (K,), in the order of `keys`; 0 for the figures that `refined` replaces.

        Args:
            people: grouping -> clusters in each of its groups.
            clusters: (n,) rows drawn together.
        """
        behind = dict.fromkeys(self.keys(), int(clusters.max()) + 1)
        for grouping in self.shown:
            for group, count in zip(grouping.names, people[grouping.name], strict=True):
                behind |= {(grouping.name, group, name): int(count) for name in _IN_GROUPS}
                behind[grouping.name, group, "rmse"] = 0
        for one in self.compared:
            inside = np.where(one.cells >= 0, one.grouping.codes, -1)
            counts = clusters_in_groups(inside, clusters, len(one.grouping.names))
            of_group = dict(zip(one.grouping.names, counts, strict=True))
            behind |= {key: int(of_group[key[1]]) for key in one.figure_keys()}
        for name, column in _COUNTED_BY.items():
            if ("overall", name) in behind:
                some = np.logical_or.reduce([features.column(column) > 0 for features in self.several])
                behind["overall", name] = len(distinct_values(clusters[some]))
        behind |= {("overall", name): 0 for name in _REFINED}
        return np.array([*behind.values()])

    def statistic(self, sums: Sequence[Floats]) -> Floats:
        """Figures (seeds * K, b) from the sums of each grouping; K in the order of `keys`."""
        coarse = 1 + len(self.shown)
        wide, narrow = self.several[0].values.shape[1], len(point.ERROR_COLUMNS)
        return np.concatenate(
            [
                self._one(
                    features,
                    [of[:, place * wide : (place + 1) * wide] for of in sums[:coarse]],
                    [of[:, place * narrow : (place + 1) * narrow] for of in sums[coarse:]],
                )
                for place, features in enumerate(self.several)
            ]
        )

    def _one(self, features: MetricFeatures, coarse: Sequence[Floats], fine: Sequence[Floats]) -> Floats:
        total, *by_group = coarse
        by_year, *by_cell = fine
        parts = [point.per_group_metrics(features, total)[0]]
        parts += [values[None] for values in point.overall_only_metrics(features, total).values()]
        parts += [point.mean_over_sets(features, of)[None] for of in (by_year, by_group[0])]
        plain = [point.per_group_metrics(features, of, _IN_GROUPS) for of in by_group]
        parts += [of.reshape(-1, of.shape[2]) for of in plain]
        parts += [one.metric_values(features, cells) for one, cells in zip(self.compared, by_cell, strict=True)]
        return np.concatenate(parts)


def _same_images(tables: Sequence[pd.DataFrame]) -> list[pd.DataFrame]:
    """The tables, rows in the order of the first.

    Raises:
        UserError: they are not of the same images.
    """
    first = tables[0]
    if len(tables) == 1:
        return [first]
    ids = pd.Index(first["sample_id"])
    aligned = [first]
    for place, table in enumerate(tables[1:], start=2):
        order = pd.Index(table["sample_id"]).get_indexer(ids)
        if len(table) != len(first) or (order < 0).any():
            raise UserError(
                f"seed {place} has {len(table)} predictions and lacks {int((order < 0).sum())} of the {len(first)} images of "
                "the first; seeds are of the same images"
            )
        aligned.append(first.assign(age_pred=table["age_pred"].to_numpy()[order]))
    return aligned


def _group_table(
    grouping: Grouping, every: Mapping[FigureKey, MetricValue], n_clusters: Ints, minimum: int, *, named: bool
) -> dict[str, GroupMetrics]:
    """Metrics of each group.

    Args:
        grouping: the groups.
        every: all figures.
        n_clusters: people in each group, an image of an unknown person counted as one's.
        minimum: rows of a group that is compared.
        named: whether people are known, and are counted in the table.
    """
    counts = grouping.counts
    table = {}
    for index, group in enumerate(grouping.names):
        values = {name: every[grouping.name, group, name] for name in _IN_GROUPS}
        values["cs5"] = exact_at_edges(values["cs5"], int(n_clusters[index]))
        if n_clusters[index] < 2:
            # One person alone shows no spread: an interval would have no width and mean nothing.
            values = {
                name: metric_value(np.nan if value.value is None else value.value) for name, value in values.items()
            }
        even = every.get((grouping.name, group, "age_standardized_mae"))
        if even is not None:
            values["age_standardized_mae"] = even
        fields: dict[str, object] = {"n": int(counts[index]), "eligible": bool(counts[index] >= minimum), **values}
        if named:
            fields["subjects"] = int(n_clusters[index])
        table[group] = GroupMetrics.model_validate(fields)
    return table


def _overall(plan: _Plan, every: Mapping[FigureKey, MetricValue], clusters: Ints) -> dict[str, MetricValue]:
    """Figures of all images; shares of 0 or 1 have exact intervals."""
    overall = {name: every["overall", name] for name in plan.overall_names}
    features = plan.several[0]
    people = int(clusters.max()) + 1
    with_range = len(distinct_values(clusters[features.column("n_range") > 0])) if "range_hit" in overall else 0
    for name in overall:
        if SPECS[name].unit is Unit.SHARE:
            overall[name] = exact_at_edges(overall[name], with_range if name == "range_hit" else people)
    if within := overall.get("mae_within_train_ages"):
        overall["mae_within_train_ages"] = within.model_copy(update={"n": int(features.column("n_inside").sum())})
    return overall


def _undercovering(several: Sequence[MetricFeatures]) -> list[str]:
    """Figures whose intervals do not reach 95 % with errors of this kind."""
    return ["rmse"] if min(tail_index(features.ordered_errors) for features in several) < HEAVY_TAIL else []


def _seed_summary(plan: _Plan, values: Floats) -> SeedSummary:
    """Summarize each seed's overall metrics (seeds, K): values, mean and standard deviation."""
    metrics = {}
    for place, name in enumerate(plan.overall_names):
        of = values[:, place]
        if np.isfinite(of).all():
            metrics[name] = SeedMetric(
                values=[float(value) for value in of], mean=float(of.mean()), sd=float(of.std(ddof=1))
            )
    return SeedSummary(count=len(values), metrics=metrics)


def _method(found: Replicates, interval: IntervalKind, subjects: bool, seed: int, version: int) -> BootstrapMethod:
    return BootstrapMethod(
        interval=interval,
        level=0.95,
        resamples=int(found.resampled.shape[1]),
        resampled="subjects" if subjects else "images",
        seed=seed,
        version=version,
        clusters=found.clusters,
    )


def _notes(table: pd.DataFrame, shown: Sequence[Grouping], minimum: int) -> list[str]:
    notes = []
    if table["age"].nunique() == 1:
        notes.append(f"every label is {table['age'].iloc[0]:g} years: R2 and correlations are not defined")
    for grouping in shown[1:]:
        small = [name for name, n in zip(grouping.names, grouping.counts, strict=True) if n < minimum]
        if small:
            notes.append(f"{grouping.name}: fewer than {minimum} images, shown but not ranked: {', '.join(small)}")
        if grouping.unknown:
            notes.append(f"{grouping.name}: unknown for {grouping.unknown} images, which are in no group")
    return notes
