"""Age as a share of the training ages' range, as published systems store it with their weights."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from agebench.models.heads.base import AgeEstimate, Head


class MinMaxRegressionHead(Head):
    """One number x, and age = x * (oldest - youngest) + centre (Kuprashevich and Tolstykh 2023).

    In training the centre is the mean age of the training set. Published weights bring their own: MiVOLO's is the middle of its
    range, (min_age + max_age) / 2 (`AgeGenderDataset.set_ages_min_max` of WildChlamydia/MiVOLO).

    Features of width 1 are taken for x as they are: whole architectures bring their own last layer.

    Args:
        in_features: width of the backbone's features.
        ages: decoded ages are clamped to this range, unless the numbers come from published weights.
        loss: "l2" or "l1", of x.
    """

    centre: Tensor
    spread: Tensor
    low: Tensor
    high: Tensor

    def __init__(self, in_features: int, ages: tuple[int, int] = (0, 100), *, loss: str = "l2") -> None:
        super().__init__(in_features, ages)
        if loss not in ("l1", "l2"):
            raise TypeError(f"loss = {loss!r}: one of l1, l2")
        self.out_features = 1
        self.kind = loss
        self.linear = nn.Linear(in_features, 1) if in_features > 1 else nn.Identity()
        if isinstance(self.linear, nn.Linear):
            nn.init.trunc_normal_(self.linear.weight, std=0.02)
            nn.init.zeros_(self.linear.bias)
        self.register_buffer("centre", torch.tensor((ages[0] + ages[1]) / 2))
        self.register_buffer("spread", torch.tensor(float(ages[1] - ages[0])))
        self.register_buffer("low", torch.tensor(float(ages[0])))
        self.register_buffer("high", torch.tensor(float(ages[1])))

    def publish(self, youngest: float, oldest: float, mean: float) -> None:
        """Take the numbers that published weights were trained with; like their authors, clamp nothing from now on."""
        self.centre.fill_(mean)
        self.spread.fill_(oldest - youngest)
        self.low.fill_(-torch.inf)
        self.high.fill_(torch.inf)

    def init_from_ages(self, ages: Tensor) -> None:
        """Scale by the training ages; numbers that came with weights stay, for the weights mean nothing without them."""
        if bool(torch.isinf(self.low)):
            return
        self.centre.copy_(ages.mean())
        self.spread.copy_((ages.max() - ages.min()).clamp(min=1.0))

    def forward(self, features: Tensor) -> Tensor:
        """(B, in_features) -> (B, 1)."""
        return self.linear(features)  # type: ignore[no-any-return]

    def loss(self, logits: Tensor, age: Tensor) -> Tensor:
        """Mean squared, or absolute, error of the share."""
        share = self.upcast(logits)[:, 0]
        target = (age.to(share.dtype) - self.centre) / self.spread
        return F.mse_loss(share, target) if self.kind == "l2" else F.l1_loss(share, target)

    def decode(self, logits: Tensor) -> AgeEstimate:
        """Years, within the head's range where it has one."""
        age = self.upcast(logits)[:, 0] * self.spread + self.centre
        return AgeEstimate(torch.minimum(torch.maximum(age, self.low), self.high), None, None)
