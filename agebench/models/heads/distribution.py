"""What the heads share whose logits are a distribution over whole ages."""

import torch
from torch import Tensor, nn

from agebench.models.heads.base import AgeEstimate, Head, age_grid

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
        mean = (probs * self.grid).sum(dim=1)
        std = (probs * (self.grid[None, :] - mean[:, None]) ** 2).sum(dim=1).clamp(min=0).sqrt()
        age = mean
        if self.decoding == "median":
            age = self.grid[(probs.cumsum(dim=1) < 0.5).sum(dim=1).clamp(max=self.out_features - 1)]
        elif self.decoding == "mode":
            age = self.grid[probs.argmax(dim=1)]
        return AgeEstimate(age, probs, std)

    def inside(self, age: Tensor) -> Tensor:
        """(B,) ages brought into the head's range."""
        return age.clamp(float(self.ages[0]), float(self.ages[1]))

    def between_two(self, age: Tensor, dtype: torch.dtype) -> Tensor:
        """(B, A) all weight on a whole age; a fractional one shares it between its two neighbours."""
        distance = (self.grid.to(dtype)[None, :] - self.inside(age).to(dtype)[:, None]).abs()
        weights: Tensor = (1 - distance).clamp(min=0)
        return weights

    def gaussian_labels(self, age: Tensor, sigma: float, dtype: torch.dtype) -> Tensor:
        """(B, A) a normal density about the age at the whole ages, summing to 1."""
        scaled = (self.grid.to(dtype)[None, :] - self.inside(age).to(dtype)[:, None]) / sigma
        return (-0.5 * scaled**2).softmax(dim=1)


def soft_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Mean over the batch of -sum(target * log softmax(logits))."""
    return -(target * logits.log_softmax(dim=1)).sum(dim=1).mean()


def kl_divergence(logits: Tensor, target: Tensor) -> Tensor:
    """Mean over the batch of KL(target, softmax(logits))."""
    entropy = -torch.special.xlogy(target, target).sum(dim=1).mean()
    divergence: Tensor = soft_cross_entropy(logits, target) - entropy
    return divergence


def moments(probs: Tensor, grid: Tensor) -> tuple[Tensor, Tensor]:
    """(B,) mean and (B,) variance of distributions over `grid`."""
    mean = (probs * grid).sum(dim=1)
    return mean, (probs * (grid[None, :] - mean[:, None]) ** 2).sum(dim=1)
