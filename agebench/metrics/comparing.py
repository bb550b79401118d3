"""Compute the content of comparison.json: systems compared on one or several test sets."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from agebench.metrics.age_gates import Gate
from agebench.metrics.comparison import PairedErrors, align_systems, compare_systems, friedman_nemenyi
from agebench.metrics.consistent_figures import with_figures
from agebench.metrics.new_datasets import FEWEST_DATASETS
from agebench.metrics.paired_figures import FigureOptions, compare_figures
from agebench.metrics.prediction_io import JoinedPredictions
from agebench.metrics.ranking import SystemErrors
from agebench.metrics.schema import ComparisonFile, ComparisonResult, RankComparison, SystemRanking
from agebench.metrics.test_set_ranking import RankedTestSet, rank_on_test_sets

DEFAULT_GATES = (Gate(18, 25.0),)
# Two systems on one test set are a pair, not a ranking.
_FEWEST_RANKED = 3
# Systems of several seeds share what is known of the variance between trainings.
_TRAINED = "several seeds"


def compare_on_test_sets(
    tests: Mapping[str, Mapping[str, Sequence[JoinedPredictions]]],
    options: FigureOptions,
    *,
    allow_missing: bool = False,
) -> ComparisonFile:
    """Compare systems on every test set, and rank them on each and over all.

    Rankings come from the images: one bootstrap of people or images for all systems. Over several test sets systems are ranked by
    their mean ratio of the MAE to that of a constant estimate, on these test sets. Mean ranks (Friedman, Nemenyi) are added from
    five test sets on: with fewer, their critical difference is larger than what ranks can differ by.

    Args:
        tests: test set -> system -> predictions, one table a seed; every test set has the same systems.
        options: figures, margins and resampling.
        allow_missing: compare although some images have no estimate of some system.

    Raises:
        UserError: fewer than two systems, images that are not common, or labels that disagree.
    """
    paired = {test: align_systems(_tables(systems), allow_missing=allow_missing) for test, systems in tests.items()}
    results = {test: _compare(paired[test], systems, options) for test, systems in tests.items()}
    rankings = _rank(paired, options) if options.resamples else []
    content = ComparisonFile(tests=results)
    if rankings:
        content = content.model_copy(update={"rankings": rankings})
    across = _mean_ranks(results)
    return content if across is None else content.model_copy(update={"across": across})


def _tables(systems: Mapping[str, Sequence[JoinedPredictions]]) -> dict[str, list[pd.DataFrame]]:
    return {name: [joined.table for joined in several] for name, several in systems.items()}


def _compare(
    paired: PairedErrors, systems: Mapping[str, Sequence[JoinedPredictions]], options: FigureOptions
) -> ComparisonResult:
    result = compare_systems(paired, resamples=options.resamples, seed=options.seed, interval=options.interval)
    unanswered = {
        name: pd.concat([joined.unanswered for joined in several if joined.unanswered is not None])
        for name, several in systems.items()
        if any(joined.unanswered is not None for joined in several)
    }
    tables = _tables(systems)
    return with_figures(result, compare_figures(tables, unanswered, options), tables, options)


def _rank(paired: Mapping[str, PairedErrors], options: FigureOptions) -> list[SystemRanking]:
    """One ranking for each test set of three systems or more, then one over all test sets."""
    sets = [_ranked_set(name, errors) for name, errors in paired.items()]
    groups = [[one] for one in sets if len(one.systems) >= _FEWEST_RANKED]
    groups += [sets] if len(sets) > 1 else []
    return [rank_on_test_sets(group, resamples=options.resamples, seed=options.seed) for group in groups]


def _ranked_set(name: str, paired: PairedErrors) -> RankedTestSet:
    images = np.arange(len(paired.ages))
    systems = tuple(
        SystemErrors(
            system,
            _TRAINED if len(errors) > 1 else None,
            # Which seeds of two systems share a split is not known: no effect is taken to be common to them.
            tuple((system, seed) for seed in range(len(errors))),
            (images,) * len(errors),
            tuple(errors),
        )
        for system, errors in zip(paired.names, paired.errors, strict=True)
    )
    return RankedTestSet(name, False, systems, paired.ages, paired.clusters, paired.subjects)


def _mean_ranks(results: Mapping[str, ComparisonResult]) -> RankComparison | None:
    """Mean ranks over test sets; None for fewer than five test sets or three systems."""
    if len(results) < FEWEST_DATASETS or len(next(iter(results.values())).systems) < _FEWEST_RANKED:
        return None
    return friedman_nemenyi(
        {
            test: {
                name: np.nan if system.mae.value is None else system.mae.value
                for name, system in result.systems.items()
            }
            for test, result in results.items()
        }
    )
