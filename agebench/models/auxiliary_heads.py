"""Targets beside age: classes such as gender, learned by cross-entropy on the same features."""

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# What stands in a batch of labels where a face has none.
UNKNOWN = -1


@runtime_checkable
class SupportsAuxiliaryTargets(Protocol):
    """A backbone that brings its own way to a target, as whole architectures do; others get a linear layer."""

    def add_task(self, name: str, classes: Sequence[str]) -> nn.Module:
        """What turns this backbone's features (B, F) into logits (B, len(classes)), in the order of `classes`.

        The features may grow at their end by this; the age's columns stay the first ones.
        """


class SelectColumns(nn.Module):
    """Some columns of the features, in the order given."""

    order: Tensor

    def __init__(self, order: Sequence[int]) -> None:
        super().__init__()
        self.register_buffer("order", torch.tensor(list(order)), persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        """(B, F) -> (B, len(order))."""
        return features[:, self.order]


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """The mean over the faces that have a label; 0 in a batch where none has.

    Args:
        logits: (B, C).
        labels: (B,) places among the classes, `UNKNOWN` where a face has no label.
    """
    total = F.cross_entropy(logits.float(), labels, ignore_index=UNKNOWN, reduction="sum")
    return total / (labels != UNKNOWN).sum().clamp(min=1)


def split_logits(
    logits: Tensor, age_width: int, classes: Mapping[str, Sequence[str]]
) -> tuple[Tensor, dict[str, Tensor]]:
    """A model's logits (B, F) -> the age's (B, age_width), and each target's (B, C)."""
    age, *others = torch.split(logits, [age_width, *(len(names) for names in classes.values())], dim=1)
    return age, dict(zip(classes, others, strict=True))
