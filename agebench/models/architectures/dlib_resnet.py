"""dlib's face-recognition network (King 2017), a ResNet of 29 convolutions, as a backbone for age.

Its batch normalization is folded into the convolutions, because the published weights contain affine layers instead.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from agebench.errors import UserError
from agebench.models.architectures.face_input import backbone_factory
from agebench.models.weight_files.tfjs import read_weights

SIZE = 150
MIN_SIZE = 112  # below, the last feature map is too small for a kernel
EMBEDDING = 128
# Name of a block in the published weights, its output channels, and whether it halves the side.
BLOCKS = (
    *((f"conv32_{index}", 32, False) for index in (1, 2, 3)),
    ("conv64_down", 64, True),
    *((f"conv64_{index}", 64, False) for index in (1, 2, 3)),
    ("conv128_down", 128, True),
    *((f"conv128_{index}", 128, False) for index in (1, 2)),
    ("conv256_down", 256, True),
    *((f"conv256_{index}", 256, False) for index in (1, 2)),
    ("conv256_down_out", 256, True),
)


class Residual(nn.Module):
    """A residual block of two 3 x 3 convolutions.

    A block that halves the side convolves without padding and averages its shortcut; the smaller map and the missing channels
    of the shortcut are filled with zeros.

    Args:
        n_in: input channels.
        n_out: output channels.
        halves: whether the block halves the side.
    """

    def __init__(self, n_in: int, n_out: int, halves: bool) -> None:
        super().__init__()
        self.halves = halves
        self.conv1 = nn.Conv2d(n_in, n_out, 3, 2 if halves else 1, 0 if halves else 1)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, padding=1)

    def forward(self, maps: Tensor) -> Tensor:
        """Return the maps (B, n_out, S', S') of maps (B, n_in, S, S)."""
        changed = self.conv2(F.relu(self.conv1(maps)))
        if not self.halves:
            return F.relu(maps + changed)
        shortcut = F.avg_pool2d(maps, 2)
        missing = shortcut.shape[-1] - changed.shape[-1]
        changed = F.pad(changed, (0, missing, 0, missing))
        shortcut = F.pad(shortcut, (0, 0, 0, 0, 0, changed.shape[1] - shortcut.shape[1]))
        return F.relu(shortcut + changed)


class DlibResNet(nn.Module):
    """Images (B, 3, S, S), S at least 112 -> features of the age (B, 256), the mean of the last feature map.

    Attributes:
        stem: the first convolution.
        blocks: fourteen residual blocks.
        recognition: features -> the descriptor (B, 128) for face recognition; not trained for age.
    """

    num_features = 256

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 7, 2)
        blocks, width = [], 32
        for _, n_out, halves in BLOCKS:
            blocks.append(Residual(width, n_out, halves))
            width = n_out
        self.blocks = nn.Sequential(*blocks)
        self.recognition = nn.Linear(width, EMBEDDING, bias=False)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]
        for block in blocks:  # each block starts as its shortcut, because no normalization bounds the sum
            nn.init.zeros_(block.conv2.weight)
        self.recognition.requires_grad_(False)

    def group_matcher(self) -> Callable[[str], int]:
        """Return the function from a parameter's name to its layer, as in timm."""

        def layer(name: str) -> int:
            part, index = name.split(".")[:2]
            return 1 + int(index) if part == "blocks" else 0 if part == "stem" else len(BLOCKS) + 1

        return layer

    def forward(self, images: Tensor) -> Tensor:
        """Return the features (B, 256) of images (B, 3, S, S)."""
        maps = F.max_pool2d(F.relu(self.stem(images)), 3, 2)
        return self.blocks(maps).mean(dim=(2, 3))  # type: ignore[no-any-return]

    def embedding(self, images: Tensor) -> Tensor:
        """Return descriptors (B, 128) for face recognition of images (B, 3, 150, 150)."""
        return self.recognition(self(images))  # type: ignore[no-any-return]


create = backbone_factory("agebench.dlib-resnet", DlibResNet, DlibResNet.num_features, default=SIZE, smallest=MIN_SIZE)


def convert_tfjs(manifest: Path) -> dict[str, Tensor]:
    """Return the state dict of the published weights in TensorFlow.js files, with the affine layers folded.

    Args:
        manifest: `face_recognition_model-weights_manifest.json` of face-api.

    Raises:
        UserError: the files cannot be read, or contain another network.
    """
    weights = read_weights(manifest)
    sources = {"stem": "conv32_down"}
    for index, (name, _, _) in enumerate(BLOCKS):
        sources |= {f"blocks.{index}.{layer}": f"{name}/{layer}" for layer in ("conv1", "conv2")}
    try:
        state = {"recognition.weight": torch.from_numpy(np.ascontiguousarray(weights["fc"].T))}
        for target, source in sources.items():
            kernel, bias = weights[f"{source}/conv/filters"], weights[f"{source}/conv/bias"]
            scale, shift = weights[f"{source}/scale/weights"], weights[f"{source}/scale/biases"]
            folded = (kernel * scale).transpose(3, 2, 0, 1)  # (H, W, in, out) -> (out, in, H, W)
            state[f"{target}.weight"] = torch.from_numpy(np.ascontiguousarray(folded))
            state[f"{target}.bias"] = torch.from_numpy(bias * scale + shift)
    except KeyError as error:
        raise UserError(f"{manifest}: {error} is missing; this is not face-api's face_recognition_model") from error
    return state
