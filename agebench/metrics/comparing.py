"""Compute the content of comparison.json: systems compared on one or several test sets."""

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import pandas as pd

from agebench.metrics.age_gates import Gate
from agebench.metrics.comparison import PairedErrors, align_systems, compare_systems, friedman_nemenyi, with_verdict
from agebench.metrics.evaluate import evaluate_seeds
from agebench.metrics.groups import scanned_groups
from agebench.metrics.new_datasets import FEWEST_DATASETS
from agebench.metrics.paired_figures import FigureOptions, compare_figures
from agebench.metrics.prediction_io import JoinedPredictions
from agebench.metrics.ranking import SystemErrors
from agebench.metrics.schema import (
    ComparisonFile,
    ComparisonResult,
    FigureDifferences,
    MetricValue,
    RankComparison,
    SystemMae,
    SystemRanking,
)
from agebench.metrics.shared_labels import with_shared_labels
from agebench.metrics.test_set_ranking import RankedTestSet, rank_on_test_sets

DEFAULT_GATES = (Gate(18, 25.0),)
# Two systems on one test set are a pair, not a ranking.
_FEWEST_RANKED = 3
# Systems of several seeds share what is known of the variance between trainings.
_TRAINED = "several seeds"
# Figures of a comparison that are overall metrics of a test set as well. CS@5 counts images without an estimate as misses, so it
# is one only where every system answered every image.
_OVERALL, _OF_ALL_IMAGES = ("mae", "bias"), "cs5"


def compare_on_test_sets(
    tests: Mapping[str, Mapping[str, Sequence[JoinedPredictions]]],
    options: FigureOptions,
    *,
    allow_missing: bool = False,
    held_out: Collection[str] = (),
) -> ComparisonFile:
    """Compare systems on every test set, and rank them on each and over all.

    Rankings come from the images: one bootstrap of people or images for all systems. Over several test sets systems are ranked by
    their mean ratio of the MAE to that of a constant estimate, on these test sets. Mean ranks (Friedman, Nemenyi) are added from
    five test sets on: with fewer, their critical difference is larger than what ranks can differ by. A label that one table has is
    that of the image for all systems.

    Args:
        tests: test set -> system -> predictions, one table a seed; every test set has the same systems.
        options: figures, margins and resampling.
        allow_missing: compare although some images have no estimate of some system.
        held_out: test sets that are the held-out part of some system's training set; they are ranked singly only.

    Raises:
        UserError: fewer than two systems, images that are not common, or labels that disagree.
    """
    tests = {test: with_shared_labels(systems) for test, systems in tests.items()}
    paired = {test: align_systems(_tables(systems), allow_missing=allow_missing) for test, systems in tests.items()}
    results = {test: _compare(paired[test], systems, options) for test, systems in tests.items()}
    rankings = _rank(paired, options, held_out) if options.resamples else []
    content = ComparisonFile(tests=results)
    if rankings:
        content = content.model_copy(update={"rankings": rankings})
    across = _mean_ranks({test: result for test, result in results.items() if test not in held_out})
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
    return _with_figures(result, compare_figures(tables, unanswered, options), tables, options)


def _with_figures(
    result: ComparisonResult,
    figures: FigureDifferences,
    systems: Mapping[str, Sequence[pd.DataFrame]],
    options: FigureOptions,
) -> ComparisonResult:
    """Return a comparison with all figures, each with one interval only.

    MAE, bias, CS@5 and gaps of each system have the intervals of `evaluate_seeds` on the images that every system answered, so
    that they equal those of `agebench score` for the same images, groups and seed. The difference in MAE is that of `figures`.

    Args:
        result: the comparison by MAE.
        figures: all figures and their differences.
        systems: name -> predictions, one table a seed.
        options: groups and resampling.
    """
    tables = [table for several in systems.values() for table in several]
    common = set(tables[0]["sample_id"]).intersection(*(table["sample_id"] for table in tables[1:]))
    updated: dict[str, dict[str, MetricValue]] = {}
    for name, several in systems.items():
        parts = [table[table["sample_id"].isin(common)] for table in several]
        updated[name] = figures.systems[name] | _scored(parts, figures, figures.systems[name], options)
    figures = figures.model_copy(update={"systems": updated})
    maes = {name: SystemMae(seeds=row.seeds, mae=updated[name]["mae"]) for name, row in result.systems.items()}
    pairs = []
    for pair, differences in zip(result.pairs, figures.differences, strict=True):
        mae = differences["mae"]
        changes = {"difference": mae.difference, "p": mae.p, "shown": mae.shown}
        pairs.append(with_verdict(pair.model_copy(update=changes), mae.p_holm, result.n))
    return result.model_copy(update={"systems": maes, "pairs": pairs, "figures": figures})


def _scored(
    tables: Sequence[pd.DataFrame],
    figures: FigureDifferences,
    values: Mapping[str, MetricValue],
    options: FigureOptions,
) -> dict[str, MetricValue]:
    """MAE, bias and gaps of one system, keyed as in `values`."""
    entry = evaluate_seeds(
        tables,
        groups=scanned_groups(tables[0]) if options.groups is None else options.groups,
        resamples=options.resamples,
        seed=options.seed,
        interval=options.interval,
        minimum=options.minimum,
        tests=False,
    )
    keys = (*_OVERALL, _OF_ALL_IMAGES) if figures.n == figures.n_common else _OVERALL
    scored = {key: entry.overall[key] for key in keys}
    for name, at_equal_ages in figures.groups_at_equal_ages.items():
        gap = entry.gaps.get(name)
        part = None if gap is None else gap.age_standardized if at_equal_ages else gap
        if part is not None and f"gap({name})" in values:
            scored[f"gap({name})"] = part.difference
    return scored


def _rank(paired: Mapping[str, PairedErrors], options: FigureOptions, held_out: Collection[str]) -> list[SystemRanking]:
    """One ranking for each test set of three systems or more, then one over all that no system was trained on.

    Test sets of one age are not among these: no MAE has a ratio to that of a constant estimate there.
    """
    sets = [_ranked_set(name, errors, held_out=name in held_out) for name, errors in paired.items()]
    groups = [[one] for one in sets if len(one.systems) >= _FEWEST_RANKED]
    away = [one for one in sets if not one.held_out and one.has_baseline]
    groups += [away] if len(away) > 1 else []
    return [rank_on_test_sets(group, resamples=options.resamples, seed=options.seed) for group in groups]


def _ranked_set(name: str, paired: PairedErrors, *, held_out: bool) -> RankedTestSet:
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
    return RankedTestSet(name, held_out, systems, paired.ages, paired.clusters, paired.subjects)


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
