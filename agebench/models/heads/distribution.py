"""What the heads share whose logits are a distribution over whole ages."""

import torch
from torch import Tensor, nn

from agebench.models.heads.base import AgeEstimate, Head, age_grid

# Of a label's log weight beside the greatest: e^-80 is nothing, and yet no denormal number, with which CPUs are many times slower.
FAINTEST = -80.0

DECODINGS = ("expectation", "median", "mode")


class DistributionHead(Head):
    """A linear layer with one logit an age; softmax makes them probabilities.

    Ages outside the head's range count as its nearest end; fractional ages stand between two classes.

    Args:
        in_features: width of the backbone's features.
        ages: first and last age.
        decode: which age the distribution stands for: its expectation, its median or its mode.
        dropout: share of features dropped in training.

    Raises:
        TypeError: an unknown way to decode.
    """

    grid: Tensor
    apart: Tensor

    def __init__(
        self, in_features: int, ages: tuple[int, int] = (0, 100), *, decode: str = "expectation", dropout: float = 0.0
    ) -> None:
        super().__init__(in_features, ages)
        if decode not in DECODINGS:
            raise TypeError(f"decode = {decode!r}: one of {', '.join(DECODINGS)}")
        self.register_buffer("grid", age_grid(ages), persistent=False)
        # About their middle, so that squares stay small and float32 keeps their difference.
        self.middle = (ages[0] + ages[1]) / 2
        self.register_buffer("apart", self.grid - self.middle, persistent=False)
        self.out_features = ages[1] - ages[0] + 1
        self.decoding = decode
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(in_features, self.out_features)
        nn.init.normal_(self.linear.weight, std=0.01)
        nn.init.zeros_(self.linear.bias)

    def prepare(self, ages: Tensor) -> None:
        """Start from the training ages' own frequencies, each a little spread: the untrained head then says about their mean."""
        spread = torch.exp(-0.5 * ((self.grid[None, :] - self.inside(ages)[:, None]) / 3) ** 2)
        with torch.no_grad():
            self.linear.bias.copy_((spread.mean(dim=0) + 1e-4).log())

    def forward(self, features: Tensor) -> Tensor:
        """(B, in_features) -> (B, A)."""
        return self.linear(self.dropout(features))  # type: ignore[no-any-return]

    def decode(self, logits: Tensor) -> AgeEstimate:
        """Age, probabilities and their standard deviation."""
        probs = self.wide(logits).softmax(dim=1)
        mean, variance = self.moments(probs)
        age, std = mean, variance.sqrt()
        if self.decoding == "median":
            age = self.grid[(probs.cumsum(dim=1) < 0.5).sum(dim=1).clamp(max=self.out_features - 1)]
        elif self.decoding == "mode":
            age = self.grid[probs.argmax(dim=1)]
        return AgeEstimate(age, probs, std)

    def inside(self, age: Tensor) -> Tensor:
        """(B,) ages brought into the head's range."""
        return age.clamp(float(self.ages[0]), float(self.ages[1]))

    def cross_entropy(self, log_probs: Tensor, age: Tensor) -> Tensor:
        """Mean of -log p(age); a fractional age shares its weight between its two neighbours."""
        place = self.inside(age).to(log_probs.dtype) - self.ages[0]
        below = place.floor().clamp(max=self.out_features - 2)
        share = place - below
        both = log_probs.gather(1, below.long()[:, None] + torch.arange(2, device=below.device))
        return -torch.lerp(both[:, 0], both[:, 1], share).mean()

    def moments(self, probs: Tensor) -> tuple[Tensor, Tensor]:
        """(B,) mean and (B,) variance of the distributions (B, A)."""
        # Two sums, not one product: matrix products of two columns are slow, and so is their gradient.
        weighted = probs * self.apart.to(probs.dtype)
        first, second = weighted.sum(dim=1), (weighted * self.apart.to(probs.dtype)).sum(dim=1)
        return first + self.middle, (second - first**2).clamp(min=0)
