"""Several quantiles of the age at once."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from agebench.models.heads._standardized import StandardizedHead
from agebench.models.heads.base import AgeEstimate


class QuantileHead(StandardizedHead):
    """Pinball loss at chosen quantiles; they cannot cross, because each is the one below plus something positive.

    Its outputs are the middle quantile, standardised, and the steps outwards before they are made positive.

    Koenker & Bassett: Regression Quantiles. Econometrica 1978, eq. 3.1.

    Args:
        in_features: width of the backbone's features.
        ages: decoded ages are clamped to this range.
        quantiles: rising, between 0 and 1; the middle one, 0.5, must be among them: it is the decoded age.
        dropout: share of features dropped in training.

    Raises:
        TypeError: quantiles that do not rise, or lack 0.5.
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
        wanted = list(quantiles)
        if wanted != sorted(set(wanted)) or not wanted or not 0 < wanted[0] <= wanted[-1] < 1 or 0.5 not in wanted:
            raise TypeError(f"quantiles = {wanted}: must rise from above 0 to below 1 and hold 0.5")
        super().__init__(in_features, len(wanted), ages, dropout)
        self.middle = wanted.index(0.5)
        self.register_buffer("levels", torch.tensor(wanted), persistent=False)
        # (Q, Q): which steps lie between the middle and each quantile; those below it lead downwards.
        up = torch.ones(len(wanted), len(wanted)).triu()
        up[: self.middle + 1] = 0
        down = torch.ones(len(wanted), len(wanted)).tril()
        down[self.middle :] = 0
        self.register_buffer("steps", up - down, persistent=False)

    def curve(self, logits: Tensor) -> Tensor:
        """(B, Q) the quantiles, standardised, rising."""
        middle = logits[:, self.middle : self.middle + 1]
        # No matrix product, which would be rounded under autocast.
        return middle + (F.softplus(logits)[:, :, None] * self.steps.to(logits.dtype)).sum(dim=1)

    def loss(self, logits: Tensor, age: Tensor) -> Tensor:
        """Mean pinball loss over batch and quantiles, of standardised ages."""
        logits = self.upcast(logits)
        error = self.standardised(age, logits)[:, None] - self.curve(logits)
        return (self.levels.to(logits.dtype) * error + (-error).relu()).mean()

    def decode(self, logits: Tensor) -> AgeEstimate:
        """The median, in years."""
        return AgeEstimate(self.years(logits[:, self.middle]), None, None)
