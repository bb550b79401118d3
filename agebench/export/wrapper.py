"""The module inside an exported file of any format: resizing, normalization, network and decoding."""

from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from agebench.config.cards.model import Architecture
from agebench.estimators.exported.card import ExportCard
from agebench.models.heads import AgeEstimate, Head, average_estimates

# Writes a built model with this card to this path.
SaveFn = Callable[[Path, ExportCard], None]


class ExportWrapper(nn.Module):
    """(N, C, H, W) uint8 RGB faces -> age, standard deviation, distribution; C is 6 for a model that sees bodies, else 3.

    The network may compute in another type than float32; preprocessing and head use float32.

    Args:
        backbone: the network or its trace, in the type in which it computes.
        head: the head, in float32.
        card: the architecture, with input size and normalization.
        precision: type of the backbone.
        flip: whether estimates are the mean over a face and its mirror image.
    """

    pixel_mean: Tensor  # in ONNX, names must differ from those of the outputs
    pixel_std: Tensor

    def __init__(
        self, backbone: nn.Module, head: Head, card: Architecture, precision: torch.dtype, *, flip: bool = False
    ) -> None:
        super().__init__()
        self.flip = flip
        self.backbone = backbone
        self.head = head
        self.size, self.channels, self.features = card.size, card.channels, head.in_features
        self.precision = precision
        self.register_buffer("pixel_mean", _by_channel(card.mean, card.channels))
        self.register_buffer("pixel_std", _by_channel(card.std, card.channels))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Estimate ages.

        Args:
            images: (N, C, H, W) uint8.

        Returns:
            float32 age (N,) in years; std (N,) in years, or (0,) if the head predicts none; probs (N, A), or (0, 0) if
            the head predicts none.
        """
        pixels = self.normalized(images)
        estimate = self.decoded(pixels)
        if self.flip:
            mirrored = pixels.flip([3]).contiguous(memory_format=torch.channels_last)
            estimate = average_estimates(estimate, self.decoded(mirrored))
        return estimate.age, _or_empty(estimate.std, [0], images), _or_empty(estimate.probs, [0, 0], images)

    def decoded(self, pixels: Tensor) -> AgeEstimate:
        """Return the estimates for normalized images (N, C, S, S)."""
        return self.head.decode(self.head(self.backbone(pixels).float()[:, : self.features]))

    def normalized(self, images: Tensor) -> Tensor:
        """Resize and normalize images, as in training.

        Args:
            images: (N, C, H, W) uint8.

        Returns:
            (N, C, S, S) in the backbone's type; channels last, which is faster for convolutions on CPUs.
        """
        pixels = (self.resized(images) / 255.0 - self.pixel_mean) / self.pixel_std
        return pixels.to(self.precision).contiguous(memory_format=torch.channels_last)

    def resized(self, images: Tensor) -> Tensor:
        """Resize images; TorchScript, which can branch, checks the sides and skips images of S x S.

        Args:
            images: (N, C, H, W) uint8.

        Returns:
            (N, C, S, S) float32, 0 to 255.
        """
        if torch.jit.is_scripting():  # type: ignore[attr-defined]
            _check(images, self.channels)
            if images.size(2) == self.size and images.size(3) == self.size:
                return images.float()
        return F.interpolate(
            images.float(), [self.size, self.size], mode="bilinear", align_corners=False, antialias=True
        )


def _or_empty(values: Tensor | None, shape: list[int], images: Tensor) -> Tensor:
    if values is None:
        return torch.zeros(shape, device=images.device)
    return values


def _by_channel(values: tuple[float, float, float], channels: int) -> Tensor:
    return torch.tensor(values).repeat(channels // 3).view(1, -1, 1, 1)


def _check(images: Tensor, channels: int) -> None:
    if images.dtype != torch.uint8 or images.dim() != 4 or images.size(1) != channels:
        raise ValueError("images must be uint8 RGB of shape (N, 3, H, W); with bodies (N, 6, H, W), the face first")
    if min(images.size(2), images.size(3)) < 32 or max(images.size(2), images.size(3)) > 1024:
        raise ValueError("images must be 32 to 1024 pixels wide and high")
