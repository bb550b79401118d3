"""Regression of the age."""

import torch.nn.functional as F
from torch import Tensor

from agebench.models.heads._standardized import StandardizedHead
from agebench.models.heads.base import AgeEstimate


class RegressionHead(StandardizedHead):
    """A linear unit that predicts the age in standard deviations of the training ages.

    Args:
        in_features: width of the backbone's features.
        ages: decoded ages are clamped to this range.
        loss: "l1", "l2" or "huber".
        delta: the error above which Huber's loss is linear, years.
        dropout: share of features dropped in training.
    """

    def __init__(
        self,
        in_features: int,
        ages: tuple[int, int] = (0, 100),
        *,
        loss: str = "l1",
        delta: float = 5.0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(in_features, 1, ages, dropout)
        if loss not in ("l1", "l2", "huber"):
            raise TypeError(f"loss = {loss!r}: must be l1, l2 or huber")
        self.kind = loss
        self.delta = delta

    def loss(self, logits: Tensor, age: Tensor) -> Tensor:
        """Return the mean L1, L2 or Huber loss of the standardized age.

        Args:
            logits: (B, 1), from `forward`.
            age: (B,) float years.
        """
        predicted = logits[:, 0].to(self.centre.dtype)
        target = self.standardize(age, predicted)
        if self.kind == "l1":
            return F.l1_loss(predicted, target)
        if self.kind == "l2":
            return F.mse_loss(predicted, target)
        return F.huber_loss(predicted, target, delta=self.delta / float(self.scale))

    def decode(self, logits: Tensor) -> AgeEstimate:
        """Return ages in years, clamped to the head's range, for logits (B, 1)."""
        return AgeEstimate(self.to_years(logits[:, 0]), None, None)
