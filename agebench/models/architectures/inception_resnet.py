"""Inception-ResNet-v1 (Szegedy et al. 2017) for faces, as a backbone for age.

Names and shapes of all tensors are those of facenet-pytorch, so that its files (trained on VGGFace2 or CASIA-WebFace) load
as they are.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from agebench.models.architectures.face_input import backbone_factory

SIZE = 160
MIN_SIZE = 80  # below, the last feature map is empty
WIDTH, EMBEDDING = 1792, 512
BATCH_NORM_EPS = 1e-3  # of TensorFlow, in which the published weights were trained
# Layers of a branch: output channels, kernel (height, width), stride, padding (height, width).
Layer = tuple[int, tuple[int, int], int, tuple[int, int]]
POINT, SQUARE, HALVING = ((1, 1), 1, (0, 0)), ((3, 3), 1, (1, 1)), ((3, 3), 2, (0, 0))
# Branches, and the factor of the residual, of the three kinds of residual block.
BLOCK_35: tuple[tuple[Layer, ...], ...] = (
    ((32, *POINT),),
    ((32, *POINT), (32, *SQUARE)),
    ((32, *POINT), (32, *SQUARE), (32, *SQUARE)),
)
BLOCK_17: tuple[tuple[Layer, ...], ...] = (
    ((128, *POINT),),
    ((128, *POINT), (128, (1, 7), 1, (0, 3)), (128, (7, 1), 1, (3, 0))),
)
BLOCK_8: tuple[tuple[Layer, ...], ...] = (
    ((192, *POINT),),
    ((192, *POINT), (192, (1, 3), 1, (0, 1)), (192, (3, 1), 1, (1, 0))),
)
# Branches of the blocks that halve the side; a maximum pooling is added to them.
REDUCTION_6A: tuple[tuple[Layer, ...], ...] = (
    ((384, *HALVING),),
    ((192, *POINT), (192, *SQUARE), (256, *HALVING)),
)
REDUCTION_7A: tuple[tuple[Layer, ...], ...] = (
    ((256, *POINT), (384, *HALVING)),
    ((256, *POINT), (256, *HALVING)),
    ((256, *POINT), (256, *SQUARE), (256, *HALVING)),
)


class _ConvUnit(nn.Module):
    """A convolution without bias, batch normalization and ReLU.

    Args:
        n_in: input channels.
        layer: output channels, kernel, stride and padding.
    """

    def __init__(self, n_in: int, layer: Layer) -> None:
        super().__init__()
        n_out, kernel, stride, padding = layer
        self.conv = nn.Conv2d(n_in, n_out, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(n_out, eps=BATCH_NORM_EPS)

    def forward(self, maps: Tensor) -> Tensor:
        """Return the activated maps of maps (B, n_in, H, W)."""
        return F.relu(self.bn(self.conv(maps)))


class Branches(nn.Module):
    """Parallel branches `branch0`, `branch1`, … of convolutions, whose outputs are concatenated.

    Args:
        n_in: input channels.
        specs: the layers of each branch. A branch of one layer is that layer; a longer one is a sequence.
        pools: whether a maximum pooling with stride 2 is the last branch.
    """

    def __init__(self, n_in: int, specs: Sequence[Sequence[Layer]], *, pools: bool = False) -> None:
        super().__init__()
        self.n_branches, self.pools = len(specs), pools
        self.n_out = sum(spec[-1][0] for spec in specs) + (n_in if pools else 0)
        for index, spec in enumerate(specs):
            widths = [n_in, *(layer[0] for layer in spec)]
            units = [_ConvUnit(width, layer) for width, layer in zip(widths, spec, strict=False)]
            self.add_module(f"branch{index}", units[0] if len(units) == 1 else nn.Sequential(*units))

    def forward(self, maps: Tensor) -> Tensor:
        """Return the concatenated outputs (B, n_out, H', W') of maps (B, n_in, H, W)."""
        outputs = [self.get_submodule(f"branch{index}")(maps) for index in range(self.n_branches)]
        return torch.cat([*outputs, F.max_pool2d(maps, 3, 2)] if self.pools else outputs, dim=1)


class _InceptionBlock(Branches):
    """A residual block: branches, mixed by a convolution, scaled, and added to the input.

    Args:
        width: input and output channels.
        specs: the layers of each branch.
        scale: factor of the residual.
        activated: whether a ReLU follows.
    """

    def __init__(self, width: int, specs: Sequence[Sequence[Layer]], scale: float, *, activated: bool = True) -> None:
        super().__init__(width, specs)
        self.scale, self.activated = scale, activated
        self.conv2d = nn.Conv2d(self.n_out, width, 1)

    def forward(self, maps: Tensor) -> Tensor:
        """Return the maps (B, width, H, W) of maps of the same shape."""
        mixed = maps + self.scale * self.conv2d(super().forward(maps))
        return F.relu(mixed) if self.activated else mixed


class InceptionResNetV1(nn.Module):
    """Images (B, 3, S, S) in [-1, 1], S at least 80 -> features of the age (B, 1792), the mean of the last feature map.

    Attributes:
        last_linear: features -> the embedding (B, 512) for face recognition, before `last_bn`; neither is trained for age.
    """

    num_features = WIDTH
    # The trunk in the order of computation; the layers of the two poolings have no tensors.
    _ORDER = (
        *("conv2d_1a", "conv2d_2a", "conv2d_2b", "pool", "conv2d_3b", "conv2d_4a", "conv2d_4b"),
        *("repeat_1", "mixed_6a", "repeat_2", "mixed_7a", "repeat_3", "block8"),
    )

    def __init__(self) -> None:
        super().__init__()
        self.conv2d_1a = _ConvUnit(3, (32, *HALVING))
        self.conv2d_2a = _ConvUnit(32, (32, (3, 3), 1, (0, 0)))
        self.conv2d_2b = _ConvUnit(32, (64, *SQUARE))
        self.conv2d_3b = _ConvUnit(64, (80, *POINT))
        self.conv2d_4a = _ConvUnit(80, (192, (3, 3), 1, (0, 0)))
        self.conv2d_4b = _ConvUnit(192, (256, *HALVING))
        self.repeat_1 = nn.Sequential(*(_InceptionBlock(256, BLOCK_35, 0.17) for _ in range(5)))
        self.mixed_6a = Branches(256, REDUCTION_6A, pools=True)
        self.repeat_2 = nn.Sequential(*(_InceptionBlock(896, BLOCK_17, 0.10) for _ in range(10)))
        self.mixed_7a = Branches(896, REDUCTION_7A, pools=True)
        self.repeat_3 = nn.Sequential(*(_InceptionBlock(WIDTH, BLOCK_8, 0.20) for _ in range(5)))
        self.block8 = _InceptionBlock(WIDTH, BLOCK_8, 1.0, activated=False)
        self.last_linear = nn.Linear(WIDTH, EMBEDDING, bias=False)
        self.last_bn = nn.BatchNorm1d(EMBEDDING, eps=BATCH_NORM_EPS)
        for module in (self.last_linear, self.last_bn):
            module.requires_grad_(False)

    def group_matcher(self) -> Callable[[str], int]:
        """Return the function from a parameter's name to its layer, as in timm."""
        order = [name for name in self._ORDER if name != "pool"]
        return lambda name: order.index(part) if (part := name.split(".")[0]) in order else len(order)

    def forward(self, images: Tensor) -> Tensor:
        """Return the features (B, 1792) of images (B, 3, S, S)."""
        maps = images
        for name in self._ORDER:
            maps = F.max_pool2d(maps, 3, 2) if name == "pool" else self.get_submodule(name)(maps)
        return maps.mean(dim=(2, 3))

    def embedding(self, images: Tensor) -> Tensor:
        """Return embeddings (B, 512), to be compared by their cosine, of images (B, 3, 160, 160)."""
        return self.last_bn(self.last_linear(self(images)))  # type: ignore[no-any-return]


create = backbone_factory(
    "agebench.inception-resnet-v1", InceptionResNetV1, InceptionResNetV1.num_features, default=SIZE, smallest=MIN_SIZE
)
