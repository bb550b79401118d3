"""Base class of the heads whose logits are a distribution over whole ages."""

from abc import abstractmethod

import torch
from torch import Tensor, nn

from agebench.models.heads.base import AgeEstimate, Head, age_grid

# Smallest log weight of a label relative to the largest: e^-80 is negligible but not denormal; CPUs are slow on denormals.
MIN_LOG_WEIGHT = -80.0

DECODINGS = ("expectation", "median", "mode")


def relative_log_weights(log_weights: Tensor) -> Tensor:
    """Return the log weights (B, A) of labels relative to each label's largest, `MIN_LOG_WEIGHT` or more."""
    return (log_weights - log_weights.amax(dim=1, keepdim=True)).clamp(min=MIN_LOG_WEIGHT)


class DistributionHead(Head):
    """A linear layer and a softmax over whole ages.

    Labels outside the head's range are clamped to it; a fractional label lies between two classes.

    Args:
        in_features: width of the backbone's features.
        ages: first and last age.
        decode: the age estimated from the distribution: "expectation", "median" or "mode".
        dropout: share of features dropped in training.

    Attributes:
        has_cross_entropy: whether `sample_losses` uses `cross_entropy`, so that its labels can be smoothed.
        label_std: standard deviation of the labels in `cross_entropy`, years; 0: not smoothed.

    Raises:
        TypeError: `decode` is unknown.
    """

    grid: Tensor
    has_cross_entropy = False

    def __init__(
        self, in_features: int, ages: tuple[int, int] = (0, 100), *, decode: str = "expectation", dropout: float = 0.0
    ) -> None:
        super().__init__(in_features, ages)
        if decode not in DECODINGS:
            raise TypeError(f"decode = {decode!r}: must be one of {', '.join(DECODINGS)}")
        self.register_buffer("grid", age_grid(ages), persistent=False)
        self.out_features = ages[1] - ages[0] + 1
        self.decoding = decode
        self.label_std = 0.0
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(in_features, self.out_features)
        nn.init.normal_(self.linear.weight, std=0.01)
        nn.init.zeros_(self.linear.bias)

    def init_from_ages(self, ages: Tensor) -> None:
        """Set the biases to the smoothed age distribution of the training set.

        The untrained head then predicts approximately the mean age.

        Args:
            ages: (N,) float years.
        """
        smoothed = torch.exp(-0.5 * ((self.grid[None, :] - self.clamp_ages(ages)[:, None]) / 3) ** 2)
        with torch.no_grad():
            self.linear.bias.copy_((smoothed.mean(dim=0) + 1e-4).log())

    def smooth_labels(self, std: float) -> None:
        """Use a normal distribution around each label in `cross_entropy`.

        Args:
            std: standard deviation of the distribution, years.

        Raises:
            UserError: the head's loss does not use `cross_entropy`.
        """
        if not self.has_cross_entropy:
            super().smooth_labels(std)
        self.label_std = std

    def forward(self, features: Tensor) -> Tensor:
        """Return logits (B, A) for features (B, in_features)."""
        return self.linear(self.dropout(features))  # type: ignore[no-any-return]

    def loss(self, logits: Tensor, age: Tensor) -> Tensor:
        """Return the mean of `sample_losses` over the batch, a scalar.

        Args:
            logits: (B, A), from `forward`.
            age: (B,) float years.
        """
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
        """Return ages, probabilities and their standard deviations for logits (B, A)."""
        probs = self.upcast(logits).softmax(dim=1)
        age = self.mean(probs)
        std = self.variance(probs, age).sqrt()
        if self.decoding == "median":
            age = self.grid[(probs.cumsum(dim=1) < 0.5).sum(dim=1).clamp(max=self.out_features - 1)]
        elif self.decoding == "mode":
            age = self.grid[probs.argmax(dim=1)]
        return AgeEstimate(age, probs, std)

    def clamp_ages(self, age: Tensor) -> Tensor:
        """Return the ages (B,), clamped to the head's range."""
        return age.clamp(float(self.ages[0]), float(self.ages[1]))

    def mean(self, probs: Tensor) -> Tensor:
        """Return the expected ages (B,), years, of the distributions (B, A)."""
        # A sum instead of a matrix product, which autocast and int8 files would round.
        return (probs * self.grid.to(probs.dtype)).sum(dim=1)

    def variance(self, probs: Tensor, mean: Tensor) -> Tensor:
        """Return the variances (B,), years squared, of distributions.

        Args:
            probs: (B, A) probabilities of the whole ages.
            mean: (B,) means of the distributions, years.
        """
        return (probs * (self.grid.to(probs.dtype) - mean[:, None]) ** 2).sum(dim=1)

    def cross_entropy(self, log_probs: Tensor, age: Tensor) -> Tensor:
        """Return the cross-entropy (B,) to the labels.

        A fractional label shares its weight between its two neighboring classes. With `label_std` the label is a normal
        distribution, normalized over the head's ages.

        Args:
            log_probs: (B, A) log probabilities of the classes.
            age: (B,) labels in years, within the head's range.
        """
        distance = self.grid.to(age.dtype) - age[:, None]
        if self.label_std:
            weights = relative_log_weights(distance**2 / (-2 * self.label_std**2)).softmax(dim=1)
        else:
            weights = (1 - distance.abs()).clamp(min=0)
        return -(weights * log_probs).sum(dim=1)
