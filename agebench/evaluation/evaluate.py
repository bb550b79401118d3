"""One test set's predictions -> its entry of metrics.json."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from agebench.evaluation import metrics
from agebench.evaluation.fairness import (
    Strata,
    cell_codes,
    comparable,
    equality_test,
    holm,
    ranked,
    standardised,
    worst_and_best,
)
from agebench.evaluation.groups import MIN_GROUP, Grouping, age_bands, groupings, single_years
from agebench.evaluation.intervals import Kind, figure, figures
from agebench.evaluation.metrics import CS_LEVELS, Features
from agebench.evaluation.resampling import Flags, Floats, Ints, Replicates, Resampler, cluster_codes

_IN_GROUPS = ("mae", "bias", "rmse", "cs5")
_SIGNIFICANT = 0.05


@dataclass(frozen=True)
class Comparison:
    """The groups of one grouping that are compared, and at which ages.

    Attributes:
        grouping: all groups.
        groups: places in `grouping.names` of those with enough rows.
        pair: (worst, best) by raw MAE, as places in `groups`.
        strata: ages at which the groups of `even_groups` can be compared.
        even_groups: those of `groups` that are; fewer than two: none can be.
        even_pair: (worst, best) by age-standardised MAE, as places in `even_groups`.
    """

    grouping: Grouping
    groups: Ints
    pair: tuple[int, int]
    strata: Strata
    even_groups: Ints
    even_pair: tuple[int, int] = (0, 0)


def evaluate(
    table: pd.DataFrame,
    *,
    groups: Sequence[str] = (),
    train_ages: tuple[float, float] | None = None,
    resamples: int = 1000,
    seed: int = 0,
    interval: Kind = "bca",
    minimum: int = MIN_GROUP,
) -> dict[str, Any]:
    """All figures of one test set, each with its 95 % bootstrap interval, ready for JSON (None where undefined).

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

    Returns:
        n, subjects, overall, cs, groups, gaps, unknown (rows of no known group, by grouping), train_ages, method, notes.

    Raises:
        UserError: a group column is not there.
    """
    features = metrics.make_features(table, train_ages)
    age = table["age"].to_numpy(float)
    subject = table["subject"].to_numpy(object) if "subject" in table and table["subject"].notna().any() else None
    clusters = cluster_codes(subject, len(table))
    made = groupings(table, groups)
    compared = [_comparison(table, grouping, features, minimum) for grouping in made]
    shown = [age_bands(age), *made]
    codes = [np.zeros(len(table), dtype=np.int64), single_years(age), *(grouping.codes for grouping in shown)]
    codes += [cell_codes(one.strata, one.grouping, one.even_groups) for one in compared]
    plan = _Plan(features, shown, compared)
    found = Resampler(features.values, codes, clusters).replicates(plan.statistic, resamples=resamples, seed=seed)
    every = figures(plan.names(), found, interval)
    entry: dict[str, Any] = {
        "n": len(table),
        "subjects": None if subject is None else int(pd.Series(subject).nunique()),
        "overall": {name: every[f"overall/{name}"] for name in plan.overall_names},
        "cs": [every[f"overall/cs{level}"]["value"] for level in CS_LEVELS],
        "groups": {grouping.name: _group_table(grouping, every, clusters, minimum) for grouping in shown},
        "gaps": _gaps(plan, every, clusters, resamples, seed),
        "unknown": {grouping.name: grouping.unknown for grouping in shown},
        "train_ages": None if train_ages is None else list(train_ages),
        "method": _method(found, interval, subject is not None, seed),
        "notes": _notes(table, shown, minimum),
    }
    if train_ages is not None:
        inside = features.values[:, features.columns["n_inside"]]
        entry["overall"]["mae_within_train_ages"]["n"] = int(inside.sum())
    return entry


class _Plan:
    """Which figures there are, in which order: their names, and their values from sums."""

    def __init__(self, features: Features, shown: Sequence[Grouping], compared: Sequence[Comparison]) -> None:
        self.features = features
        self.shown = shown
        self.compared = compared
        ones = np.ones((1, features.values.shape[1], 1))
        with np.errstate(all="ignore"):
            self.whole_names = tuple(metrics.whole(features, ones))
        self.overall_names = (*metrics.PLAIN, *self.whole_names, "balanced_mae", "balanced_mae_bands")

    def names(self) -> list[str]:
        names = [f"overall/{name}" for name in self.overall_names]
        for grouping in self.shown:
            names += [f"{grouping.name}/{group}/{figure}" for group in grouping.names for figure in _IN_GROUPS]
        for one in self.compared:
            name = one.grouping.name
            names += [f"{name}/{one.grouping.names[place]}/mae_standardised" for place in one.even_groups]
            names += [f"{name}/difference", f"{name}/ratio", f"{name}/even/difference", f"{name}/even/ratio"]
        return names

    def statistic(self, sums: Sequence[Floats]) -> Floats:
        """Figures (K, b) from the sums of each grouping, in the order of `names`."""
        total, by_year, *rest = sums
        by_group, by_cell = rest[: len(self.shown)], rest[len(self.shown) :]
        parts = [
            metrics.plain(self.features, total)[0],
            *(v[None] for v in metrics.whole(self.features, total).values()),
        ]
        parts += [metrics.mean_over_sets(self.features, of)[None] for of in (by_year, by_group[0])]
        maes = []
        for grouping, of in zip(self.shown, by_group, strict=True):
            plain = metrics.plain(self.features, of, _IN_GROUPS)
            maes.append(plain[:, 0])
            parts.append(plain.reshape(len(grouping.names) * len(_IN_GROUPS), -1))
        for one, mae, cells in zip(self.compared, maes[1:], by_cell, strict=True):
            even = _even_means(self.features, cells, one)
            parts += [even, _between(mae[one.groups], one.pair), _between(even, one.even_pair)]
        return np.concatenate(parts, axis=0)


def _even_means(features: Features, cells: Floats, one: Comparison) -> Floats:
    """Age-standardised MAE of each group in `even_groups` (groups, b) from the sums of its cells."""
    # Every group stands in every stratum, so that no cell is missing.
    shape = (len(one.even_groups), len(one.strata.ranges), cells.shape[2])
    n = features.of(cells, "n").reshape(shape)
    total = features.of(cells, "abs").reshape(shape)
    # A resample without a row in some cell takes the group's plain mean for it.
    means = np.where(n > 0, total / np.where(n > 0, n, 1), total.sum(1, keepdims=True) / n.sum(1, keepdims=True))
    return standardised(means, one.strata.weights)


def _between(values: Floats, pair: tuple[int, int]) -> Floats:
    """Difference and ratio (2, b) of two named groups' figures.

    The pair is fixed by the observed figures: the largest gap of a resample is biased upwards, that of two given groups not.
    """
    if len(values) < 2:
        return np.full((2, values.shape[1]), np.nan)
    worst, best = values[pair[0]], values[pair[1]]
    return np.stack([worst - best, np.where(best > 0, worst / np.where(best > 0, best, 1), np.nan)])


def _comparison(table: pd.DataFrame, grouping: Grouping, features: Features, minimum: int) -> Comparison:
    groups = ranked(grouping, minimum)
    errors = features.values[:, features.columns["abs"]]
    known = grouping.codes >= 0
    sums = np.bincount(grouping.codes[known], errors[known], minlength=len(grouping.names))
    pair = worst_and_best((sums / np.maximum(grouping.counts, 1))[groups]) if len(groups) else (0, 0)
    even_groups, strata = comparable(metrics.years(table), grouping, groups)
    one = Comparison(grouping, groups, pair, strata, even_groups)
    if not len(even_groups):
        return one
    codes = cell_codes(strata, grouping, even_groups)
    cells = np.zeros((codes.max() + 1, features.values.shape[1], 1))
    for name in ("n", "abs"):
        place = features.columns[name]
        cells[:, place, 0] = np.bincount(codes[codes >= 0], features.values[codes >= 0, place])
    return replace(one, even_pair=worst_and_best(_even_means(features, cells, one)[:, 0]))


def _group_table(grouping: Grouping, every: dict[str, Any], clusters: Ints, minimum: int) -> dict[str, Any]:
    counts = grouping.counts
    several = _several_clusters(grouping, clusters)
    table: dict[str, Any] = {}
    for place, group in enumerate(grouping.names):
        row: dict[str, Any] = {"n": int(counts[place]), "ranked": bool(counts[place] >= minimum)}
        row |= {name: every[f"{grouping.name}/{group}/{name}"] for name in _IN_GROUPS}
        even = every.get(f"{grouping.name}/{group}/mae_standardised")
        if even is not None:
            row["mae_standardised"] = even
        if not several[place]:
            # One person alone shows no spread: an interval would have no width and mean nothing.
            row |= {name: figure(row[name]["value"]) for name in _IN_GROUPS}
        table[group] = row
    return table


def _several_clusters(grouping: Grouping, clusters: Ints) -> Flags:
    known = grouping.codes >= 0
    first, last = np.full(len(grouping.names), clusters.max() + 1), np.full(len(grouping.names), -1)
    np.minimum.at(first, grouping.codes[known], clusters[known])
    np.maximum.at(last, grouping.codes[known], clusters[known])
    several: Flags = first < last
    return several


def _gaps(plan: _Plan, every: dict[str, Any], clusters: Ints, resamples: int, seed: int) -> dict[str, Any]:
    errors = plan.features.values[:, plan.features.columns["abs"]]
    gaps: dict[str, dict[str, Any]] = {}
    for one in plan.compared:
        if len(one.groups) < 2:
            continue
        name, names = one.grouping.name, [one.grouping.names[place] for place in one.groups]

        def p_of(groups: Ints, strata: Strata | None, grouping: Grouping = one.grouping) -> float | None:
            if not resamples:
                return None
            return equality_test(errors, grouping, groups, clusters, strata, permutations=resamples, seed=seed)

        gap: dict[str, Any] = {key: every[f"{name}/{key}"] for key in ("difference", "ratio")}
        gap |= {
            "worst": names[one.pair[0]],
            "best": names[one.pair[1]],
            "p": p_of(one.groups, None),
            "standardised": None,
        }
        if len(one.even_groups):
            names = [one.grouping.names[place] for place in one.even_groups]
            even: dict[str, Any] = {key: every[f"{name}/even/{key}"] for key in ("difference", "ratio")}
            even |= {"worst": names[one.even_pair[0]], "best": names[one.even_pair[1]], "groups": names}
            even |= {"p": p_of(one.even_groups, one.strata)}
            even |= {"coverage": one.strata.coverage, "ages": [list(ages) for ages in one.strata.ranges]}
            gap["standardised"] = even
            raw = [every[f"{name}/{group}/mae"]["value"] for group in names]
            # Of the same groups, more than a tenth of the raw gap is gone at equal ages.
            gap["shrinks"] = even["difference"]["value"] < 0.9 * (max(raw) - min(raw))
        gaps[name] = gap
    _judge(gaps)
    return gaps


def _judge(gaps: dict[str, dict[str, Any]]) -> None:
    """Add Holm's p values over all groupings, and what follows from them."""
    even = {name: gap["standardised"] for name, gap in gaps.items() if gap["standardised"]}
    for family in (gaps, even):
        tested = [part for part in family.values() if part["p"] is not None]
        for part, adjusted in zip(tested, holm([part["p"] for part in tested]), strict=True):
            part["p_holm"] = adjusted
    for gap in gaps.values():
        judged = gap["standardised"] or gap
        gap["flagged"] = judged.get("p_holm") is not None and judged["p_holm"] < _SIGNIFICANT


def _method(found: Replicates, interval: Kind, subjects: bool, seed: int) -> dict[str, Any]:
    return {
        "interval": interval,
        "level": 0.95,
        "resamples": int(found.resampled.shape[1]),
        "resampled": "subjects" if subjects else "images",
        "seed": seed,
    }


def _notes(table: pd.DataFrame, shown: Sequence[Grouping], minimum: int) -> list[str]:
    notes = []
    if table["age"].nunique() == 1:
        notes.append(f"every label is {table['age'].iloc[0]:g} years: R2 and correlations are not defined")
    for grouping in shown[1:]:
        small = [name for name, n in zip(grouping.names, grouping.counts, strict=True) if n < minimum]
        if small:
            notes.append(f"{grouping.name}: fewer than {minimum} images, shown but not ranked: {', '.join(small)}")
        if grouping.unknown:
            notes.append(f"{grouping.name}: unknown for {grouping.unknown} images, which stand in no group")
    return notes
