"""The figures of NIST's evaluation of age estimation, FATE AEV, as a preset.

Sources: Hanaoka, Ngan, Yang, Quinn, Hom and Grother 2024, NIST IR 8525, "Face Analysis Technology Evaluation: Age Estimation
and Verification", and the results page of that evaluation (https://pages.nist.gov/frvt/html/frvt_age_estimation.html, also
html/frvt_age_estimation.html in github.com/usnistgov/frvt), which states for each figure the ages it is taken at:

- MAE by dataset: "averages of 26 MAE estimates from two sexes and 13 ages (18 to 30)";
- Challenge 25, false positive rate: "averages of 12 FPR estimates from two sexes and six regions-of-birth for subjects aged
  17"; a false positive is an estimate of at least 25 (the rule of NIST IR 8525);
- Child Online Safety (13-16): MAE, "averages of four MAE values for age group 13, 14, 15, and 16"; the shares of the
  13- to 16-year-olds estimated to be 13 to 16 ("below 17", TPR), 8 to 12 (FNR down) and 17 to 22 (FNR up); the shares of those
  aged 8 to 12, and 17 to 22, estimated to be 13 to 16 (FPR).

The page does not state the ages of its MAE by sex and region of birth; here they are 18 to 30, as of its other MAEs. A test set
need not have images of every cell: each figure states its number of cells, and only a full one compares with NIST's. A label that
is a range of ages counts only where all of it lies at those ages, and in a cell of one age only where it has no other.
The same figures over all ages of a test set, which are not among NIST's, are in `all_ages`. `by_age` has MAE by age and sex, as
the report's tables do, in bands whose limits are the ages above.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from agebench.errors import UserError
from agebench.metrics import point
from agebench.metrics.age_gates import age_gates
from agebench.metrics.analytic_intervals import Spread, cell_mean_spread, log_replicates, with_rows
from agebench.metrics.bootstrap import ClusterBootstrap, Flags, Floats, Ints, Replicates, distinct_values
from agebench.metrics.clustered_rates import clustered_rate, effective_sizes, group_rates, row_clusters, subject_codes
from agebench.metrics.confidence_intervals import (
    IntervalKind,
    clopper_pearson,
    exact_at_edges,
    metric_value,
    metric_values,
)
from agebench.metrics.groups import Grouping, grouping, groupings, year_codes
from agebench.metrics.metric_specs import FigureKey
from agebench.metrics.prediction_format import canonical
from agebench.metrics.schema import (
    CellAverage,
    MetricValue,
    NistAgeErrors,
    NistAllAges,
    NistChallenge,
    NistChildSafety,
    NistErrors,
    NistFateResult,
    NistGroup,
    NistOrigins,
)
from agebench.metrics.simultaneous import clusters_in_groups

ACCURACIES = tuple(range(1, 11))
LEGAL_AGE, CHALLENGE = 18, 25
SEXES = ("female", "male")
# Completed years, both ends included.
ADULT_AGES, MINOR_AGES = (18, 30), (17, 17)
CHILD_AGES, BELOW_AGES, ABOVE_AGES = (13, 16), (8, 12), (17, 22)
REGIONS = 6
# First completed years of the bands by age: the limits of the ages above, then decades.
AGE_BANDS = (0, 8, 13, 17, 18, 23, 31, 41, 51, 61)
BAND_ACCURACIES = (1, 3, 5, 10)


def nist(
    table: pd.DataFrame,
    *,
    origin: str | None = None,
    resamples: int = 1000,
    seed: int = 0,
    interval: IntervalKind = "bca",
) -> NistFateResult:
    """Compute the metrics of FATE AEV, each with the ages it is taken at.

    Args:
        table: predictions, see `check_predictions`, with a column gender of two values.
        origin: the column of region or race; default: region or race, where there is one.
        resamples: bootstrap samples.
        seed: seed of the bootstrap.
        interval: `bca` or `percentile`.

    Returns:
        `mae`, `by_sex` and `by_origin` (origin and sex) at ages 18 to 30, `challenge_25` at age 17, `child_online_safety` at ages
        8 to 22; and `all_ages`: the same over all ages of the test set, with Acc(x), the share within x years. Averages have
        `ages`, `cells` (those with images) and `of_cells` (those that NIST has).

    Raises:
        UserError: no column gender, one of other than two sexes, or no such origin.
    """
    table = canonical(table)
    sexes = _sexes(table)
    origin = origin or next((name for name in ("region", "race") if name in table), None)
    origins = groupings(table, [origin]) if origin else []
    crossing = [_crossing(sexes, origins[0])] if origins else []
    adults = _mean_errors(table, sexes, crossing, ADULT_AGES, resamples=resamples, seed=seed, interval=interval)
    return NistFateResult(
        mae=adults.mae,
        by_sex=adults.by_sex,
        by_origin=adults.by_origin,
        challenge_25=_challenge(table, sexes, origins[0] if origins else None),
        child_online_safety=_children(table, resamples=resamples, seed=seed, interval=interval),
        all_ages=_all_ages(table, sexes, origins, resamples=resamples, seed=seed, interval=interval),
        by_age=_by_age(table, sexes, resamples=resamples, seed=seed, interval=interval),
    )


def _sexes(table: pd.DataFrame) -> Grouping:
    """The grouping by sex; further values than female and male are in no cell."""
    if "gender" not in table or table["gender"].isna().all():
        raise UserError("the NIST layout needs the column gender (name yours with --col gender=COLUMN)")
    sexes = grouping(table, "gender")
    wanted = SEXES if set(SEXES) & set(sexes.names) else sexes.names
    if len(wanted) > len(SEXES):
        named = ", ".join(sexes.names[:8])
        raise UserError(f"the NIST layout needs the column gender with two values, female and male; it has {named}")
    names = tuple(name for name in sexes.names if name in wanted)
    places = np.array([names.index(name) if name in names else -1 for name in sexes.names])
    return Grouping(sexes.name, names, np.where(sexes.codes >= 0, places[sexes.codes], -1))


def _crossing(sexes: Grouping, origin: Grouping) -> Grouping:
    """The grouping by origin and sex, as NIST's table of regions has it."""
    known = (sexes.codes >= 0) & (origin.codes >= 0)
    names = tuple(f"{place}, {sex}" for place in origin.names for sex in sexes.names)
    return Grouping(
        f"{origin.name} and {sexes.name}", names, np.where(known, origin.codes * len(sexes.names) + sexes.codes, -1)
    )


def _between(age: Floats, ages: tuple[int, int]) -> Flags:
    """Return whether ages lie in completed years from the first of `ages` to the last."""
    inside: Flags = (age >= ages[0]) & (age < ages[1] + 1)
    return inside


def _labeled_between(table: pd.DataFrame, ages: tuple[int, int]) -> Flags:
    """Return whether labels lie `_between` ages; a label that is a range of ages does only as a whole."""
    youngest, oldest = point.age_limits(table)
    return _between(youngest, ages) & _between(oldest, ages)


def _has_year(table: pd.DataFrame) -> Flags:
    """Return whether each label is of one completed year; a range of ages over several years is in no cell of years."""
    youngest, oldest = (np.floor(limit) for limit in point.age_limits(table))
    known: Flags = youngest == oldest
    return known


def _mean_errors(
    table: pd.DataFrame,
    sexes: Grouping,
    origins: Sequence[Grouping],
    ages: tuple[int, int] | None,
    *,
    resamples: int,
    seed: int,
    interval: IntervalKind,
) -> NistErrors:
    """Compute the MAE as the unweighted mean over cells of sex and age; `ages` None: over all ages."""
    age = table["age"].to_numpy(float)
    inside = _has_year(table)
    if ages is not None:
        inside &= _between(age, ages)
    years = year_codes(age)
    span = int(years.max()) + 1
    shown = [sexes, *origins]
    codes = [np.where(inside & (one.codes >= 0), one.codes * span + years, -1) for one in shown]
    keys: list[FigureKey] = [("mae",), *((one.name, name, "mae") for one in shown for name in one.names)]
    features = point.make_features(table)

    def statistic(sums: Sequence[Floats]) -> Floats:
        parts = [point.mean_over_sets(features, sums[0])[None]]
        for one, of in zip(shown, sums, strict=True):
            parts += [
                point.mean_over_sets(features, of[place * span : (place + 1) * span])[None]
                for place in range(len(one.names))
            ]
        return np.concatenate(parts)

    clusters = row_clusters(table)
    found = ClusterBootstrap(features.values, codes, clusters).replicates(statistic, resamples=resamples, seed=seed)
    every = metric_values(keys, _with_cell_means(found, features.column("abs"), codes, shown, clusters, span), interval)
    stated = [int(age.min()), int(age.max())] if ages is None else [*ages]
    whole = None if ages is None else ages[1] - ages[0] + 1

    def group_errors(shown_grouping: Grouping) -> dict[str, NistGroup]:
        groups = {}
        for code, name in enumerate(shown_grouping.names):
            here = inside & (shown_grouping.codes == code)
            groups[name] = NistGroup(
                n=int(here.sum()),
                ages=stated,
                cells=len(np.unique(years[here])),
                of_cells=whole,
                mae=every[shown_grouping.name, name, "mae"],
            )
        return groups

    mae = _cell_average(every["mae",], stated, int((codes[0] >= 0).sum())).model_copy(
        update={
            "cells": len(np.unique(codes[0][codes[0] >= 0])),
            "of_cells": None if whole is None else len(SEXES) * whole,
        }
    )
    return NistErrors(
        mae=mae,
        by_sex=group_errors(sexes),
        by_origin=NistOrigins(column=origins[0].name, groups=group_errors(origins[0])) if origins else None,
    )


def _cell_average(value: MetricValue, ages: Sequence[int], n: int) -> CellAverage:
    return CellAverage(value=value.value, ci_low=value.ci_low, ci_high=value.ci_high, n=n, ages=[*ages])


def _with_cell_means(
    found: Replicates, errors: Floats, codes: Sequence[Ints], shown: Sequence[Grouping], clusters: Ints, span: int
) -> Replicates:
    """Give the means over cells replicates of their spread."""
    if not found.resampled.shape[1]:
        return found
    # Ages of one group are neighbors, those of two groups are not.
    cells = [np.where(code >= 0, code // span * 10_000 + code % span, -1) for code in codes]
    spreads = [cell_mean_spread(errors, cells[0], clusters)]
    for grouping_, group_cells in zip(shown, cells, strict=True):
        spreads += [
            cell_mean_spread(errors, np.where(grouping_.codes == group, group_cells, -1), clusters)
            for group in range(len(grouping_.names))
        ]
    rows = np.arange(len(found.value))
    spread = Spread(
        np.concatenate([part.errors for part in spreads]), np.concatenate([part.freedom for part in spreads])
    )
    return with_rows(found, rows, log_replicates(found.value, found.resampled, spread))


def _challenge(table: pd.DataFrame, sexes: Grouping, origin: Grouping | None) -> NistChallenge:
    """False positive rate of Challenge 25 at age 17: the mean over cells of sex and, where it is known, origin."""
    predicted = table["age_pred"].to_numpy(float)
    known = (sexes.codes >= 0) & (True if origin is None else origin.codes >= 0)
    count = 1 if origin is None else len(origin.names)
    cells = sexes.codes * count + (0 if origin is None else origin.codes)
    among = _labeled_between(table, MINOR_AGES) & known
    return NistChallenge(
        ages=[*MINOR_AGES],
        challenge=CHALLENGE,
        n=int(among.sum()),
        cells=len(np.unique(cells[among])),
        of_cells=len(SEXES) * REGIONS,
        origin=None if origin is None else origin.name,
        fpr=mean_rate(predicted >= CHALLENGE, among, cells, subject_codes(table)),
    )


def mean_rate(hits: Flags, among: Flags, cells: Ints, clusters: Ints | None = None) -> MetricValue:
    """The unweighted mean over cells of the share of `hits` (n,) `among` (n,).

    Its interval is Clopper and Pearson's, of as many images as the mean's variance is worth: K^2 / sum(1 / n_k) for K cells of
    n_k images, over the design effect where people repeat.
    """
    hits, cells = hits[among], np.unique(cells[among], return_inverse=True)[1]
    if not len(hits):
        return metric_value(np.nan)
    n = np.bincount(cells)
    share = float((np.bincount(cells, hits) / n).mean())
    one_group = np.zeros(len(hits), dtype=np.int64)
    effective = effective_sizes(hits, one_group, 1, None if clusters is None else clusters[among])[0]
    worth = len(n) ** 2 / float((1 / n).sum()) * effective / len(hits)
    low, high = clopper_pearson(np.array([share * worth]), np.array([worth]))
    return metric_value(share, low[0], high[0])


def _children(table: pd.DataFrame, *, resamples: int, seed: int, interval: IntervalKind) -> NistChildSafety:
    """Compute the task Child Online Safety (13-16)."""
    age, predicted = table["age"].to_numpy(float), table["age_pred"].to_numpy(float)
    children, below, above = (_labeled_between(table, ages) for ages in (CHILD_AGES, BELOW_AGES, ABOVE_AGES))
    accepted, clusters = _between(predicted, CHILD_AGES), subject_codes(table)
    in_cell = children & _has_year(table)
    years = np.where(in_cell, np.floor(age).astype(np.int64) - CHILD_AGES[0], -1)
    features = point.make_features(table)

    def statistic(sums: Sequence[Floats]) -> Floats:
        return point.mean_over_sets(features, sums[0])[None]

    whose = row_clusters(table)
    found = ClusterBootstrap(features.values, [years], whose).replicates(statistic, resamples=resamples, seed=seed)
    people = np.array([len(distinct_values(whose[in_cell]))])
    mae = metric_values([("mae",)], found, interval, clusters=people)["mae",]

    def among(inside: Flags, hits: Flags, ages: tuple[int, int]) -> CellAverage:
        return _cell_average(clustered_rate(hits, inside, clusters), ages, int(inside.sum()))

    cells = {"cells": len(np.unique(years[in_cell])), "of_cells": CHILD_AGES[1] - CHILD_AGES[0] + 1}
    return NistChildSafety(
        mae=_cell_average(mae, CHILD_AGES, int(in_cell.sum())).model_copy(update=cells),
        tpr=among(children, accepted, CHILD_AGES),
        fnr_below=among(children, _between(predicted, BELOW_AGES), CHILD_AGES),
        fnr_above=among(children, _between(predicted, ABOVE_AGES), CHILD_AGES),
        fpr_below=among(below, accepted, BELOW_AGES),
        fpr_above=among(above, accepted, ABOVE_AGES),
    )


def _all_ages(
    table: pd.DataFrame,
    sexes: Grouping,
    origins: Sequence[Grouping],
    *,
    resamples: int,
    seed: int,
    interval: IntervalKind,
) -> NistAllAges:
    """Compute the same metrics over all ages that a test set has; these are not NIST's."""
    features = point.make_features(table)
    names = [f"cs{x}" for x in ACCURACIES]

    def statistic(sums: Sequence[Floats]) -> Floats:
        found: Floats = point.per_group_metrics(features, sums[0], names)[0]
        return found

    everyone = [np.zeros(len(table), dtype=np.int64)]
    found = ClusterBootstrap(features.values, everyone, row_clusters(table)).replicates(
        statistic, resamples=resamples, seed=seed
    )
    people = np.full(len(names), found.clusters)
    accuracy = metric_values([(name,) for name in names], found, interval, clusters=people)
    gates = age_gates(
        table, legal_ages=(LEGAL_AGE,), challenges=(CHALLENGE,), groups=[one.name for one in (sexes, *origins)]
    )
    errors = _mean_errors(table, sexes, origins, None, resamples=resamples, seed=seed, interval=interval)
    return NistAllAges(
        mae=errors.mae,
        by_sex=errors.by_sex,
        by_origin=errors.by_origin,
        accuracy={str(x): exact_at_edges(accuracy[f"cs{x}",], found.clusters) for x in ACCURACIES},
        challenge_25=gates.get(str(LEGAL_AGE)),
    )


def _by_age(
    table: pd.DataFrame, sexes: Grouping, *, resamples: int, seed: int, interval: IntervalKind
) -> list[NistAgeErrors]:
    """Compute MAE by age band and sex, and accuracy by age band, of the bands with images."""
    features, age = point.make_features(table), table["age"].to_numpy(float)
    first, last_band = (np.searchsorted(AGE_BANDS, limit, side="right") - 1 for limit in point.age_limits(table))
    bands, n_sexes = np.where(first == last_band, first, -1), len(sexes.names)
    crossed = np.where((bands >= 0) & (sexes.codes >= 0), bands * n_sexes + sexes.codes, -1)
    counts = [np.bincount(codes[codes >= 0], minlength=len(AGE_BANDS)) for codes in (bands, crossed)]

    def statistic(sums: Sequence[Floats]) -> Floats:
        return np.concatenate([point.per_group_metrics(features, group, ["mae"])[:, 0] for group in sums])

    whose = row_clusters(table)
    resampler = ClusterBootstrap(features.values, [bands, crossed], whose)
    replicates = resampler.replicates(statistic, resamples=resamples, seed=seed)
    n_bands, n_cells = int(bands.max()) + 1, int(crossed.max()) + 1
    keys: list[FigureKey] = [("band", str(band), "mae") for band in range(n_bands)]
    keys += [("cell", str(cell), "mae") for cell in range(n_cells)]
    people = np.concatenate(
        [clusters_in_groups(codes, whose, count) for codes, count in ((bands, n_bands), (crossed, n_cells))]
    )
    mae = metric_values(keys, replicates, interval, clusters=people)
    everyone, clusters = np.ones(len(table), dtype=bool), subject_codes(table)
    accuracy = {
        x: group_rates(features.column(f"cs{x}") > 0, everyone, bands, n_bands, clusters) for x in BAND_ACCURACIES
    }
    last = [start - 1 for start in AGE_BANDS[1:]] + [max(int(age.max()), AGE_BANDS[-1])]

    def counted(kind: str, code: int, n: int) -> MetricValue:
        return mae[kind, str(code), "mae"].model_copy(update={"n": n})

    def errors(band: int) -> NistAgeErrors:
        cells = {sex: band * n_sexes + code for code, sex in enumerate(sexes.names)}
        return NistAgeErrors(
            ages=[AGE_BANDS[band], last[band]],
            mae=counted("band", band, int(counts[0][band])),
            by_sex={
                sex: counted("cell", cell, int(counts[1][cell]))
                for sex, cell in cells.items()
                if cell < n_cells and counts[1][cell]
            },
            accuracy={str(x): accuracy[x][band] for x in BAND_ACCURACIES},
        )

    return [errors(band) for band in range(n_bands) if counts[0][band]]
