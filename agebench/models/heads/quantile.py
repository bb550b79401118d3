"""Quantile regression."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from agebench.models.heads._standardized import StandardizedHead
from agebench.models.heads.base import AgeEstimate


class QuantileHead(StandardizedHead):
    """Pinball loss at several quantiles, which cannot cross.

    Neighboring quantiles differ by a positive step.

    The outputs are the standardized median, and the outward steps before softplus makes them positive.

    Koenker & Bassett: Regression Quantiles. Econometrica 1978, eq. 3.1.

    Args:
        in_features: width of the backbone's features.
        ages: decoded ages are clamped to this range.
        quantiles: increasing, between 0 and 1. They must contain 0.5, the median, which is the decoded age.
        dropout: share of features dropped in training.

    Raises:
        TypeError: the quantiles do not increase, or do not contain 0.5.
    """

    levels: Tensor
    steps: Tensor

    def __init__(
        self,
        in_features: int,
        ages: tuple[int, int] = (0, 100),
        *,
        quantiles: Sequence[float] = (0.05, 0.25, 0.5, 0.75, 0.95),
        dropout: float = 0.0,
    ) -> None:
        levels = list(quantiles)
        if levels != sorted(set(levels)) or not levels or not 0 < levels[0] <= levels[-1] < 1 or 0.5 not in levels:
            raise TypeError(f"quantiles = {levels}: must increase from above 0 to below 1 and contain 0.5")
        super().__init__(in_features, len(levels), ages, dropout)
        self.middle = levels.index(0.5)
        self.register_buffer("levels", torch.tensor(levels), persistent=False)
        # (Q, Q): the steps between the median and each quantile; those of lower quantiles are negative.
        up = torch.ones(len(levels), len(levels)).triu()
        up[: self.middle + 1] = 0
        down = torch.ones(len(levels), len(levels)).tril()
        down[self.middle :] = 0
        self.register_buffer("steps", up - down, persistent=False)

    def curve(self, logits: Tensor) -> Tensor:
        """Return the increasing, standardized quantiles (B, Q) for logits (B, Q)."""
        middle = logits[:, self.middle : self.middle + 1]
        # A sum instead of a matrix product, which autocast would round.
        return middle + (F.softplus(logits)[:, :, None] * self.steps.to(logits.dtype)).sum(dim=1)

    def loss(self, logits: Tensor, age: Tensor) -> Tensor:
        """Return the pinball loss of standardized ages, averaged over batch and quantiles.

        Args:
            logits: (B, Q), from `forward`.
            age: (B,) float years.
        """
        logits = self.upcast(logits)
        error = self.standardize(age, logits)[:, None] - self.curve(logits)
        return (self.levels.to(logits.dtype) * error + (-error).relu()).mean()

    def decode(self, logits: Tensor) -> AgeEstimate:
        """Return the medians, years, for logits (B, Q)."""
        return AgeEstimate(self.to_years(logits[:, self.middle]), None, None)
