"""What lower precision costs, and how much of it is too much."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from agebench.errors import AgebenchError
from agebench.estimators.exported.base import ExportedFile
from agebench.metrics.comparison import align_systems, compare_systems


class AccuracyCheckFailed(AgebenchError):
    """A file that answers too differently from its model."""


@dataclass(frozen=True)
class CheckSubset:
    """A test set of the run.

    Attributes:
        faces: (n, S, S, 3) uint8: all of it, or some.
        predictions: n rows in the faces' order: what the run's model said (`age_pred`), `sample_id`, `age`, `subject`.
        mae: the run's figure, on all of it: value, low, high; years.
    """

    faces: np.ndarray
    predictions: pd.DataFrame
    mae: Mapping[str, float]


def check_accuracy(
    file: ExportedFile, tests: Mapping[str, CheckSubset], *, resamples: int = 1000, seed: int = 0
) -> dict[str, Any]:
    """MAE of the file and of the model on the same images: `accuracy` for the card, by test set.

    A file is good enough if on every test set the whole paired 95 % interval of its change in MAE lies within the 95 % interval
    of the run's MAE, as distances from that MAE: then the change is smaller than what is not known about the MAE anyway. Fewer
    faces widen the first interval and leave the second as it is, so that they make no file look better.

    Raises:
        Refused: it is not.
    """
    found = {name: _compared(file, tested, resamples, seed) for name, tested in tests.items()}
    for name, entry in found.items():
        change, (low, high) = entry["change"], entry["allowed"]
        if not (low <= change["low"] and change["high"] <= high):
            raise AccuracyCheckFailed(
                f"MAE on {name} changes by {change['value']:+.3f} years [{change['low']:+.3f}, {change['high']:+.3f}]; the "
                f"interval of the run's MAE, {tests[name].mae['value']:.2f}, allows {low:+.3f} to {high:+.3f}"
            )
    return {"accuracy": found}


def _compared(file: ExportedFile, tested: CheckSubset, resamples: int, seed: int) -> dict[str, Any]:
    answered = tested.predictions.assign(age_pred=file.estimate(tested.faces).age.astype(np.float64))
    paired = align_systems({"file": [answered], "model": [tested.predictions]})
    result = compare_systems(paired, resamples=resamples, seed=seed)
    mae = tested.mae
    return {
        "n": result["n"],
        "subjects": result["subjects"],
        "model": result["systems"]["model"]["mae"],
        "file": result["systems"]["file"]["mae"],
        "change": result["pairs"][0]["difference"],
        "allowed": [mae["low"] - mae["value"], mae["high"] - mae["value"]],
    }
