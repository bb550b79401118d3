"""Comparison of an estimator's errors with those of a run's model, on the faces that the run was tested on."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pandas as pd

from agebench.errors import AgebenchError
from agebench.estimators.base import AgeEstimates
from agebench.estimators.exported.card import AccuracyComparison
from agebench.metrics.comparison import align_systems, compare_systems
from agebench.metrics.schema import MetricValue


class AccuracyCheckFailed(AgebenchError):
    """An exported file whose estimates differ too much from those of its model."""


class Estimates(Protocol):
    """Anything that estimates the ages of faces: an exported file, or any other estimator."""

    def estimate(self, images: np.ndarray) -> AgeEstimates:
        """Estimate the ages of N faces.

        Args:
            images: (N, S, S, 3) uint8 RGB.
        """


@dataclass(frozen=True)
class CheckSubset:
    """All or some faces of a test set of the run.

    Attributes:
        faces: (n, S, S, 3) uint8 RGB.
        predictions: n rows in the order of `faces`: the model's `age_pred`, `sample_id`, `age`, `subject`.
        mae: the run's MAE on the whole test set, with its interval, years.
    """

    faces: np.ndarray
    predictions: pd.DataFrame
    mae: MetricValue

    def select(self, mask: np.ndarray) -> "CheckSubset":
        """Return some of the faces, with the run's MAE on the whole test set as before.

        Args:
            mask: (n,) bool, True for the faces to keep.
        """
        return CheckSubset(self.faces[mask], self.predictions[mask].reset_index(drop=True), self.mae)


def check_accuracy(
    file: Estimates, tests: Mapping[str, CheckSubset], *, resamples: int = 1000, seed: int = 0
) -> dict[str, AccuracyComparison]:
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
        Name of a test set -> comparison, for the entry `accuracy` of the card.

    Raises:
        AccuracyCheckFailed: the file does not pass.
    """
    comparisons = {}
    for name, subset in tests.items():
        ages = file.estimate(subset.faces).age
        if not np.isfinite(ages).all():
            raise AccuracyCheckFailed(f"it returns ages that are no numbers, on {name}")
        comparisons[name] = compare_accuracy(subset, ages, resamples=resamples, seed=seed)
    for name, comparison in comparisons.items():
        if not comparison.is_within:
            change, (low, high) = comparison.change, comparison.allowed
            if not change.has_interval:
                raise AccuracyCheckFailed(
                    f"its change of the MAE on {name} has no interval: the {comparison.n:,} images that were compared are of one "
                    "person"
                )
            raise AccuracyCheckFailed(
                f"MAE on {name} changes by {change.value:+.3f} years [{change.ci_low:+.3f}, {change.ci_high:+.3f}]; the "
                f"interval of the run's MAE, {tests[name].mae.value:.2f}, allows {low:+.3f} to {high:+.3f}"
            )
    return comparisons


def compare_accuracy(
    subset: CheckSubset, ages: np.ndarray, *, resamples: int = 1000, seed: int = 0
) -> AccuracyComparison:
    """Compare ages with the model's predictions for the same faces.

    Args:
        subset: the faces and the model's predictions.
        ages: (n,) estimated ages, years.
        resamples: bootstrap resamples of the paired intervals.
        seed: seed of the bootstrap.
    """
    predictions = subset.predictions.assign(age_pred=ages.astype(np.float64))
    paired = align_systems({"file": [predictions], "model": [subset.predictions]})
    result = compare_systems(paired, resamples=resamples, seed=seed)
    mae = subset.mae
    assert mae.value is not None  # the caller checked that there is an interval
    assert mae.ci_low is not None
    assert mae.ci_high is not None
    return AccuracyComparison(
        n=result.n,
        subjects=result.subjects,
        model=result.systems["model"].mae,
        file=result.systems["file"].mae,
        change=result.pairs[0].difference,
        allowed=[mae.ci_low - mae.value, mae.ci_high - mae.value],
    )
