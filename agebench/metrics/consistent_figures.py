"""One number for each figure of a comparison: errors and gaps of a system are those that `agebench score` gives for its file."""

from collections.abc import Mapping, Sequence

import pandas as pd

from agebench.metrics.comparison import with_verdict
from agebench.metrics.evaluate import evaluate_seeds
from agebench.metrics.groups import scanned_groups
from agebench.metrics.paired_figures import FigureOptions
from agebench.metrics.schema import ComparisonResult, FigureDifferences, MetricValue, SystemMae

# Figures of a comparison that are overall metrics of a test set as well. CS@5 counts images without an estimate as misses, so it
# is one only where every system answered every image.
_OVERALL, _OF_ALL_IMAGES = ("mae", "bias"), "cs5"


def with_figures(
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
