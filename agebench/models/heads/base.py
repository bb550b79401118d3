"""What every head keeps to."""

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor, nn

from agebench._deprecated import renamed_methods


class AgeEstimate(NamedTuple):
    """What a head says about a batch of B faces; all float32.

    Attributes:
        age: (B,) years.
        probs: (B, A), one probability for each whole age from `head.ages[0]` to `head.ages[1]`, or None.
        std: (B,) years, the standard deviation that the head itself states, or None.
    """

    age: Tensor
    probs: Tensor | None
    std: Tensor | None


@renamed_methods(prepare="init_from_ages", wide="upcast")
class Head(nn.Module, ABC):
    """Features (B, in_features) -> logits (B, out_features) -> age.

    `loss` and `decode` compute in float32 (or wider) whatever the logits' type. `decode` and `forward` are scriptable.

    Args:
        in_features: width of the backbone's features.
        ages: first and last age in whole years, both included: A = last - first + 1 classes.
    """

    ages: tuple[int, int]
    in_features: int
    out_features: int

    def __init__(self, in_features: int, ages: tuple[int, int]) -> None:
        super().__init__()
        if ages[0] >= ages[1]:
            raise ValueError(f"ages {ages}: the first must be below the last")
        self.in_features = in_features
        self.ages = ages

    def init_from_ages(self, ages: Tensor) -> None:
        """See the training set's ages (N,) once, before training: a head may set its scale or its biases by them."""

    @abstractmethod
    def forward(self, features: Tensor) -> Tensor:
        """Features (B, in_features) -> logits (B, out_features)."""

    @abstractmethod
    def loss(self, logits: Tensor, age: Tensor) -> Tensor:
        """The mean loss over the batch, a scalar; `age` is float years, (B,)."""

    @abstractmethod
    def decode(self, logits: Tensor) -> AgeEstimate:
        """What the logits (B, out_features) say."""

    def upcast(self, logits: Tensor) -> Tensor:
        """At least float32, whatever autocast made of them."""
        return logits if logits.dtype == torch.float64 else logits.float()

    def metrics(self, logits: Tensor, age: Tensor) -> dict[str, Tensor]:
        """Scalars worth logging beside the loss (e.g. a mean K); none by default."""
        return {}


def age_grid(ages: tuple[int, int]) -> Tensor:
    """(A,) the whole ages that the classes stand for, float32."""
    return torch.arange(ages[0], ages[1] + 1, dtype=torch.float32)
