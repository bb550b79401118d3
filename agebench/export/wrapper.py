"""What stands in an exported file, whatever the format: resizing, normalisation, network and decoding in one module."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from agebench.config.cards.base import Architecture
from agebench.models.heads import Head

# Writes a built model with this card to this path.
SaveFn = Callable[[Path, dict[str, Any]], None]


class ExportWrapper(nn.Module):
    """(N, C, H, W) uint8 RGB faces -> age, standard deviation, distribution. Of a model that sees bodies C is 6, else 3.

    The network may compute in another type than float32; preprocessing and head stay in float32.

    Args:
        backbone: the network, or its trace; in the type that it shall compute in.
        head: in float32.
        card: its input size and normalisation.
        precision: the backbone's type.
    """

    pixel_mean: Tensor  # ONNX names must differ from those of the answers
    pixel_std: Tensor

    def __init__(self, backbone: nn.Module, head: Head, card: Architecture, precision: torch.dtype) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.size, self.channels, self.features = card.size, card.channels, head.in_features
        self.precision = precision
        self.register_buffer("pixel_mean", _by_channel(card.mean, card.channels))
        self.register_buffer("pixel_std", _by_channel(card.std, card.channels))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Age (N,) years; std (N,) years, or (0,) where the head states none; probs (N, A), or (0, 0) likewise. float32."""
        features = self.backbone(self.normalised(images))
        said = self.head.decode(self.head(features.float()[:, : self.features]))
        return said.age, _or_empty(said.std, [0], images), _or_empty(said.probs, [0, 0], images)

    def normalised(self, images: Tensor) -> Tensor:
        """(N, C, S, S) in the backbone's type, as it was trained with; channels last, which convolutions on CPUs like."""
        pixels = (self.resized(images) / 255.0 - self.pixel_mean) / self.pixel_std
        return pixels.to(self.precision).contiguous(memory_format=torch.channels_last)

    def resized(self, images: Tensor) -> Tensor:
        """(N, C, S, S) float32, 0 to 255. TorchScript can branch: it checks sides, and leaves those of S x S alone."""
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
