"""Rankings of systems on one test set, by MAE, or over several, by the mean ratio of the MAE to that of a constant estimate."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from agebench.metrics.bootstrap import Floats, Ints
from agebench.metrics.confidence_intervals import CONFIDENCE_LEVEL, metric_value
from agebench.metrics.new_datasets import FEWEST_DATASETS, claim_about_new_datasets
from agebench.metrics.ranking import (
    RESAMPLES,
    Layout,
    MaeReplicates,
    RankingEstimate,
    SystemErrors,
    rank,
    resample_maes,
)
from agebench.metrics.schema import NewDatasetClaim, RankedSystem, SystemRanking

_DIGITS = 4
# A resampled baseline below this share of the observed one is 0 but for rounding.
_LEAST_SHARE = 1e-3


@dataclass(frozen=True)
class RankedTestSet:
    """The errors of several systems on one test set.

    Attributes:
        name: the test set's name.
        held_out: whether it is the held-out part of some system's own training set.
        systems: their errors, in the same order for every test set of a ranking.
        ages: (N,) true ages of the test set's images, years.
        clusters: (N,) the person on each image, or the image itself: 0, 1, …
        people: whether the clusters are people.
    """

    name: str
    held_out: bool
    systems: tuple[SystemErrors, ...]
    ages: Floats
    clusters: Ints
    people: bool

    @property
    def tested(self) -> Ints:
        """The images that some system was tested on."""
        tested: Ints = np.unique(np.concatenate([part for system in self.systems for part in system.images]))
        return tested

    @property
    def constant_errors(self) -> Floats:
        """Errors (N,) of always answering the median age of the tested images, years."""
        errors: Floats = np.abs(self.ages - np.median(self.ages[self.tested]))
        return errors

    @property
    def has_baseline(self) -> bool:
        """Return whether a constant answer errs on the images of every seed; where all have one age, it does not."""
        errors = self.constant_errors
        return all(errors[part].any() for system in self.systems for part in system.images)


def rank_on_test_sets(
    tests: Sequence[RankedTestSet],
    *,
    runs: Sequence[Sequence[str]] = (),
    inputs: str = "",
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> SystemRanking:
    """Rank systems that were all tested on the same test sets.

    Args:
        tests: the test sets, each with the same systems; of several, each with a baseline.
        runs: ids of each system's records, if there are any.
        inputs: digest of what the ranking is computed from.
        resamples: number of bootstrap resamples.
        seed: seed of the resampling.
    """
    replicates = [
        _test_replicates(test, relative=len(tests) > 1, resamples=resamples, seed=seed + place)
        for place, test in enumerate(tests)
    ]
    layout = Layout.of(tests[0].systems)
    pooled = MaeReplicates(
        np.mean([one.values for one in replicates], axis=0),
        np.mean([one.deviations for one in replicates], axis=0),
        min(one.clusters for one in replicates),
    )
    estimate = rank(layout, pooled, seed=seed)
    away = [one for one, test in zip(replicates, tests, strict=True) if not test.held_out]
    claims = _claims(layout, away) if len(away) >= FEWEST_DATASETS else [None] * len(layout.names)
    images = [test.tested for test in tests]
    people = [
        len(np.unique(test.clusters[part])) if test.people else None for test, part in zip(tests, images, strict=True)
    ]
    systems = _ranked_systems(estimate, layout, runs or [()] * len(layout.names), claims)
    return SystemRanking(
        inputs=inputs,
        tests=[test.name for test in tests],
        held_out=[test.held_out for test in tests],
        images=[len(part) for part in images],
        people=people,
        resamples=resamples,
        critical=round(estimate.critical, _DIGITS),
        systems=systems,
        differences=_differences(estimate),
        single_runs=estimate.unknown_seeds,
    )


def _test_replicates(test: RankedTestSet, *, relative: bool, resamples: int, seed: int) -> MaeReplicates:
    """MAEs of one test set, or their ratios to the MAE of always answering the median age of the images."""
    if not relative:
        return resample_maes(test.systems, test.clusters, resamples=resamples, seed=seed)
    parts = [part for system in test.systems for part in system.images]
    constant = test.constant_errors
    distinct = {part.tobytes(): part for part in parts}
    baseline = SystemErrors(
        "",
        None,
        tuple(range(len(distinct))),
        tuple(distinct.values()),
        tuple(constant[part] for part in distinct.values()),
    )
    both = resample_maes([*test.systems, baseline], test.clusters, resamples=resamples, seed=seed)
    column = {key: len(parts) + index for index, key in enumerate(distinct)}
    floors = np.array([column[part.tobytes()] for part in parts])
    values = both.values[: len(parts)] / both.values[floors]
    moved_floors = both.values[floors, None] + both.deviations[floors]
    # A resample of images of one age has no ratio; as one without images does, it keeps the observed figure.
    has_ratio = moved_floors > _LEAST_SHARE * both.values[floors, None]
    moved = (both.values[: len(parts), None] + both.deviations[: len(parts)]) / np.where(has_ratio, moved_floors, 1.0)
    return MaeReplicates(values, np.where(has_ratio, moved - values[:, None], 0.0), both.clusters)


def _claims(layout: Layout, replicates: Sequence[MaeReplicates]) -> list[NewDatasetClaim | None]:
    """Estimate each system's ratio on new datasets from the datasets that it was not trained on."""
    singles = [rank(layout, one) for one in replicates]
    ratios = np.array([one.values for one in singles])
    quantile = float(special.ndtri((1 + CONFIDENCE_LEVEL) / 2))
    errors = np.array([one.halves for one in singles]) / quantile / ratios
    return [
        claim_about_new_datasets(ratios[:, place].tolist(), errors[:, place].tolist())
        for place in range(ratios.shape[1])
    ]


def _ranked_systems(
    estimate: RankingEstimate,
    layout: Layout,
    runs: Sequence[Sequence[str]],
    claims: Sequence[NewDatasetClaim | None],
) -> list[RankedSystem]:
    return [
        RankedSystem(
            name=layout.names[place],
            train=layout.trainings[place],
            runs=list(runs[place]),
            value=metric_value(*_rounded(estimate.values[place], estimate.halves[place])),
            rank_low=int(estimate.rank_low[place]),
            rank_high=int(estimate.rank_high[place]),
            unusual_seeds=bool(estimate.unusual[place]),
            new_datasets=claims[place],
        )
        for place in _order(estimate)
    ]


def _differences(estimate: RankingEstimate) -> list[list[float]]:
    order = _order(estimate)
    return [
        [float(first), float(second), *_rounded(estimate.differences[j, i], estimate.pair_halves[j, i])]
        for first, i in enumerate(order)
        for second, j in enumerate(order)
        if first < second
    ]


def _order(estimate: RankingEstimate) -> Ints:
    return np.argsort(estimate.values, kind="stable")


def _rounded(value: float, half: float) -> list[float]:
    return [round(float(end), _DIGITS) for end in (value, value - half, value + half)]
