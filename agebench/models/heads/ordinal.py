"""Ordinal regression by binary classifiers: OR-CNN, CORAL and CORN."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from agebench.models.heads.base import AgeEstimate, Head, age_grid

DECODINGS = ("rank", "expectation")

# CORAL's biases span about +-5 and its weights hundredths, but AdamW changes all parameters by about the learning rate per step.
# Stored at a tenth of their size, the biases converge within a short training.
BIAS_SCALE = 10.0


class OrdinalHead(Head):
    """K - 1 binary classifiers for K ages: is the face older than `ages[0] + k`?

    For a label outside the range all targets are equal; a fractional label shares its weight between its two neighboring ages.

    Args:
        in_features: width of the backbone's features.
        ages: first and last age.
        decode: "rank" counts the probabilities above one half, as in the papers; "expectation" sums the probabilities.
        dropout: share of features dropped in training.

    Raises:
        TypeError: `decode` is unknown.
    """

    grid: Tensor

    def __init__(
        self, in_features: int, ages: tuple[int, int] = (0, 100), *, decode: str = "rank", dropout: float = 0.0
    ) -> None:
        super().__init__(in_features, ages)
        if decode not in DECODINGS:
            raise TypeError(f"decode = {decode!r}: must be one of {', '.join(DECODINGS)}")
        self.register_buffer("grid", age_grid(ages), persistent=False)
        self.out_features = ages[1] - ages[0]
        self.decoding = decode
        self.dropout = nn.Dropout(dropout)

    def levels(self, age: Tensor, like: Tensor) -> Tensor:
        """Return the targets (B, K - 1): 1 where the age is above the threshold, else 0; a fraction above it counts as such.

        Args:
            age: (B,) float years.
            like: a tensor of the precision to return.
        """
        return (age.to(like.dtype)[:, None] - self.grid[:-1].to(like.dtype)).clamp(0, 1)

    def fraction_above(self, ages: Tensor) -> Tensor:
        """Return the fractions (K - 1,) of ages (N,) above each threshold.

        They are clamped away from 0 and 1.
        """
        fraction = self.levels(ages, self.grid).mean(dim=0)
        return fraction.clamp(0.5 / len(ages), 1 - 0.5 / len(ages))

    def decode_age(self, above: Tensor) -> Tensor:
        """Return the ages (B,), years.

        Args:
            above: (B, K - 1) probabilities of being above each threshold.
        """
        count = above.sum(dim=1) if self.decoding == "expectation" else (above > 0.5).to(above.dtype).sum(dim=1)
        return count + float(self.ages[0])

    def with_probs(self, above: Tensor) -> AgeEstimate:
        """Return the estimates with the distribution of given cumulative probabilities.

        Args:
            above: (B, K - 1) probabilities of being above each threshold, not increasing along a row.
        """
        ones, zeros = torch.ones_like(above[:, :1]), torch.zeros_like(above[:, :1])
        probs = torch.cat([ones, above], dim=1) - torch.cat([above, zeros], dim=1)
        mean = (probs * self.grid).sum(dim=1)
        std = (probs * (self.grid[None, :] - mean[:, None]) ** 2).sum(dim=1).clamp(min=0).sqrt()
        return AgeEstimate(self.decode_age(above), probs, std)


class ORCNNHead(OrdinalHead):
    """Independent classifiers, one linear unit each.

    They can contradict each other, so that there is no distribution.

    Niu, Zhou, Wang, Gao, Hua: Ordinal Regression with Multiple Output CNN for Age Estimation. CVPR 2016, eq. 2 to 4.

    Args:
        in_features: width of the backbone's features.
        ages: first and last age.
        importance: whether to weigh classifier k by the square root of the number of training images of its age, as in the
            paper.
        decode: "rank" or "expectation", as in `OrdinalHead`.
        dropout: share of features dropped in training.
    """

    weights: Tensor

    def __init__(
        self,
        in_features: int,
        ages: tuple[int, int] = (0, 100),
        *,
        importance: bool = False,
        decode: str = "rank",
        dropout: float = 0.0,
    ) -> None:
        super().__init__(in_features, ages, decode=decode, dropout=dropout)
        self.importance = importance
        self.linear = nn.Linear(in_features, self.out_features)
        nn.init.normal_(self.linear.weight, std=0.01)
        nn.init.zeros_(self.linear.bias)
        self.register_buffer("weights", torch.ones(self.out_features))

    def init_from_ages(self, ages: Tensor) -> None:
        """Set the biases to the fractions of training ages above each threshold.

        Also set the weights for `importance`.

        Args:
            ages: (N,) float years.
        """
        with torch.no_grad():
            self.linear.bias.copy_(self.fraction_above(ages).logit())
            if self.importance:
                counts = (ages.round()[:, None] == self.grid[:-1]).float().sum(dim=0).sqrt()
                self.weights.copy_(counts / counts.sum() * len(counts))

    def forward(self, features: Tensor) -> Tensor:
        """Return logits (B, K - 1) for features (B, in_features)."""
        return self.linear(self.dropout(features))  # type: ignore[no-any-return]

    def loss(self, logits: Tensor, age: Tensor) -> Tensor:
        """Return the mean over the batch of the summed binary cross-entropies.

        Args:
            logits: (B, K - 1), from `forward`.
            age: (B,) float years.
        """
        logits = self.upcast(logits)
        losses = F.binary_cross_entropy_with_logits(logits, self.levels(age, logits), reduction="none")
        return (losses * self.weights.to(logits.dtype)).sum(dim=1).mean()

    def decode(self, logits: Tensor) -> AgeEstimate:
        """Return ages in years for logits (B, K - 1)."""
        return AgeEstimate(self.decode_age(self.upcast(logits).sigmoid()), None, None)


class CORALHead(OrdinalHead):
    """Consistent classifiers: one direction in feature space and K - 1 biases.

    Cao, Mirjalili, Raschka: Rank consistent ordinal regression for neural networks. Pattern Recognition Letters 2020,
    eq. 3 to 5. `forward` sorts the biases in decreasing order: they decrease at the optimum (theorem 1), and sorting
    ensures it at every earlier step.

    Args:
        in_features: width of the backbone's features.
        ages: first and last age.
        decode: "rank" or "expectation", as in `OrdinalHead`.
        dropout: share of features dropped in training.
    """

    def __init__(
        self, in_features: int, ages: tuple[int, int] = (0, 100), *, decode: str = "rank", dropout: float = 0.0
    ) -> None:
        super().__init__(in_features, ages, decode=decode, dropout=dropout)
        self.weight = nn.Linear(in_features, 1, bias=False)
        self.bias_scale = BIAS_SCALE
        nn.init.normal_(self.weight.weight, std=0.01)
        self.bias = nn.Parameter(torch.linspace(4, -4, self.out_features) / BIAS_SCALE)

    def init_from_ages(self, ages: Tensor) -> None:
        """Set the biases to the fractions of training ages above each threshold.

        Args:
            ages: (N,) float years.
        """
        with torch.no_grad():
            self.bias.copy_(self.fraction_above(ages).logit() / BIAS_SCALE)

    def forward(self, features: Tensor) -> Tensor:
        """Return logits (B, K - 1), decreasing along each row.

        Args:
            features: (B, in_features).
        """
        return self.weight(self.dropout(features)) + self.bias_scale * self.bias.sort(descending=True)[0]  # type: ignore[no-any-return]

    def loss(self, logits: Tensor, age: Tensor) -> Tensor:
        """Return the mean over the batch of the summed binary cross-entropies.

        Args:
            logits: (B, K - 1), from `forward`.
            age: (B,) float years.
        """
        logits = self.upcast(logits)
        levels = self.levels(age, logits)
        return F.binary_cross_entropy_with_logits(logits, levels, reduction="none").sum(dim=1).mean()

    def decode(self, logits: Tensor) -> AgeEstimate:
        """Return ages, probabilities and their standard deviations for logits (B, K - 1)."""
        return self.with_probs(self.upcast(logits).sigmoid().cummin(dim=1)[0])


class CORNHead(OrdinalHead):
    """Conditional classifiers: older than k, given older than k - 1?

    The products of their probabilities cannot increase.

    Shi, Cao, Raschka: Deep Neural Networks for Rank-Consistent Ordinal Regression Based on Conditional Probabilities.
    Pattern Analysis and Applications 2023, eq. 6. Each classifier is trained on the images that fulfill its
    condition; the sum is divided by the number of all such pairs, as in the authors' code.

    Args:
        in_features: width of the backbone's features.
        ages: first and last age.
        decode: "rank" or "expectation", as in `OrdinalHead`.
        dropout: share of features dropped in training.
    """

    def __init__(
        self, in_features: int, ages: tuple[int, int] = (0, 100), *, decode: str = "rank", dropout: float = 0.0
    ) -> None:
        super().__init__(in_features, ages, decode=decode, dropout=dropout)
        self.linear = nn.Linear(in_features, self.out_features)
        nn.init.normal_(self.linear.weight, std=0.01)
        nn.init.zeros_(self.linear.bias)

    def init_from_ages(self, ages: Tensor) -> None:
        """Set the biases to the conditional fractions of the training ages.

        Args:
            ages: (N,) float years.
        """
        above = self.fraction_above(ages)
        condition = torch.cat([torch.ones_like(above[:1]), above[:-1]])
        with torch.no_grad():
            self.linear.bias.copy_((above / condition).clamp(0.01, 0.99).logit())

    def forward(self, features: Tensor) -> Tensor:
        """Return conditional logits (B, K - 1) for features (B, in_features)."""
        return self.linear(self.dropout(features))  # type: ignore[no-any-return]

    def loss(self, logits: Tensor, age: Tensor) -> Tensor:
        """Return the mean binary cross-entropy.

        The mean is over all pairs of a face and a classifier whose condition it fulfills.

        Args:
            logits: (B, K - 1), from `forward`.
            age: (B,) float years.
        """
        logits = self.upcast(logits)
        levels = self.levels(age, logits)
        applies = torch.cat([torch.ones_like(levels[:, :1]), levels[:, :-1]], dim=1)
        losses = F.binary_cross_entropy_with_logits(logits, levels, reduction="none")
        return (losses * applies).sum() / applies.sum()

    def decode(self, logits: Tensor) -> AgeEstimate:
        """Return ages, probabilities and their standard deviations for logits (B, K - 1)."""
        return self.with_probs(self.upcast(logits).sigmoid().cumprod(dim=1))
