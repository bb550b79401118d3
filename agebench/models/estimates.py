"""Age estimates as NumPy arrays: the one result type of trained models, exported files and external models."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class AgeEstimates:
    """Estimated ages of N faces, in the order of the input.

    Attributes:
        age: (N,) years; float32 of trained models and exported files, float64 of external models.
        std: (N,) years, the standard deviation that the model predicts; None if it predicts none.
        probs: (N, A) one probability per whole age; None if the model predicts no distribution.
        first_age: age in years of the first column of `probs`.
        failed: (N,) bool, True where the model returned no estimate and `age` is NaN; None if every face has one.
        tasks: auxiliary target -> (N, C) float32 probabilities of the target's classes.
    """

    age: np.ndarray
    std: np.ndarray | None = None
    probs: np.ndarray | None = None
    first_age: int = 0
    failed: np.ndarray | None = None
    tasks: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.age)

    def select(self, mask: np.ndarray) -> "AgeEstimates":
        """Return the estimates of some faces, all of which have one.

        Args:
            mask: (N,) bool, True for the faces to keep; False for those that failed.
        """
        return AgeEstimates(
            self.age[mask],
            None if self.std is None else self.std[mask],
            None if self.probs is None else self.probs[mask],
            self.first_age,
            tasks={name: values[mask] for name, values in self.tasks.items()},
        )


def concat_estimates(batches: Sequence[AgeEstimates]) -> AgeEstimates:
    """Join the estimates of several batches.

    Args:
        batches: estimates of one model, in order; without batches the result has no faces.
    """
    if not batches:
        return AgeEstimates(np.zeros(0, np.float32))

    def join(parts: Sequence[np.ndarray | None]) -> np.ndarray | None:
        present = [part for part in parts if part is not None]
        return np.concatenate(present) if len(present) == len(parts) else None

    failed = None
    if any(batch.failed is not None for batch in batches):
        failed = np.concatenate(
            [np.zeros(len(batch), bool) if batch.failed is None else batch.failed for batch in batches]
        )
    return AgeEstimates(
        np.concatenate([batch.age for batch in batches]),
        join([batch.std for batch in batches]),
        join([batch.probs for batch in batches]),
        batches[0].first_age,
        failed,
        {name: np.concatenate([batch.tasks[name] for batch in batches]) for name in batches[0].tasks},
    )
