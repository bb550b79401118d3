"""What a model says about faces, as arrays: one shape for run folders, exported files and external models."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class AgeEstimates:
    """Of N faces.

    Attributes:
        age: (N,) float32 years.
        std: (N,) float32 years, the standard deviation that the model itself states, or None.
        probs: (N, A) float32, one probability for each whole age of the head (`card["output"]["ages"]`), or None.
    """

    age: np.ndarray
    std: np.ndarray | None = None
    probs: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.age)
