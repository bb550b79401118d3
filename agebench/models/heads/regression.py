"""Age as one number."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from agebench.models.heads.base import AgeEstimate, Head


class RegressionHead(Head):
    """A linear unit for the age in standard deviations of the training set's ages.

    Args:
        in_features: width of the backbone's features.
        ages: decoded ages are clamped to this range.
        loss: "l1", "l2" or "huber".
        delta: where Huber's loss turns linear, in years.
        dropout: share of features dropped in training.
    """

    centre: Tensor
    scale: Tensor

    def __init__(
        self,
        in_features: int,
        ages: tuple[int, int] = (0, 100),
        *,
        loss: str = "l1",
        delta: float = 5.0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(in_features, ages)
        if loss not in ("l1", "l2", "huber"):
            raise TypeError(f"loss = {loss!r}: one of l1, l2, huber")
        self.out_features = 1
        self.kind = loss
        self.delta = delta
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(in_features, 1)
        nn.init.normal_(self.linear.weight, std=0.01)
        nn.init.zeros_(self.linear.bias)
        # Until `prepare` sees the training ages: the middle of the range, and the deviation of a uniform spread over it.
        self.register_buffer("centre", torch.tensor((ages[0] + ages[1]) / 2))
        self.register_buffer("scale", torch.tensor((ages[1] - ages[0]) / 12**0.5))

    def prepare(self, ages: Tensor) -> None:
        """Centre and scale by the training ages: the untrained head then predicts about their mean."""
        self.centre.copy_(ages.mean())
        self.scale.copy_(ages.std().clamp(min=1.0))

    def forward(self, features: Tensor) -> Tensor:
        """(B, in_features) -> (B, 1), standardised age."""
        return self.linear(self.dropout(features))  # type: ignore[no-any-return]

    def loss(self, logits: Tensor, age: Tensor) -> Tensor:
        """Mean L1, L2 or Huber loss of the standardised age."""
        predicted = logits[:, 0].to(self.centre.dtype)
        target = (age.to(predicted.dtype) - self.centre) / self.scale
        if self.kind == "l1":
            return F.l1_loss(predicted, target)
        if self.kind == "l2":
            return F.mse_loss(predicted, target)
        return F.huber_loss(predicted, target, delta=self.delta / float(self.scale))

    def decode(self, logits: Tensor) -> AgeEstimate:
        """Years, clamped to the head's range."""
        age = logits[:, 0].to(self.centre.dtype) * self.scale + self.centre
        return AgeEstimate(age.clamp(float(self.ages[0]), float(self.ages[1])), None, None)
