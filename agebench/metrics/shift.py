"""Why a system errs more on another dataset: other ages, other faces of the same ages, or ages that it was not trained for.

Direct standardization (Fleiss, Levin and Paik 2003, "Statistical Methods for Rates and Proportions", chapter 19) divides the
difference of two MAEs over strata a of age, with weights w and stratum MAEs m of the source s and the target t, into

- the mix, sum of w_t m_s less the source's MAE: what the source's errors would be at the target's ages;
- the same ages, sum of w_t (m_t - m_s): the target's faces are harder, or estimated with a bias;
- the ages outside: the target's MAE less that of its images with counterparts in the source.

The three parts add up to the difference. Intervals are from a bootstrap of the people (or images) of both sets; a set of one person
leaves them without intervals.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.optimize import isotonic_regression

from agebench.metrics.bootstrap import ClusterBootstrap, Flags, Floats, Ints, Replicates, encode_clusters
from agebench.metrics.confidence_intervals import bootstrap_interval, metric_value
from agebench.metrics.fairness import age_strata
from agebench.metrics.groups import MIN_GROUP, Grouping
from agebench.metrics.point import has_ranges
from agebench.metrics.prediction_format import FOLD
from agebench.metrics.schema import MetricValue, Recalibration, ShiftParts, ShiftResult

# Labeled images of the target that a recalibration is fitted on.
LABELED = (50, 100, 200)
# Group columns that may refine the strata.
GROUPS = ("gender", "race")
# The division by groups is shown if so large a share of the target's images has counterparts.
_LEAST_COVERAGE = 0.5
_REPEATS = 100
# A recalibration is tested on so many images at most in each repeat.
_MOST_TESTED = 5_000


def explain_shift(
    source: pd.DataFrame, target: pd.DataFrame, *, name: str, resamples: int = 1000, seed: int = 0
) -> ShiftResult | None:
    """Divide the difference in MAE between a target dataset and the held-out part of the source.

    Args:
        source: predictions on the held-out part of the training set: age, age_pred, and where known subject and groups.
        target: predictions of the same system on another dataset.
        name: name of the source.
        resamples: bootstrap resamples; 0: no intervals.
        seed: seed of the resampling.

    Returns:
        The parts of the difference and the effect of a recalibration; None if the sets share no ages, or if labels are ranges
        of ages, whose errors are no errors of single years.
    """
    tables = (source, target)
    if any(map(has_ranges, tables)):
        return None
    codes, ages = _strata(tables)
    if not ages:
        return None
    columns = [column for column in GROUPS if all(_is_known(table, column) for table in tables)]
    clusters = [_clusters(table) for table in tables]
    errors = [_errors(table) for table in tables]
    parts, difference = _divide(errors, clusters, codes, resamples, seed)
    result = ShiftResult(source=name, difference=difference, parts=_shift_parts(parts, codes[1], ages, []))
    changes: dict[str, object] = {"recalibration": _recalibrate(target, seed=seed)}
    if columns:
        cells, ages = _cells(tables, columns)
        if (cells[1] >= 0).mean() >= _LEAST_COVERAGE:
            refined, _ = _divide(errors, clusters, cells, resamples, seed)
            changes["with_groups"] = _shift_parts(refined, cells[1], ages, columns)
    return result.model_copy(update=changes)


def _errors(table: pd.DataFrame) -> Floats:
    errors: Floats = np.abs(table["age_pred"].to_numpy(float) - table["age"].to_numpy(float))
    return errors


def _clusters(table: pd.DataFrame) -> Ints:
    """The person on each row, or its image where the person is unknown; an image may be in several folds."""
    images = table["sample_id"] if FOLD in table and "sample_id" in table else None
    subjects = table["subject"].astype("object") if "subject" in table else None
    if images is not None:
        own = "image " + images.astype("str")
        subjects = own if subjects is None else subjects.where(subjects.notna(), own)
    return encode_clusters(None if subjects is None else subjects.to_numpy(object), len(table))


def _is_known(table: pd.DataFrame, column: str) -> bool:
    return column in table and bool(table[column].notna().any())


def _years(tables: Sequence[pd.DataFrame]) -> Ints:
    ages = np.concatenate([table["age"].to_numpy(float) for table in tables])
    return np.asarray(np.floor(ages).astype(np.int64))


def _strata(tables: Sequence[pd.DataFrame]) -> tuple[list[Ints], list[list[int]]]:
    """The stratum of age of each row of both tables, -1 where only one of them has images, and the strata's years."""
    sizes = [len(table) for table in tables]
    sets = Grouping("set", ("source", "target"), np.repeat([0, 1], sizes))
    strata = age_strata(_years(tables), sets, np.array([0, 1]))
    return np.split(strata.codes, [sizes[0]]), [[low, high] for low, high in strata.ranges]


def _cells(tables: Sequence[pd.DataFrame], columns: Sequence[str]) -> tuple[list[Ints], list[list[int]]]:
    """Cells of groups and wider strata of age, in which both sets have images of every group that both have enough of."""
    sizes = [len(table) for table in tables]
    groups = pd.concat([table[list(columns)] for table in tables], ignore_index=True)
    known = groups.notna().all(axis=1).to_numpy()
    numbers = groups.groupby(list(columns), observed=True).ngroup().fillna(-1)  # NaN where a group is unknown
    codes = np.where(known, numbers.to_numpy(), -1).astype(np.int64)
    count = int(codes.max(initial=-1)) + 1
    halves = [half[half >= 0] for half in np.split(codes, [sizes[0]])]
    enough = np.flatnonzero(np.minimum(*(np.bincount(half, minlength=count) for half in halves)) >= MIN_GROUP)
    if not len(enough):
        return [np.full(size, -1) for size in sizes], []
    both = np.where(codes >= 0, codes + count * np.repeat([0, 1], sizes), -1)
    grouping = Grouping("set and groups", tuple(map(str, range(2 * count))), both)
    strata = age_strata(_years(tables), grouping, np.concatenate([enough, count + enough]))
    cells = np.where(strata.codes >= 0, strata.codes * count + codes, -1)
    return np.split(cells, [sizes[0]]), [[low, high] for low, high in strata.ranges]


def _divide(
    errors: Sequence[Floats], clusters: Sequence[Ints], codes: Sequence[Ints], resamples: int, seed: int
) -> tuple[list[MetricValue], MetricValue]:
    """The parts (mix, same, outside) and the whole difference, with intervals."""
    count = int(max(code.max() for code in codes)) + 1
    samplers = [
        # Of each set the sums over cells, and over all rows last.
        ClusterBootstrap(
            np.stack([np.ones(len(error)), error], axis=1), [code, np.zeros(len(error), dtype=np.int64)], whose
        )
        for error, code, whose in zip(errors, codes, clusters, strict=True)
    ]
    fewest = min(sampler.count for sampler in samplers)
    sums = [
        sampler.replicates(
            lambda parts: _flat(parts, count),
            resamples=resamples if fewest > 1 else 0,  # one person in either set shows no spread
            seed=2 * seed + place,
        )
        for place, sampler in enumerate(samplers)
    ]
    whole = [part.value[:, None] for part in sums]
    fallback = _cell_means(whole[0], count)
    value = _parts(whole[0], whole[1], count, fallback)[:, 0]
    resampled = _parts(sums[0].resampled, sums[1].resampled, count, fallback)
    # One set's cluster is left out while the other set is whole.
    left_out = np.hstack(
        [
            _parts(sums[0].jackknife, whole[1], count, fallback),
            _parts(whole[0], sums[1].jackknife, count, fallback),
        ]
    )
    found = Replicates(value, resampled, left_out, fewest)
    low, high = bootstrap_interval(found, clusters=np.full(len(value), fewest))
    values = [metric_value(*ends) for ends in zip(value, low, high, strict=True)]
    return values[:3], values[3]


def _flat(parts: Sequence[Floats], count: int) -> Floats:
    """Sums of n and of errors of every cell and of all rows, (2 (count + 1), b)."""
    cells = np.zeros((count, *parts[0].shape[1:]))
    cells[: len(parts[0])] = parts[0]
    both = np.concatenate([cells, parts[1]])
    return both.reshape(-1, both.shape[2])


def _cell_means(sums: Floats, count: int) -> Floats:
    cells = sums.reshape(count + 1, 2, -1)
    with np.errstate(all="ignore"):
        means: Floats = cells[:count, 1] / cells[:count, 0]
    return means


def _parts(source: Floats, target: Floats, count: int, fallback: Floats) -> Floats:
    """(mix, same, outside, difference) by resample, (4, b); a cell that a resample of the source lacks keeps its observed MAE."""
    own = _cell_means(source, count)
    own = np.where(np.isfinite(own), own, fallback)
    total_s, total_t = (sums.reshape(count + 1, 2, -1)[count] for sums in (source, target))
    cells = target.reshape(count + 1, 2, -1)[:count]
    with np.errstate(all="ignore"):
        inside = cells[:, 0].sum(axis=0)
        at_target = (cells[:, 0] * own).sum(axis=0) / inside
        common = cells[:, 1].sum(axis=0) / inside
        mae_s, mae_t = total_s[1] / total_s[0], total_t[1] / total_t[0]
        parts: Floats = np.stack(
            np.broadcast_arrays(at_target - mae_s, common - at_target, mae_t - common, mae_t - mae_s)
        )
    return parts


def _shift_parts(parts: Sequence[MetricValue], codes: Ints, ages: list[list[int]], groups: list[str]) -> ShiftParts:
    mix, same, outside = parts
    return ShiftParts(mix=mix, same=same, outside=outside, groups=groups, n_outside=int((codes < 0).sum()), ages=ages)


def _recalibrate(target: pd.DataFrame, *, repeats: int = _REPEATS, seed: int = 0) -> list[Recalibration]:
    """Measure what a map from estimates to ages would mend that is fitted on labeled images of the target.

    Each repeat fits on the images of randomly drawn people and tests on a bootstrap sample of the people that remain, so that
    the interval holds the choice of both.

    Args:
        target: predictions: age, age_pred and, where known, subject.
        repeats: number of repeats.
        seed: seed of the draws.
    """
    ages, estimates = target["age"].to_numpy(float), target["age_pred"].to_numpy(float)
    clusters = _clusters(target)
    rng = np.random.default_rng([seed, 3])
    results = []
    for labeled in LABELED:
        if 2 * labeled > len(target):
            break
        maes = np.array([_one_repeat(ages, estimates, clusters, labeled, rng) for _ in range(repeats)]).T
        before, isotonic, linear = maes
        results.append(
            Recalibration(
                n=labeled,
                before=_over_repeats(before),
                isotonic=_over_repeats(isotonic),
                linear=_over_repeats(linear),
                isotonic_gain=_over_repeats(before - isotonic),
                linear_gain=_over_repeats(before - linear),
            )
        )
    return results


def _over_repeats(values: Floats) -> MetricValue:
    known = values[np.isfinite(values)]
    return metric_value(float(known.mean()), *np.quantile(known, [0.025, 0.975])) if len(known) else MetricValue()


def _one_repeat(
    ages: Floats, estimates: Floats, clusters: Ints, labeled: int, rng: np.random.Generator
) -> tuple[float, float, float]:
    """The MAEs on other people: as estimated, after an isotonic map, after a linear map."""
    order = rng.permutation(int(clusters.max()) + 1)
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    drawn = np.bincount(place[clusters], minlength=len(order)).cumsum()
    people = int(np.searchsorted(drawn, labeled)) + 1
    fit, rest = np.flatnonzero(place[clusters] < people), np.flatnonzero(place[clusters] >= people)
    if not len(rest):
        return np.nan, np.nan, np.nan
    fit = rng.permutation(fit)[:labeled]
    rest = rng.permutation(rest)[:_MOST_TESTED]
    weights = np.bincount(rng.integers(people, len(order), len(order) - people), minlength=len(order))[
        place[clusters[rest]]
    ]
    if not weights.sum():
        return np.nan, np.nan, np.nan
    maps = (
        estimates[rest],
        _isotonic(estimates[fit], ages[fit], estimates[rest]),
        _linear(estimates[fit], ages[fit], estimates[rest]),
    )
    before, isotonic, linear = (float(np.average(np.abs(mapped - ages[rest]), weights=weights)) for mapped in maps)
    return before, isotonic, linear


def _isotonic(estimates: Floats, ages: Floats, others: Floats) -> Floats:
    # Images of equal estimates get their mean age.
    distinct, place, counts = np.unique(estimates, return_inverse=True, return_counts=True)
    means = np.bincount(place, ages) / counts
    mapped: Floats = np.interp(others, distinct, isotonic_regression(means, weights=counts).x)
    return mapped


def _linear(estimates: Floats, ages: Floats, others: Floats) -> Floats:
    varies: Flags = np.ptp(estimates, keepdims=True) > 0
    slope = np.cov(estimates, ages)[0, 1] / np.var(estimates, ddof=1) if varies[0] else 0.0
    mapped: Floats = np.clip(ages.mean() + slope * (others - estimates.mean()), 0.0, None)
    return mapped
