"""IResNet-50, the network of ArcFace (Deng et al. 2019), as a backbone for age.

Names and shapes of all tensors are those of insightface's arcface_torch, so that its `backbone.pth` files load as they are.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from agebench.models.architectures.face_input import backbone_factory
from agebench.models.architectures.prelu import ChannelPReLU

SIZE = 112
DEPTHS = (3, 4, 14, 3)  # blocks per stage
WIDTHS = (64, 128, 256, 512)  # channels per stage
EMBEDDING = 512


class Block(nn.Module):
    """An improved residual block: normalization comes before the first and after both convolutions; no final activation.

    Args:
        n_in: input channels.
        n_out: output channels.
        stride: stride of the second convolution.
    """

    def __init__(self, n_in: int, n_out: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(n_in)
        self.conv1 = nn.Conv2d(n_in, n_out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(n_out)
        self.prelu = ChannelPReLU(n_out)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, stride, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(n_out)
        self.downsample = (
            nn.Sequential(nn.Conv2d(n_in, n_out, 1, stride, bias=False), nn.BatchNorm2d(n_out)) if stride > 1 else None
        )

    def forward(self, maps: Tensor) -> Tensor:
        """Return the maps (B, n_out, S / stride, S / stride) of maps (B, n_in, S, S)."""
        changed = self.bn3(self.conv2(self.prelu(self.bn2(self.conv1(self.bn1(maps))))))
        return changed + (maps if self.downsample is None else self.downsample(maps))  # type: ignore[no-any-return]


class IResNet50(nn.Module):
    """Images (B, 3, 112, 112) in [-1, 1] -> features of the age (B, 1024).

    The features are the mean of the last feature map and the embedding for face recognition, 512 each.

    Attributes:
        layer1: the first of four stages, each of which halves the side.
        fc: the last feature map -> the embedding, before the normalization `features`, whose weight stays 1.
    """

    num_features = WIDTHS[-1] + EMBEDDING

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, WIDTHS[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(WIDTHS[0])
        self.prelu = ChannelPReLU(WIDTHS[0])
        width = WIDTHS[0]
        for index, (depth, n_out) in enumerate(zip(DEPTHS, WIDTHS, strict=True), 1):
            blocks = [Block(width if number == 0 else n_out, n_out, 2 if number == 0 else 1) for number in range(depth)]
            self.add_module(f"layer{index}", nn.Sequential(*blocks))
            width = n_out
        self.bn2 = nn.BatchNorm2d(width)
        self.fc = nn.Linear(width * (SIZE // 16) ** 2, EMBEDDING)
        self.features = nn.BatchNorm1d(EMBEDDING)
        self.features.weight.requires_grad_(False)

    def group_matcher(self) -> Callable[[str], int]:
        """Return the function from a parameter's name to its layer, as in timm: one per block."""
        starts = {f"layer{index}": 1 + sum(DEPTHS[: index - 1]) for index in range(1, 5)}

        def layer(name: str) -> int:
            part, index = name.split(".")[:2]
            if part in starts:
                return starts[part] + int(index)
            return 1 + sum(DEPTHS) if part in ("bn2", "fc", "features") else 0

        return layer

    def forward(self, images: Tensor) -> Tensor:
        """Return the features (B, 1024) of images (B, 3, 112, 112)."""
        maps = self._maps(images)
        return torch.cat([maps.mean(dim=(2, 3)), self._embed(maps)], dim=1)

    def embedding(self, images: Tensor) -> Tensor:
        """Return embeddings (B, 512), to be compared by their cosine, of images (B, 3, 112, 112)."""
        return self._embed(self._maps(images))

    def _maps(self, images: Tensor) -> Tensor:
        maps = self.prelu(self.bn1(self.conv1(images)))
        for index in range(1, 5):
            maps = self.get_submodule(f"layer{index}")(maps)
        return self.bn2(maps)  # type: ignore[no-any-return]

    def _embed(self, maps: Tensor) -> Tensor:
        return self.features(self.fc(maps.flatten(1)))  # type: ignore[no-any-return]


create = backbone_factory("agebench.iresnet50", IResNet50, IResNet50.num_features, default=SIZE)
