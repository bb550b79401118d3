"""A head that learns the logarithm of age: an error of a year weighs more in a child than in a grandmother."""

import torch
from torch import Tensor, nn

from agebench.plugins import AgeEstimate, Head


class LogHead(Head):
    """Features (B, in_features) -> logits (B, 1): log(1 + age)."""

    def __init__(self, in_features: int, ages: tuple[int, int] = (0, 100)) -> None:
        super().__init__(in_features, ages)
        self.out_features = 1
        self.linear = nn.Linear(in_features, 1)

    def init_from_ages(self, ages: Tensor) -> None:
        """Start at the middle of the training ages."""
        with torch.no_grad():
            self.linear.bias.fill_(float(torch.log1p(ages.float()).mean()))

    def forward(self, features: Tensor) -> Tensor:
        """(B, in_features) -> (B, 1)."""
        return self.linear(features)  # type: ignore[no-any-return]

    def loss(self, logits: Tensor, age: Tensor) -> Tensor:
        """The mean absolute error of log(1 + age)."""
        within = age.float().clamp(float(self.ages[0]), float(self.ages[1]))
        return (logits.float()[:, 0] - torch.log1p(within)).abs().mean()

    def decode(self, logits: Tensor) -> AgeEstimate:
        """(B, 1) -> ages within the head's."""
        years = torch.expm1(logits.float()[:, 0].clamp(max=5.0))
        return AgeEstimate(years.clamp(float(self.ages[0]), float(self.ages[1])), None, None)
