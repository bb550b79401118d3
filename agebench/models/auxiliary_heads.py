"""Auxiliary targets: classes such as gender, trained by cross-entropy.

They share the features of the age.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# The label of a face without a label.
UNKNOWN = -1


@runtime_checkable
class SupportsAuxiliaryTargets(Protocol):
    """A backbone with its own layers for auxiliary targets.

    Whole architectures have them; other backbones get a linear layer per target.
    """

    def add_task(self, name: str, classes: Sequence[str]) -> nn.Module:
        """Add an auxiliary target; return the module from features to its logits.

        The call may append columns to the features; the first columns remain those of the age.

        Args:
            name: the target, e.g. "gender".
            classes: its classes, in the order of the logits.
        """


class SelectColumns(nn.Module):
    """Select columns of the features.

    Args:
        order: the columns, in the order of the output.
    """

    order: Tensor

    def __init__(self, order: Sequence[int]) -> None:
        super().__init__()
        self.register_buffer("order", torch.tensor(list(order)), persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        """Return the selected columns (B, len(order)) of features (B, F)."""
        return features[:, self.order]


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the mean cross-entropy over the faces with a label; 0 if none has one.

    Args:
        logits: (B, C), one per class.
        labels: (B,) class indices, `UNKNOWN` for a face without a label.
    """
    total = F.cross_entropy(logits.float(), labels, ignore_index=UNKNOWN, reduction="sum")
    return total / (labels != UNKNOWN).sum().clamp(min=1)


def split_logits(
    logits: Tensor, age_width: int, classes: Mapping[str, Sequence[str]]
) -> tuple[Tensor, dict[str, Tensor]]:
    """Split a model's logits into those of the age and those of each auxiliary target.

    Args:
        logits: (B, F) of an `AgeModel`.
        age_width: the number of logits of the age.
        classes: auxiliary target -> its classes.

    Returns:
        The logits of the age (B, age_width), and of each auxiliary target (B, C).
    """
    age, *task_logits = torch.split(logits, [age_width, *(len(names) for names in classes.values())], dim=1)
    return age, dict(zip(classes, task_logits, strict=True))
