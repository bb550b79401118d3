"""Accuracy check of exported files in lower precision."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from agebench.errors import AgebenchError
from agebench.estimators.exported.base import ExportedFile
from agebench.metrics.comparison import align_systems, compare_systems


class AccuracyCheckFailed(AgebenchError):
    """An exported file whose estimates differ too much from those of its model."""


@dataclass(frozen=True)
class CheckSubset:
    """All or some faces of a test set of the run.

    Attributes:
        faces: (n, S, S, 3) uint8 RGB.
        predictions: n rows in the order of `faces`: the model's `age_pred`, `sample_id`, `age`, `subject`.
        mae: the run's MAE on the whole test set: value, ci_low, ci_high; years.
    """

    faces: np.ndarray
    predictions: pd.DataFrame
    mae: Mapping[str, float]


def check_accuracy(
    file: ExportedFile, tests: Mapping[str, CheckSubset], *, resamples: int = 1000, seed: int = 0
) -> dict[str, Any]:
    """Compare the MAE of a file with that of its model on the same images.

    A file passes if on every test set the paired 95 % interval of its change in MAE lies within the 95 % interval of the
    run's MAE, as distances from that MAE: the change is then smaller than the uncertainty of the MAE. Fewer faces widen
    the first interval only, so that they cannot make a file pass.

    Args:
        file: the opened file.
        tests: name of a test set -> its faces and predictions.
        resamples: bootstrap resamples of the paired intervals.
        seed: seed of the bootstrap.

    Returns:
        The entry `accuracy` of the card, by test set.

    Raises:
        AccuracyCheckFailed: the file does not pass.
    """
    accuracy = {name: _compare(file, subset, resamples, seed) for name, subset in tests.items()}
    for name, entry in accuracy.items():
        change, (low, high) = entry["change"], entry["allowed"]
        if not (low <= change["ci_low"] and change["ci_high"] <= high):
            raise AccuracyCheckFailed(
                f"MAE on {name} changes by {change['value']:+.3f} years [{change['ci_low']:+.3f}, {change['ci_high']:+.3f}]; the "
                f"interval of the run's MAE, {tests[name].mae['value']:.2f}, allows {low:+.3f} to {high:+.3f}"
            )
    return {"accuracy": accuracy}


def _compare(file: ExportedFile, subset: CheckSubset, resamples: int, seed: int) -> dict[str, Any]:
    predictions = subset.predictions.assign(age_pred=file.estimate(subset.faces).age.astype(np.float64))
    paired = align_systems({"file": [predictions], "model": [subset.predictions]})
    result = compare_systems(paired, resamples=resamples, seed=seed)
    mae = subset.mae
    return {
        "n": result.n,
        "subjects": result.subjects,
        "model": result.systems["model"].mae.to_json(),
        "file": result.systems["file"].mae.to_json(),
        "change": result.pairs[0].difference.to_json(),
        "allowed": [mae["ci_low"] - mae["value"], mae["ci_high"] - mae["value"]],
    }
