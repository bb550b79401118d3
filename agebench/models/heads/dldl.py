"""Deep label distribution learning: an age is a normal distribution over ages."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from agebench.models.heads.distribution import FAINTEST, DistributionHead


class DLDLHead(DistributionHead):
    """KL divergence from a normal label distribution.

    Gao, Xing, Xie, Wu, Geng: Deep Label Distribution Learning with Label Ambiguity. IEEE TIP 2017, eq. 1 and 5.

    Args:
        in_features: width of the backbone's features.
        ages: first and last age.
        sigma: standard deviation of the label distribution, years; the paper's 2 where a dataset states none.
        options: see `DistributionHead`.
    """

    def __init__(
        self, in_features: int, ages: tuple[int, int] = (0, 100), *, sigma: float = 2.0, **options: Any
    ) -> None:
        super().__init__(in_features, ages, **options)
        if not sigma > 0:
            raise TypeError(f"sigma = {sigma}: must be positive")
        self.sigma = sigma

    def loss(self, logits: Tensor, age: Tensor) -> Tensor:
        """Mean KL divergence."""
        return self.divergence(self.wide(logits).log_softmax(dim=1), age)

    def divergence(self, log_probs: Tensor, age: Tensor) -> Tensor:
        """Mean KL divergence from the ages' label distributions: normal densities at the whole ages, summing to 1."""
        grid = self.grid.to(log_probs.dtype)
        scaled = (grid[None, :] - self.inside(age).to(grid.dtype)[:, None]) / self.sigma
        label = (-0.5 * scaled**2).clamp(min=FAINTEST).log_softmax(dim=1)
        return F.kl_div(log_probs, label, reduction="batchmean", log_target=True)


class DLDLv2Head(DLDLHead):
    """DLDL and the expectation's absolute error.

    Gao, Zhou, Wu, Geng: Age Estimation Using Expectation of Label Distribution Learning. IJCAI 2018, eq. 8 to 10.

    Args:
        in_features: width of the backbone's features.
        ages: first and last age.
        weight: lambda, of the absolute error in years; the paper's 1.
        options: `sigma`, and see `DistributionHead`.
    """

    def __init__(
        self, in_features: int, ages: tuple[int, int] = (0, 100), *, weight: float = 1.0, **options: Any
    ) -> None:
        super().__init__(in_features, ages, **options)
        self.weight = weight

    def loss(self, logits: Tensor, age: Tensor) -> Tensor:
        """Mean KL divergence + weight * mean |expectation - age|."""
        log_probs = self.wide(logits).log_softmax(dim=1)
        error = (self.moments(log_probs.exp())[0] - self.inside(age).to(log_probs.dtype)).abs().mean()
        return self.divergence(log_probs, age) + self.weight * error
