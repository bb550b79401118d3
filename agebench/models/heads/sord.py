"""Soft ordinal labels."""

from typing import Any

from torch import Tensor

from agebench.models.heads.distribution import FAINTEST, DistributionHead


class SORDHead(DistributionHead):
    """Cross-entropy to softmax(-distance): a wrong age costs the less, the nearer it is.

    Diaz & Marathe: Soft Labels for Ordinal Regression. CVPR 2019, eq. 1 and 2.

    Args:
        in_features: width of the backbone's features.
        ages: first and last age.
        distance: "absolute" or "squared" difference of ages.
        scale: factor of the distance; smaller is softer.
        options: see `DistributionHead`.
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
            raise TypeError(f"distance = {distance!r}: absolute or squared")
        self.power = 1 if distance == "absolute" else 2
        self.scale = scale

    def labels(self, age: Tensor, like: Tensor) -> Tensor:
        """(B, A) soft labels."""
        difference = (self.grid.to(like.dtype)[None, :] - self.inside(age).to(like.dtype)[:, None]).abs()
        return (-self.scale * difference**self.power).clamp(min=FAINTEST).softmax(dim=1)

    def loss(self, logits: Tensor, age: Tensor) -> Tensor:
        """Mean cross-entropy to the soft labels."""
        logits = self.wide(logits)
        return -(self.labels(age, logits) * logits.log_softmax(dim=1)).sum(dim=1).mean()
