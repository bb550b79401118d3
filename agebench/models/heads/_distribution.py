"""What the heads share whose logits are a distribution over whole ages."""

from abc import abstractmethod

import torch
from torch import Tensor, nn

from agebench.models.heads.base import AgeEstimate, Head, age_grid

# Of a label's log weight beside the greatest: e^-80 is nothing, and yet no denormal number, with which CPUs are many times slower.
MIN_LOG_WEIGHT = -80.0

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

    def __init__(
        self, in_features: int, ages: tuple[int, int] = (0, 100), *, decode: str = "expectation", dropout: float = 0.0
    ) -> None:
        super().__init__(in_features, ages)
        if decode not in DECODINGS:
            raise TypeError(f"decode = {decode!r}: one of {', '.join(DECODINGS)}")
        self.register_buffer("grid", age_grid(ages), persistent=False)
        self.out_features = ages[1] - ages[0] + 1
        self.decoding = decode
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(in_features, self.out_features)
        nn.init.normal_(self.linear.weight, std=0.01)
        nn.init.zeros_(self.linear.bias)

    def init_from_ages(self, ages: Tensor) -> None:
        """Start from the training ages' own frequencies, each a little spread: the untrained head then says about their mean."""
        spread = torch.exp(-0.5 * ((self.grid[None, :] - self.clamp_ages(ages)[:, None]) / 3) ** 2)
        with torch.no_grad():
            self.linear.bias.copy_((spread.mean(dim=0) + 1e-4).log())

    def forward(self, features: Tensor) -> Tensor:
        """(B, in_features) -> (B, A)."""
        return self.linear(self.dropout(features))  # type: ignore[no-any-return]

    def loss(self, logits: Tensor, age: Tensor) -> Tensor:
        """Return the mean of `sample_losses` over the batch, a scalar."""
        log_probs = self.upcast(logits).log_softmax(dim=1)
        return self.sample_losses(log_probs, self.clamp_ages(age).to(log_probs.dtype)).mean()

    @abstractmethod
    def sample_losses(self, log_probs: Tensor, age: Tensor) -> Tensor:
        """Return the loss of each face, (B,).

        Args:
            log_probs: (B, A) log probabilities of the classes, float32 or wider.
            age: (B,) labels in years, clamped to the head's range, in the same precision.
        """

    def decode(self, logits: Tensor) -> AgeEstimate:
        """Age, probabilities and their standard deviation."""
        probs = self.upcast(logits).softmax(dim=1)
        age = self.mean(probs)
        std = self.variance(probs, age).sqrt()
        if self.decoding == "median":
            age = self.grid[(probs.cumsum(dim=1) < 0.5).sum(dim=1).clamp(max=self.out_features - 1)]
        elif self.decoding == "mode":
            age = self.grid[probs.argmax(dim=1)]
        return AgeEstimate(age, probs, std)

    def clamp_ages(self, age: Tensor) -> Tensor:
        """(B,) ages brought into the head's range."""
        return age.clamp(float(self.ages[0]), float(self.ages[1]))

    def mean(self, probs: Tensor) -> Tensor:
        """Return the expected ages (B,), years, of the distributions (B, A)."""
        # A sum, not a matrix product, which would be rounded under autocast and in int8 files.
        return (probs * self.grid.to(probs.dtype)).sum(dim=1)

    def variance(self, probs: Tensor, mean: Tensor) -> Tensor:
        """Return the variances (B,), years squared, of the distributions (B, A) with the means (B,)."""
        return (probs * (self.grid.to(probs.dtype) - mean[:, None]) ** 2).sum(dim=1)

    def cross_entropy(self, log_probs: Tensor, age: Tensor) -> Tensor:
        """Return -log p(age), (B,); a fractional age shares its weight between its two neighboring classes."""
        weights = (1 - (self.grid.to(age.dtype) - age[:, None]).abs()).clamp(min=0)
        return -(weights * log_probs).sum(dim=1)
