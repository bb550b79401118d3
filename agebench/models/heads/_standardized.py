"""What the heads share that speak of the age as a number, in standard deviations of the training ages."""

import torch
from torch import Tensor, nn

from agebench.models.heads.base import Head


class StandardizedHead(Head):
    """A linear layer whose outputs are standardised ages, or what belongs to them.

    Args:
        in_features: width of the backbone's features.
        out_features: numbers a face.
        ages: decoded ages are clamped to this range.
        dropout: share of features dropped in training.
    """

    centre: Tensor
    scale: Tensor

    def __init__(self, in_features: int, out_features: int, ages: tuple[int, int], dropout: float) -> None:
        super().__init__(in_features, ages)
        self.out_features = out_features
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(in_features, out_features)
        nn.init.normal_(self.linear.weight, std=0.01)
        nn.init.zeros_(self.linear.bias)
        # Until `prepare` sees the training ages: the middle of the range, and the deviation of a uniform spread over it.
        self.register_buffer("centre", torch.tensor((ages[0] + ages[1]) / 2))
        self.register_buffer("scale", torch.tensor((ages[1] - ages[0]) / 12**0.5))

    def init_from_ages(self, ages: Tensor) -> None:
        """Centre and scale by the training ages: the untrained head then predicts about their mean."""
        self.centre.copy_(ages.mean())
        self.scale.copy_(ages.std().clamp(min=1.0))

    def forward(self, features: Tensor) -> Tensor:
        """(B, in_features) -> (B, out_features)."""
        return self.linear(self.dropout(features))  # type: ignore[no-any-return]

    def standardised(self, age: Tensor, like: Tensor) -> Tensor:
        """(B,) years -> standard deviations from the training ages' mean, in the precision of `like`."""
        return (age.to(like.dtype) - self.centre) / self.scale

    def years(self, standardised: Tensor) -> Tensor:
        """(B,) back to years, within the head's ages."""
        age = standardised.to(self.centre.dtype) * self.scale + self.centre
        return age.clamp(float(self.ages[0]), float(self.ages[1]))
