"""Base class of the heads that predict standardized ages."""

import torch
from torch import Tensor, nn

from agebench.models.heads.base import Head


class StandardizedHead(Head):
    """A linear layer whose outputs are standardized ages and related quantities.

    Args:
        in_features: width of the backbone's features.
        out_features: outputs per face.
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
        # Before `init_from_ages`: mean and standard deviation of a uniform distribution over the range.
        self.register_buffer("centre", torch.tensor((ages[0] + ages[1]) / 2))
        self.register_buffer("scale", torch.tensor((ages[1] - ages[0]) / 12**0.5))

    def init_from_ages(self, ages: Tensor) -> None:
        """Set center and scale to mean and standard deviation of the ages.

        The untrained head then predicts approximately the mean age.

        Args:
            ages: (N,) float years.
        """
        self.centre.copy_(ages.mean())
        self.scale.copy_(ages.std().clamp(min=1.0))

    def forward(self, features: Tensor) -> Tensor:
        """Return outputs (B, out_features) for features (B, in_features)."""
        return self.linear(self.dropout(features))  # type: ignore[no-any-return]

    def standardize(self, age: Tensor, like: Tensor) -> Tensor:
        """Return ages in standard deviations from the mean training age.

        Args:
            age: (B,) float years.
            like: a tensor of the precision to return.
        """
        return (age.to(like.dtype) - self.centre) / self.scale

    def to_years(self, standardized: Tensor) -> Tensor:
        """Return standardized ages (B,) in years, clamped to the head's range."""
        age = standardized.to(self.centre.dtype) * self.scale + self.centre
        return age.clamp(float(self.ages[0]), float(self.ages[1]))
