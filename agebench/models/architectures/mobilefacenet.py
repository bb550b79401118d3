"""MobileFaceNet (Chen, Liu, Gao, Han 2018): a small face-recognition network as a backbone for age.

The layers are those of sirius-ai's TensorFlow implementation, whose published weights have 1.29 million parameters and
contain batch normalization folded into the convolutions.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from agebench.errors import UserError
from agebench.models.architectures.face_input import backbone_factory
from agebench.models.architectures.prelu import ChannelPReLU
from agebench.models.weight_files.tflite import Convolution, read_convolutions

SIZE = 112
STRIDE = 16  # of the last feature map
STEM = 64  # channels
# Channels inside and behind a bottleneck block, stride of the first block, number of blocks.
STAGES = ((128, 64, 2, 5), (256, 128, 2, 1), (256, 128, 1, 6), (512, 128, 2, 1), (256, 128, 1, 2))
WIDTH = 512  # channels of the last feature map
POOL = SIZE // STRIDE  # side of the kernel of the global depthwise convolution
EMBEDDING = 192


class SameConv(nn.Conv2d):
    """A convolution with TensorFlow's padding `SAME`: where the padding is odd, the right and the lower edge get more.

    Args:
        n_in: input channels.
        n_out: output channels.
        kernel: side of the kernel.
        stride: the stride in both directions.
        depthwise: whether each channel has its own kernel.
    """

    def __init__(self, n_in: int, n_out: int, kernel: int = 1, stride: int = 1, *, depthwise: bool = False) -> None:
        # With stride 1 the padding is symmetric; with stride 2 and an even side it is on the right and below.
        super().__init__(
            n_in, n_out, kernel, stride, kernel // 2 if stride == 1 else 0, groups=n_in if depthwise else 1
        )

    def forward(self, images: Tensor) -> Tensor:
        """Return the convolution of images (B, C, S, S)."""
        if self.stride[0] > 1:
            # The output's side is ceil(S / stride): the last kernel starts at stride * (ceil(S / stride) - 1).
            total = self.kernel_size[0] - ((images.shape[-1] - 1) % self.stride[0] + 1)
            images = F.pad(images, (total // 2, total - total // 2) * 2)
        return super().forward(images)


def _activated(convolution: SameConv) -> nn.Sequential:
    return nn.Sequential(convolution, ChannelPReLU(convolution.out_channels))


class _Bottleneck(nn.Module):
    """An inverted residual block: expand, filter each channel, project; with a shortcut where the shape stays.

    Args:
        n_in: input channels.
        hidden: channels between expansion and projection.
        n_out: output channels.
        stride: stride of the depthwise convolution.
    """

    def __init__(self, n_in: int, hidden: int, n_out: int, stride: int) -> None:
        super().__init__()
        self.expand = _activated(SameConv(n_in, hidden))
        self.depthwise = _activated(SameConv(hidden, hidden, 3, stride, depthwise=True))
        self.project = SameConv(hidden, n_out)
        self.has_shortcut = stride == 1 and n_in == n_out

    def forward(self, maps: Tensor) -> Tensor:
        """Return the maps (B, n_out, S / stride, S / stride) of maps (B, n_in, S, S)."""
        changed = self.project(self.depthwise(self.expand(maps)))
        return maps + changed if self.has_shortcut else changed  # type: ignore[no-any-return]


class MobileFaceNet(nn.Module):
    """Images (B, 3, S, S) in [-1, 1], S at least 112 -> features of the age (B, 1024).

    The features are the mean of the last feature map and its global depthwise convolution, 512 each. There is no batch
    normalization, because that of the published weights is folded into the convolutions.

    Attributes:
        stem: two convolutions with PReLU and one linear one.
        blocks: fifteen inverted residual blocks.
        last: the convolution before pooling.
        pool: the global depthwise convolution, one kernel of 7 x 7 per channel.
        recognition: the pooled features -> the embedding (B, 192) for face recognition; not trained for age.
    """

    num_features = 2 * WIDTH

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            _activated(SameConv(3, STEM, 3, 2)),
            _activated(SameConv(STEM, STEM, 3, depthwise=True)),
            SameConv(STEM, STEM),
        )
        blocks, width = [], STEM
        for hidden, n_out, stride, count in STAGES:
            for index in range(count):
                blocks.append(_Bottleneck(width, hidden, n_out, stride if index == 0 else 1))
                width = n_out
        self.blocks = nn.Sequential(*blocks)
        self.last = _activated(SameConv(width, WIDTH))
        self.pool = nn.Conv2d(WIDTH, WIDTH, POOL, groups=WIDTH)
        self.recognition = nn.Sequential(nn.Conv2d(WIDTH, WIDTH, 1), nn.Conv2d(WIDTH, EMBEDDING, 1))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, a=0.25)
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]
        for block in blocks:  # each block starts as its shortcut, because no normalization bounds the sum
            if block.has_shortcut:
                nn.init.zeros_(block.project.weight)
        self.recognition.requires_grad_(False)

    def group_matcher(self) -> Callable[[str], int]:
        """Return the function from a parameter's name to its layer, as in timm."""
        n_blocks = len(self.blocks)

        def layer(name: str) -> int:
            part, index = name.split(".")[:2]
            return {"stem": 0, "blocks": 1 + int(index) if part == "blocks" else 0}.get(part, n_blocks + 1)

        return layer

    def forward(self, images: Tensor) -> Tensor:
        """Return the features (B, 1024) of images (B, 3, S, S)."""
        maps = self.maps(images)
        return torch.cat([maps.mean(dim=(2, 3)), self.pool(maps).mean(dim=(2, 3))], dim=1)

    def maps(self, images: Tensor) -> Tensor:
        """Return the last feature map (B, 512, S / 16, S / 16) of images (B, 3, S, S)."""
        return self.last(self.blocks(self.stem(images)))  # type: ignore[no-any-return]

    def embedding(self, images: Tensor) -> Tensor:
        """Return recognition embeddings (B, 192), to be compared by their cosine, of images (B, 3, 112, 112)."""
        return self.recognition(self.pool(self.maps(images))).mean(dim=(2, 3))  # type: ignore[no-any-return]


create = backbone_factory(
    "agebench.mobilefacenet", MobileFaceNet, MobileFaceNet.num_features, default=SIZE, smallest=SIZE
)


def convert_tflite(path: Path) -> dict[str, Tensor]:
    """Return the state dict of the published weights in a TFLite file.

    The graph's convolutions are in the order of the modules here. A PReLU is written as relu(x) + constant * (x - |x|), and
    its slope is twice the constant.

    Args:
        path: `MobileFaceNet.tflite` of sirius-ai's network.

    Raises:
        UserError: the file is no TFLite file, or contains another network.
    """
    network = MobileFaceNet()
    published = read_convolutions(path)
    modules = list(_convolutions(network))
    if len(published) != len(modules):
        raise UserError(f"{path}: contains {len(published)} convolutions; MobileFaceNet has {len(modules)}")
    state: dict[str, Tensor] = {}
    for source, (name, module, activation) in zip(published, modules, strict=True):
        kernel = _kernel(source, depthwise=module.groups > 1)
        if kernel.shape != module.weight.shape or (source.slope is None) != (activation is None):
            raise UserError(
                f"{path}: the convolution {source.name} has a kernel of {tuple(kernel.shape)} and does not fit {name}, "
                f"{tuple(module.weight.shape)}; this is not the MobileFaceNet of sirius-ai"
            )
        state |= {f"{name}.weight": kernel, f"{name}.bias": torch.from_numpy(source.bias.copy())}
        if activation is not None and source.slope is not None:
            state[f"{activation}.weight"] = torch.from_numpy(source.slope.copy())
    return state


def _kernel(source: Convolution, *, depthwise: bool) -> Tensor:
    """Return a kernel as torch orders it: from (out, H, W, in), of a depthwise convolution from (1, H, W, channels)."""
    kernel = torch.from_numpy(source.kernel.copy())
    return (kernel.permute(3, 0, 1, 2) if depthwise else kernel.permute(0, 3, 1, 2)).contiguous()


def _convolutions(network: MobileFaceNet) -> Iterator[tuple[str, nn.Conv2d, str | None]]:
    """Yield name and module of each convolution in the order of the graph, and the name of its PReLU if it has one."""
    modules = dict(network.named_modules())
    for name, module in modules.items():
        if isinstance(module, nn.Conv2d):
            parent, _, index = name.rpartition(".")
            following = f"{parent}.{int(index) + 1}" if index.isdigit() else ""
            yield name, module, following if isinstance(modules.get(following), nn.PReLU) else None
