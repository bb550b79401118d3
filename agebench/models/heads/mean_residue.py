"""Adaptive mean-residue loss."""

from typing import Any

import torch
from torch import Tensor

from agebench.models.heads.distribution import DistributionHead

# Keeps the logarithm finite; the official code's constant.
EPSILON = 1e-3


class MeanResidueHead(DistributionHead):
    """CE + mean_weight * (mean - age)^2 / 2 + residue_weight * entropy of the residue.

    The residue holds the probabilities that lie below the true age's own; K, the number of ages left out of it, adapts to each face
    and is logged. The sum runs over all ages: those left out add the constant -EPSILON log(EPSILON) each.

    Zhao et al.: Adaptive Mean-Residue Loss for Robust Facial Age Estimation. ICME 2022; formulas as in the official code, weights
    as published for ResNet.

    Args:
        in_features: width of the backbone's features.
        ages: first and last age.
        mean_weight: lambda 1.
        residue_weight: lambda 2.
        options: see `DistributionHead`.
    """

    def __init__(
        self,
        in_features: int,
        ages: tuple[int, int] = (0, 100),
        *,
        mean_weight: float = 0.2,
        residue_weight: float = 0.05,
        **options: Any,
    ) -> None:
        super().__init__(in_features, ages, **options)
        self.mean_weight, self.residue_weight = mean_weight, residue_weight

    def loss(self, logits: Tensor, age: Tensor) -> Tensor:
        """The three terms, each a mean over the batch."""
        log_probs = self.wide(logits).log_softmax(dim=1)
        probs = log_probs.exp()
        error = (self.moments(probs)[0] - self.inside(age).to(probs.dtype)) ** 2 / 2
        outside = probs * self._in_residue(probs, age) + EPSILON
        residue: Tensor = torch.special.entr(outside).sum(dim=1)
        return (
            self.cross_entropy(log_probs, age) + self.mean_weight * error.mean() + self.residue_weight * residue.mean()
        )

    def metrics(self, logits: Tensor, age: Tensor) -> dict[str, Tensor]:
        """The mean K."""
        residue = self._in_residue(self.wide(logits).softmax(dim=1), age)
        return {"k": (~residue).sum(dim=1).float().mean()}

    def _in_residue(self, probs: Tensor, age: Tensor) -> Tensor:
        """(B, A) which ages are less probable than the true one (the nearest whole age)."""
        true = (self.inside(age).round() - self.ages[0]).long()
        return probs < probs.gather(1, true[:, None])
