"""What the heads share whose logits are a distribution over whole ages."""

from abc import abstractmethod

import torch
from torch import Tensor, nn

from agebench.models.heads.base import AgeEstimate, Head, age_grid
from agebench.models.heads.softmax_loss import Rows, linear_in, softmax_loss

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

    def loss(self, logits: Tensor, age: Tensor) -> Tensor:
        """The mean of what `rows` says of each face."""
        logits = self.wide(logits)
        inside = self.inside(age).to(logits.dtype)
        return softmax_loss(logits, lambda log_probs, probs: self.rows(log_probs, probs, inside))

    @abstractmethod
    def rows(self, log_probs: Tensor, probs: Tensor, age: Tensor) -> Rows:
        """The loss of each face, and its slope by the log probabilities.

        Args:
            log_probs: (B, A), float32 or wider.
            probs: (B, A), the same, not as logarithms.
            age: (B,) years within the head's range, in the same precision.
        """

    def decode(self, logits: Tensor) -> AgeEstimate:
        """Age, probabilities and their standard deviation."""
        probs = self.wide(logits).softmax(dim=1)
        grid = self.grid.to(probs.dtype)
        # Sums, no matrix products: those would be rounded under autocast, and in int8 files.
        age = (probs * grid).sum(dim=1)
        std = (probs * (grid - age[:, None]) ** 2).sum(dim=1).sqrt()
        if self.decoding == "median":
            age = self.grid[(probs.cumsum(dim=1) < 0.5).sum(dim=1).clamp(max=self.out_features - 1)]
        elif self.decoding == "mode":
            age = self.grid[probs.argmax(dim=1)]
        return AgeEstimate(age, probs, std)

    def inside(self, age: Tensor) -> Tensor:
        """(B,) ages brought into the head's range."""
        return age.clamp(float(self.ages[0]), float(self.ages[1]))

    def cross_entropy(self, log_probs: Tensor, age: Tensor) -> Rows:
        """-log p(age); a fractional age shares its weight between its two neighbours."""
        return linear_in(log_probs, (self.grid.to(age.dtype) - age[:, None]).abs_().sub_(1).clamp_(max=0))
