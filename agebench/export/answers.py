"""What a model says about faces, whatever it is made of."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Answers:
    """About N faces.

    Attributes:
        age: (N,) float32 years.
        std: (N,) years, the standard deviation that the model itself states, or None.
        probs: (N, A), one probability for each whole age of the head, or None.
    """

    age: np.ndarray
    std: np.ndarray | None = None
    probs: np.ndarray | None = None
