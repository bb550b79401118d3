"""Ages as answers to 'older than k?': OR-CNN, CORAL and CORN."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from agebench.models.heads.base import AgeEstimate, Head, age_grid

DECODINGS = ("rank", "expectation")

# CORAL's biases span about +-5, its weights hundredths, and AdamW moves all parameters alike, by the learning rate a step:
# kept at a tenth of their size, the biases get where they belong within a short training.
BIAS_SCALE = 10.0


class OrdinalHead(Head):
    """K - 1 binary questions for K ages: is the face older than `ages[0] + k`?

    Ages outside the range answer all questions alike; a fractional age answers them as it should.

    Args:
        in_features: width of the backbone's features.
        ages: first and last age.
        decode: "rank" counts the questions answered yes with more than one half, as the papers do; "expectation" sums
            the probabilities.
        dropout: share of features dropped in training.

    Raises:
        TypeError: an unknown way to decode.
    """

    grid: Tensor

    def __init__(
        self, in_features: int, ages: tuple[int, int] = (0, 100), *, decode: str = "rank", dropout: float = 0.0
    ) -> None:
        super().__init__(in_features, ages)
        if decode not in DECODINGS:
            raise TypeError(f"decode = {decode!r}: one of {', '.join(DECODINGS)}")
        self.register_buffer("grid", age_grid(ages), persistent=False)
        self.out_features = ages[1] - ages[0]
        self.decoding = decode
        self.dropout = nn.Dropout(dropout)

    def levels(self, age: Tensor, like: Tensor) -> Tensor:
        """(B, K - 1) 1 where the age is above the threshold, else 0."""
        return (age.to(like.dtype)[:, None] > self.grid[:-1].to(like.dtype)).to(like.dtype)

    def shares_above(self, ages: Tensor) -> Tensor:
        """(K - 1,) of training ages above each threshold, kept off 0 and 1."""
        share = (ages[:, None] > self.grid[:-1]).float().mean(dim=0)
        return share.clamp(0.5 / len(ages), 1 - 0.5 / len(ages))

    def age_of(self, above: Tensor) -> Tensor:
        """(B,) years from the probabilities (B, K - 1) of being above each threshold."""
        counted = above.sum(dim=1) if self.decoding == "expectation" else (above > 0.5).to(above.dtype).sum(dim=1)
        return counted + float(self.ages[0])

    def with_probs(self, above: Tensor) -> AgeEstimate:
        """Age, and the distribution whose cumulative probabilities `above` are (they must not rise)."""
        one, none = torch.ones_like(above[:, :1]), torch.zeros_like(above[:, :1])
        probs = torch.cat([one, above], dim=1) - torch.cat([above, none], dim=1)
        mean = (probs * self.grid).sum(dim=1)
        std = (probs * (self.grid[None, :] - mean[:, None]) ** 2).sum(dim=1).clamp(min=0).sqrt()
        return AgeEstimate(self.age_of(above), probs, std)


class ORCNNHead(OrdinalHead):
    """Independent questions: a linear unit each. Their answers need not agree, so there is no distribution.

    Niu, Zhou, Wang, Gao, Hua: Ordinal Regression with Multiple Output CNN for Age Estimation. CVPR 2016, eq. 2 to 4.

    Args:
        in_features: width of the backbone's features.
        ages: first and last age.
        importance: weigh question k by the square root of the number of training images on its age, as the paper does.
        decode: see `OrdinalHead`.
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
        """Start from the shares of training ages above each threshold; count the ages for `importance`."""
        with torch.no_grad():
            self.linear.bias.copy_(self.shares_above(ages).logit())
            if self.importance:
                counts = (ages.round()[:, None] == self.grid[:-1]).float().sum(dim=0).sqrt()
                self.weights.copy_(counts / counts.sum() * len(counts))

    def forward(self, features: Tensor) -> Tensor:
        """(B, in_features) -> (B, K - 1)."""
        return self.linear(self.dropout(features))  # type: ignore[no-any-return]

    def loss(self, logits: Tensor, age: Tensor) -> Tensor:
        """Binary cross-entropy summed over the questions, mean over the batch."""
        logits = self.upcast(logits)
        each = F.binary_cross_entropy_with_logits(logits, self.levels(age, logits), reduction="none")
        return (each * self.weights.to(logits.dtype)).sum(dim=1).mean()

    def decode(self, logits: Tensor) -> AgeEstimate:
        """Years."""
        return AgeEstimate(self.age_of(self.upcast(logits).sigmoid()), None, None)


class CORALHead(OrdinalHead):
    """One direction in feature space, K - 1 biases: answers that agree with each other.

    Cao, Mirjalili, Raschka: Rank consistent ordinal regression for neural networks. Pattern Recognition Letters 2020,
    eq. 3 to 5. The biases are used in falling order: at the optimum they fall anyway (theorem 1), and so they do at
    every step before it.
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
        """Start from the shares of training ages above each threshold."""
        with torch.no_grad():
            self.bias.copy_(self.shares_above(ages).logit() / BIAS_SCALE)

    def forward(self, features: Tensor) -> Tensor:
        """(B, in_features) -> (B, K - 1), falling along each row."""
        return self.weight(self.dropout(features)) + self.bias_scale * self.bias.sort(descending=True)[0]  # type: ignore[no-any-return]

    def loss(self, logits: Tensor, age: Tensor) -> Tensor:
        """Binary cross-entropy summed over the questions, mean over the batch."""
        logits = self.upcast(logits)
        levels = self.levels(age, logits)
        return F.binary_cross_entropy_with_logits(logits, levels, reduction="none").sum(dim=1).mean()

    def decode(self, logits: Tensor) -> AgeEstimate:
        """Years, probabilities and their standard deviation."""
        return self.with_probs(self.upcast(logits).sigmoid().cummin(dim=1)[0])


class CORNHead(OrdinalHead):
    """Conditional questions: is the face older than k, given that it is older than k - 1? Their products cannot rise.

    Shi, Cao, Raschka: Deep Neural Networks for Rank-Consistent Ordinal Regression Based on Conditional Probabilities.
    Pattern Analysis and Applications 2023, eq. 6. Each question is trained on the images it applies to; the sum is
    divided by the number of all such pairs, as in the authors' code.
    """

    def __init__(
        self, in_features: int, ages: tuple[int, int] = (0, 100), *, decode: str = "rank", dropout: float = 0.0
    ) -> None:
        super().__init__(in_features, ages, decode=decode, dropout=dropout)
        self.linear = nn.Linear(in_features, self.out_features)
        nn.init.normal_(self.linear.weight, std=0.01)
        nn.init.zeros_(self.linear.bias)

    def init_from_ages(self, ages: Tensor) -> None:
        """Start from the conditional shares of the training ages."""
        above = self.shares_above(ages)
        before = torch.cat([torch.ones_like(above[:1]), above[:-1]])
        with torch.no_grad():
            self.linear.bias.copy_((above / before).clamp(0.01, 0.99).logit())

    def forward(self, features: Tensor) -> Tensor:
        """(B, in_features) -> (B, K - 1) conditional logits."""
        return self.linear(self.dropout(features))  # type: ignore[no-any-return]

    def loss(self, logits: Tensor, age: Tensor) -> Tensor:
        """Binary cross-entropy over all pairs of a face and a question that applies to it."""
        logits = self.upcast(logits)
        levels = self.levels(age, logits)
        applies = torch.cat([torch.ones_like(levels[:, :1]), levels[:, :-1]], dim=1)
        each = F.binary_cross_entropy_with_logits(logits, levels, reduction="none")
        return (each * applies).sum() / applies.sum()

    def decode(self, logits: Tensor) -> AgeEstimate:
        """Years, probabilities and their standard deviation."""
        return self.with_probs(self.upcast(logits).sigmoid().cumprod(dim=1))
