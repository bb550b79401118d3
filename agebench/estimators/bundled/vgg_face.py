"""The age network of deepface: VGG-Face with 101 classes, read from its Keras weights (HDF5)."""

import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from agebench.errors import AgebenchError
from agebench.estimators.bundled.wide_resnet import read_layers
from agebench.estimators.packages import FOLDER_VARIABLE

WEIGHTS = "age_model_weights.h5"


class VggFace(nn.Module):
    """Convolutions of 3 x 3 in stages that each end with a pooling, then fully connected layers written as convolutions.

    Args:
        layers: kernel (height, width, in, out) and bias of each convolution, in order.
        stages: number of convolutions before each pooling.

    Raises:
        AgebenchError: the kernels do not follow one another.
    """

    def __init__(self, layers: Sequence[tuple[np.ndarray, ...]], stages: Sequence[int] = (2, 2, 3, 3, 3)) -> None:
        super().__init__()
        self._pool_after = set(np.cumsum(stages).tolist())
        self._n_stages = int(sum(stages))
        self.convolutions = nn.ModuleList()
        width = 3
        for number, (kernel, bias) in enumerate(layers):
            if kernel.ndim != 4 or kernel.shape[2] != width:
                raise AgebenchError(
                    f"the kernel of convolution {number} has the shape {kernel.shape}; it needs {width} inputs"
                )
            width = kernel.shape[3]
            padding = kernel.shape[0] // 2 if number < self._n_stages else 0
            layer = nn.Conv2d(kernel.shape[2], width, kernel.shape[0], padding=padding)
            weight = torch.from_numpy(np.ascontiguousarray(kernel.transpose(3, 2, 0, 1)))
            layer.load_state_dict({"weight": weight, "bias": torch.from_numpy(bias)})
            self.convolutions.append(layer)

    def forward(self, faces: torch.Tensor) -> torch.Tensor:
        """Return the (B, A) probabilities of the ages.

        Args:
            faces: (B, 3, 224, 224), BGR from 0 to 1.
        """
        x = faces
        for number, layer in enumerate(self.convolutions, 1):
            x = layer(x)
            if number < len(self.convolutions):
                x = functional.relu(x)
            if number in self._pool_after:
                x = functional.max_pool2d(x, 2)
        return x.flatten(1).softmax(dim=1)


@cache
def _network() -> VggFace:
    layers = read_layers(Path(os.environ[FOLDER_VARIABLE]) / WEIGHTS)
    return VggFace([arrays for arrays in layers.values() if arrays[0].ndim == 4]).eval()


def estimate(faces: np.ndarray) -> np.ndarray:
    """Estimate age distributions with the downloaded weights; a callable for the model's card.

    Args:
        faces: (B, 3, 224, 224) float32, BGR from 0 to 1.

    Returns:
        (B, 101) probabilities of the ages 0 to 100.
    """
    with torch.inference_mode():
        probabilities: np.ndarray = _network()(torch.from_numpy(faces)).numpy()
    return probabilities
