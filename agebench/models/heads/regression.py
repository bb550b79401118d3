"""Age as one number."""

import torch.nn.functional as F
from torch import Tensor

from agebench.models.heads._standardized import StandardizedHead
from agebench.models.heads.base import AgeEstimate


class RegressionHead(StandardizedHead):
    """A linear unit for the age in standard deviations of the training set's ages.

    Args:
        in_features: width of the backbone's features.
        ages: decoded ages are clamped to this range.
        loss: "l1", "l2" or "huber".
        delta: where Huber's loss turns linear, in years.
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
            raise TypeError(f"loss = {loss!r}: one of l1, l2, huber")
        self.kind = loss
        self.delta = delta

    def loss(self, logits: Tensor, age: Tensor) -> Tensor:
        """Mean L1, L2 or Huber loss of the standardised age."""
        predicted = logits[:, 0].to(self.centre.dtype)
        target = self.standardised(age, predicted)
        if self.kind == "l1":
            return F.l1_loss(predicted, target)
        if self.kind == "l2":
            return F.mse_loss(predicted, target)
        return F.huber_loss(predicted, target, delta=self.delta / float(self.scale))

    def decode(self, logits: Tensor) -> AgeEstimate:
        """Years, clamped to the head's range."""
        return AgeEstimate(self.years(logits[:, 0]), None, None)
