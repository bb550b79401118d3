"""Unimodal-concentrated loss."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from agebench.models.heads.distribution import DistributionHead
from agebench.models.heads.softmax_loss import Moments, Rows

# Years squared: a distribution that is one single age would have no variance to divide by.
VARIANCE_FLOOR = 1e-3


class UnimodalHead(DistributionHead):
    """Concentrated about the age, falling on both sides of it.

    Concentration is the normal negative log-likelihood of the age under the distribution's own mean and variance;
    unimodality punishes every step between neighbouring ages that goes the wrong way. Li et al.: Unimodal-Concentrated
    Loss. CVPR 2022. The authors' code is not public. The paper weighs unimodality by 1000; with that, a short training
    finds no way out of the flat distribution (64 faces are not learned in 150 epochs). The default is 10, as in the
    re-implementation published with Paplham & Franc's benchmark (CVPR 2024).

    Args:
        in_features: width of the backbone's features.
        ages: first and last age.
        weight: of unimodality; the paper's is 1000.
        options: see `DistributionHead`.
    """

    def __init__(
        self, in_features: int, ages: tuple[int, int] = (0, 100), *, weight: float = 10.0, **options: Any
    ) -> None:
        super().__init__(in_features, ages, **options)
        self.weight = weight

    def rows(self, log_probs: Tensor, probs: Tensor, age: Tensor) -> Rows:
        """Concentration + weight * unimodality."""
        moments = Moments(probs, self.grid)
        error, variance = moments.mean - age, moments.variance() + VARIANCE_FLOOR
        by_mean = error / variance
        # From j to j + 1 the probability must rise where j + 1/2 lies below the age, and fall above it.
        falls = (self.grid[:-1].to(probs.dtype) + 0.5 - age[:, None]).sign_()
        wrong = (falls * probs.diff(dim=1)).relu_()
        steps = falls.mul_(wrong.sign()).mul_(self.weight)
        slope = F.pad(steps, (1, 0)).sub_(F.pad(steps, (0, 1))).mul_(probs)
        moments.add_slope(slope, by_mean, ((1 - error * by_mean) / (2 * variance))[:, None])
        return Rows(error * by_mean / 2 + variance.log() / 2 + self.weight * wrong.sum(dim=1), slope)
