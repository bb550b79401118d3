"""Soft labels for ordinal regression."""

from typing import Any

from torch import Tensor

from agebench.models.heads._distribution import DistributionHead, relative_log_weights


class SORDHead(DistributionHead):
    """Cross-entropy to softmax(-distance).

    The loss of a wrong age increases with its distance from the label.

    Diaz & Marathe: Soft Labels for Ordinal Regression. CVPR 2019, eq. 1 and 2.

    Args:
        in_features: width of the backbone's features.
        ages: first and last age.
        distance: "absolute" or "squared" difference of ages.
        scale: factor of the distance; smaller values give softer labels.
        options: `decode` and `dropout` of `DistributionHead`.
    """

    def __init__(
        self,
        in_features: int,
        ages: tuple[int, int] = (0, 100),
        *,
        distance: str = "absolute",
        scale: float = 1.0,
        **options: Any,
    ) -> None:
        super().__init__(in_features, ages, **options)
        if distance not in ("absolute", "squared"):
            raise TypeError(f"distance = {distance!r}: must be absolute or squared")
        self.power = 1 if distance == "absolute" else 2
        self.scale = scale

    def labels(self, age: Tensor) -> Tensor:
        """Return the soft labels (B, A) of ages (B,) within the head's range."""
        distance = (self.grid.to(age.dtype) - age[:, None]).abs() ** self.power
        return relative_log_weights(-self.scale * distance).softmax(dim=1)

    def sample_losses(self, log_probs: Tensor, age: Tensor) -> Tensor:
        """Return the cross-entropy to the soft labels, (B,).

        Args:
            log_probs: (B, A) log probabilities of the classes.
            age: (B,) labels in years, within the head's range.
        """
        return -(self.labels(age) * log_probs).sum(dim=1)
