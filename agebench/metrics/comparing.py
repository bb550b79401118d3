"""Compute the entry of comparison.json for several systems on one test set."""

from collections.abc import Mapping, Sequence

import pandas as pd

from agebench.metrics.age_gates import Gate
from agebench.metrics.comparison import align_systems, compare_systems
from agebench.metrics.consistent_figures import with_figures
from agebench.metrics.paired_figures import FigureOptions, compare_figures
from agebench.metrics.prediction_io import JoinedPredictions
from agebench.metrics.schema import ComparisonResult

DEFAULT_GATES = (Gate(18, 25.0),)


def compare_predictions(
    systems: Mapping[str, Sequence[JoinedPredictions]], options: FigureOptions, *, allow_missing: bool = False
) -> ComparisonResult:
    """Compare systems on the same images by MAE and by all other figures.

    Args:
        systems: name -> predictions, one table a seed.
        options: figures, margins and resampling.
        allow_missing: compare although some images have no estimate of some system.

    Raises:
        UserError: fewer than two systems, images that are not common, or labels that disagree.
    """
    tables = {name: [joined.table for joined in several] for name, several in systems.items()}
    paired = align_systems(tables, allow_missing=allow_missing)
    result = compare_systems(paired, resamples=options.resamples, seed=options.seed, interval=options.interval)
    unanswered = {
        name: pd.concat([joined.unanswered for joined in several if joined.unanswered is not None])
        for name, several in systems.items()
        if any(joined.unanswered is not None for joined in several)
    }
    return with_figures(result, compare_figures(tables, unanswered, options), tables, options)
