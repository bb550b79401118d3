"""Several quantiles of the age at once."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from agebench.models.heads.base import AgeEstimate, Head


class QuantileHead(Head):
    """Pinball loss at chosen quantiles; they cannot cross, because each is the one below plus something positive.

    Koenker & Bassett: Regression Quantiles. Econometrica 1978, eq. 3.1.

    Args:
        in_features: width of the backbone's features.
        ages: decoded ages are clamped to this range.
        quantiles: rising, between 0 and 1; the middle one, 0.5, must be among them: it is the decoded age.
        dropout: share of features dropped in training.

    Raises:
        TypeError: quantiles that do not rise, or lack 0.5.
    """

    centre: Tensor
    scale: Tensor
    levels: Tensor

    def __init__(
        self,
        in_features: int,
        ages: tuple[int, int] = (0, 100),
        *,
        quantiles: Sequence[float] = (0.05, 0.25, 0.5, 0.75, 0.95),
        dropout: float = 0.0,
    ) -> None:
        super().__init__(in_features, ages)
        wanted = list(quantiles)
        if wanted != sorted(set(wanted)) or not wanted or not 0 < wanted[0] <= wanted[-1] < 1 or 0.5 not in wanted:
            raise TypeError(f"quantiles = {wanted}: must rise from above 0 to below 1 and hold 0.5")
        self.out_features = len(wanted)
        self.middle = wanted.index(0.5)
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(in_features, self.out_features)
        nn.init.normal_(self.linear.weight, std=0.01)
        nn.init.zeros_(self.linear.bias)
        self.register_buffer("levels", torch.tensor(wanted), persistent=False)
        self.register_buffer("centre", torch.tensor((ages[0] + ages[1]) / 2))
        self.register_buffer("scale", torch.tensor((ages[1] - ages[0]) / 12**0.5))

    def prepare(self, ages: Tensor) -> None:
        """Centre and scale by the training ages."""
        self.centre.copy_(ages.mean())
        self.scale.copy_(ages.std().clamp(min=1.0))

    def forward(self, features: Tensor) -> Tensor:
        """(B, in_features) -> (B, Q): the middle quantile, standardised, and the steps outwards before they are made positive."""
        return self.linear(self.dropout(features))  # type: ignore[no-any-return]

    def curve(self, logits: Tensor) -> Tensor:
        """(B, Q) the quantiles, standardised, rising."""
        middle = logits[:, self.middle : self.middle + 1]
        up = F.softplus(logits[:, self.middle + 1 :]).cumsum(dim=1)
        down = F.softplus(logits[:, : self.middle]).flip(1).cumsum(dim=1).flip(1)
        return torch.cat([middle - down, middle, middle + up], dim=1)

    def loss(self, logits: Tensor, age: Tensor) -> Tensor:
        """Mean pinball loss over batch and quantiles, of standardised ages."""
        logits = logits if logits.dtype == torch.float64 else logits.float()
        target = (age.to(logits.dtype) - self.centre) / self.scale
        error = target[:, None] - self.curve(logits)
        levels = self.levels.to(logits.dtype)
        return torch.maximum(levels * error, (levels - 1) * error).mean()

    def decode(self, logits: Tensor) -> AgeEstimate:
        """The median, in years."""
        age = logits[:, self.middle].to(self.centre.dtype) * self.scale + self.centre
        return AgeEstimate(age.clamp(float(self.ages[0]), float(self.ages[1])), None, None)
