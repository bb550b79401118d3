"""The contract of all heads."""

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor, nn

from agebench._deprecated import renamed_methods
from agebench.errors import UserError


class AgeEstimate(NamedTuple):
    """A head's estimates for a batch of B faces; all float32.

    Attributes:
        age: (B,) years.
        probs: (B, A), one probability for each whole age from `head.ages[0]` to `head.ages[1]`, or None.
        std: (B,) years, the standard deviation that the head estimates, or None.
    """

    age: Tensor
    probs: Tensor | None
    std: Tensor | None


@renamed_methods(prepare="init_from_ages", wide="upcast")
class Head(nn.Module, ABC):
    """Features (B, in_features) -> logits (B, out_features) -> age.

    `loss` and `decode` compute in float32 (or wider) for logits of any type. `decode` and `forward` are scriptable.

    Args:
        in_features: width of the backbone's features.
        ages: first and last age in whole years, both included: A = last - first + 1 classes.

    Attributes:
        supports_mixing: whether the loss may be computed twice per batch, with the labels of either image of a mixup pair.
    """

    ages: tuple[int, int]
    in_features: int
    out_features: int
    supports_mixing = True

    def __init__(self, in_features: int, ages: tuple[int, int]) -> None:
        super().__init__()
        if ages[0] >= ages[1]:
            raise ValueError(f"ages {ages}: the first must be below the last")
        self.in_features = in_features
        self.ages = ages

    def init_from_ages(self, ages: Tensor) -> None:
        """Set scale or biases from the ages of the training set.

        Called once, before training.

        Args:
            ages: (N,) float years.
        """

    def smooth_labels(self, std: float) -> None:
        """Train from now on with a normal distribution around each label.

        Args:
            std: standard deviation of the distribution, years.

        Raises:
            UserError: the head's loss has no cross-entropy to a label distribution.
        """
        raise UserError(
            f"train.label_smoothing = {std:g}: {type(self).__name__} has no cross-entropy over ages. Leave label_smoothing out, "
            "choose the head classification, mean-variance or mean-residue, or set the label distribution of dldl, dldl-v2 "
            "(head_options.sigma) or sord (head_options.scale)"
        )

    @abstractmethod
    def forward(self, features: Tensor) -> Tensor:
        """Return logits (B, out_features) for features (B, in_features)."""

    @abstractmethod
    def loss(self, logits: Tensor, age: Tensor) -> Tensor:
        """Return the mean loss over the batch, a scalar.

        Args:
            logits: (B, out_features), from `forward`.
            age: (B,) float years.
        """

    @abstractmethod
    def decode(self, logits: Tensor) -> AgeEstimate:
        """Return the estimates for logits (B, out_features)."""

    def upcast(self, logits: Tensor) -> Tensor:
        """Return the logits in float32 or wider; autocast may have rounded them."""
        return logits if logits.dtype == torch.float64 else logits.float()

    def metrics(self, logits: Tensor, age: Tensor) -> dict[str, Tensor]:
        """Return scalars to log beside the loss (e.g. a mean K); none by default.

        Args:
            logits: (B, out_features), from `forward`.
            age: (B,) float years.
        """
        return {}


def is_autocast(values: Tensor) -> bool:
    """Return whether autocast would round the products of these values to 16 bits.

    Args:
        values: a tensor on any device.
    """
    device = values.device.type
    return torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)


def age_grid(ages: tuple[int, int]) -> Tensor:
    """Return the whole ages (A,) of the classes, float32.

    Args:
        ages: first and last age, both included.
    """
    return torch.arange(ages[0], ages[1] + 1, dtype=torch.float32)


def average_estimates(first: AgeEstimate, second: AgeEstimate) -> AgeEstimate:
    """Return the mean of the estimates of two views of the same faces; scriptable.

    Ages and probabilities are averaged; the standard deviation is that of the equal mixture of both distributions.

    Args:
        first: estimates of one view.
        second: estimates of the other view, from the same head.
    """
    age = (first.age + second.age) / 2
    first_probs, second_probs, first_std, second_std = first.probs, second.probs, first.std, second.std
    difference = first.age - second.age
    probs: Tensor | None = None
    if first_probs is not None and second_probs is not None:
        probs = (first_probs + second_probs) / 2
        grid = torch.arange(probs.shape[1], dtype=probs.dtype, device=probs.device)
        difference = ((first_probs - second_probs) * grid).sum(dim=1)  # of the means; the decoded age may be a median
    std: Tensor | None = None
    if first_std is not None and second_std is not None:
        std = ((first_std.square() + second_std.square()) / 2 + difference.square() / 4).sqrt()
    return AgeEstimate(age, probs, std)
