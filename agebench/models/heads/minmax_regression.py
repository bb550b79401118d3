"""Regression of the age, scaled by the range of the training ages."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from agebench.models.heads.base import AgeEstimate, Head


class MinMaxRegressionHead(Head):
    """One output x with age = x * (oldest - youngest) + center.

    Kuprashevich and Tolstykh: MiVOLO: Multi-input Transformer for Age and Gender Estimation. 2023.

    In training the center is the mean age of the training set. Published weights have their own: MiVOLO's is the middle of its
    range, (min_age + max_age) / 2 (`AgeGenderDataset.set_ages_min_max` of WildChlamydia/MiVOLO).

    Features of width 1 are x itself, because whole architectures include the last layer.

    Args:
        in_features: width of the backbone's features.
        ages: decoded ages are clamped to this range, unless the scale comes from published weights.
        loss: the loss of x, "l2" or "l1".
    """

    centre: Tensor
    spread: Tensor
    low: Tensor
    high: Tensor

    def __init__(self, in_features: int, ages: tuple[int, int] = (0, 100), *, loss: str = "l2") -> None:
        super().__init__(in_features, ages)
        if loss not in ("l1", "l2"):
            raise TypeError(f"loss = {loss!r}: must be l1 or l2")
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
        """Set the scale of published weights.

        Decoded ages are no longer clamped, as in the authors' code.

        Args:
            youngest: lowest age of their training, years.
            oldest: highest age of their training, years.
            mean: the age at x = 0, years.
        """
        self.centre.fill_(mean)
        self.spread.fill_(oldest - youngest)
        self.low.fill_(-torch.inf)
        self.high.fill_(torch.inf)

    def init_from_ages(self, ages: Tensor) -> None:
        """Set the scale to the training ages.

        The scale of published weights does not change, because they depend on it.

        Args:
            ages: (N,) float years.
        """
        if bool(torch.isinf(self.low)):
            return
        self.centre.copy_(ages.mean())
        self.spread.copy_((ages.max() - ages.min()).clamp(min=1.0))

    def forward(self, features: Tensor) -> Tensor:
        """Return x (B, 1) for features (B, in_features)."""
        return self.linear(features)  # type: ignore[no-any-return]

    def loss(self, logits: Tensor, age: Tensor) -> Tensor:
        """Return the mean squared or absolute error of x.

        Args:
            logits: (B, 1), from `forward`.
            age: (B,) float years.
        """
        predicted = self.upcast(logits)[:, 0]
        target = (age.to(predicted.dtype) - self.centre) / self.spread
        return F.mse_loss(predicted, target) if self.kind == "l2" else F.l1_loss(predicted, target)

    def decode(self, logits: Tensor) -> AgeEstimate:
        """Return ages in years for x (B, 1).

        They are clamped to the head's range unless the weights are published ones.
        """
        age = self.upcast(logits)[:, 0] * self.spread + self.centre
        return AgeEstimate(torch.minimum(torch.maximum(age, self.low), self.high), None, None)
