"""The age network of face-api.js: TinyXception on faces of 112 pixels, read from its weights manifest."""

import json
import os
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from agebench.errors import AgebenchError
from agebench.estimators.packages import FOLDER_VARIABLE

MANIFEST = "package/model/age_gender_model-weights_manifest.json"
_TYPES = {"float32": np.float32, "int32": np.int32, "uint8": np.uint8, "uint16": np.uint16, "float16": np.float16}


def read_weights(manifest: Path) -> dict[str, np.ndarray]:
    """Read the weights of a TensorFlow.js weights manifest, dequantized.

    Args:
        manifest: the JSON file; the files with the weights lie beside it.

    Raises:
        AgebenchError: the files are shorter or longer than the manifest states.
    """
    weights: dict[str, np.ndarray] = {}
    for group in json.loads(manifest.read_text(encoding="utf-8")):
        content = b"".join(_weights_file(manifest, name).read_bytes() for name in group["paths"])
        start = 0
        for entry in group["weights"]:
            quantization: dict[str, Any] = entry.get("quantization") or {}
            kind = np.dtype(_TYPES[quantization.get("dtype", entry["dtype"])])
            end = start + int(np.prod(entry["shape"], dtype=np.int64)) * kind.itemsize
            if end > len(content):
                raise AgebenchError(
                    f"{manifest}: its weights have {len(content):,} bytes; {entry['name']} ends at {end:,}"
                )
            values = np.frombuffer(content[start:end], kind).astype(np.float32)
            if "scale" in quantization:
                values = values * np.float32(quantization["scale"]) + np.float32(quantization["min"])
            weights[entry["name"]] = values.reshape(entry["shape"])
            start = end
        if start != len(content):
            raise AgebenchError(
                f"{manifest}: its weights have {len(content):,} bytes, and the manifest describes {start:,}"
            )
    return weights


def _weights_file(manifest: Path, name: str) -> Path:
    """Return the file with the weights; packages rename `…-shard1` to `….bin`."""
    path = manifest.parent / Path(name).name
    return path if path.is_file() else manifest.with_name(manifest.name.replace("-weights_manifest.json", ".bin"))


class TinyXception(nn.Module):
    """Depthwise separable convolutions with residual connections, and two linear layers: the age in years, and the gender.

    Args:
        weights: the arrays of the manifest, by name; convolutions are (height, width, in, out).
    """

    def __init__(self, weights: dict[str, np.ndarray]) -> None:
        super().__init__()
        self._keys = {}
        for name, values in weights.items():
            key = name.replace("/", "__")
            self.register_buffer(key, torch.from_numpy(_to_torch(name, values)))
            self._keys[name] = key

    def forward(self, faces: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Estimate ages and genders.

        Args:
            faces: (B, 3, 112, 112), normalized.

        Returns:
            (B,) ages, years, and (B, 2) probabilities of male and female.
        """
        x = functional.relu(self._convolve(faces, "entry_flow/conv_in", stride=2))
        x = self._reduce(x, "entry_flow/reduction_block_0", activate=False)
        x = self._reduce(x, "entry_flow/reduction_block_1")
        for number in (0, 1):
            block = f"middle_flow/main_block_{number}"
            y = x
            for layer in range(3):
                y = self._separable(functional.relu(y), f"{block}/separable_conv{layer}")
            x = x + y
        x = self._reduce(x, "exit_flow/reduction_block")
        x = functional.relu(self._separable(x, "exit_flow/separable_conv"))
        pooled = functional.avg_pool2d(x, 7, 2).flatten(1)
        age, gender = (
            pooled @ self._weight(f"fc/{name}/weights") + self._weight(f"fc/{name}/bias") for name in ("age", "gender")
        )
        return age[:, 0], gender.softmax(1)

    def _weight(self, name: str) -> torch.Tensor:
        weight: torch.Tensor = getattr(self, self._keys[name])
        return weight

    def _convolve(self, x: torch.Tensor, name: str, *, stride: int) -> torch.Tensor:
        filters = self._weight(f"{name}/filters")
        x = _pad_same(x, filters.shape[-1], stride)
        return functional.conv2d(x, filters, self._weight(f"{name}/bias"), stride)

    def _separable(self, x: torch.Tensor, name: str) -> torch.Tensor:
        x = functional.conv2d(x, self._weight(f"{name}/depthwise_filter"), padding=1, groups=x.shape[1])
        return functional.conv2d(x, self._weight(f"{name}/pointwise_filter"), self._weight(f"{name}/bias"))

    def _reduce(self, x: torch.Tensor, name: str, *, activate: bool = True) -> torch.Tensor:
        y = self._separable(functional.relu(x) if activate else x, f"{name}/separable_conv0")
        y = self._separable(functional.relu(y), f"{name}/separable_conv1")
        y = functional.max_pool2d(_pad_same(y, 3, 2, -torch.inf), 3, 2)
        return y + self._convolve(x, f"{name}/expansion_conv", stride=2)


def _to_torch(name: str, values: np.ndarray) -> np.ndarray:
    """Return an array in torch's order: (out, in, height, width), and (in, 1, height, width) of depthwise filters."""
    if values.ndim != 4:
        return np.ascontiguousarray(values)
    order = (2, 3, 0, 1) if name.endswith("depthwise_filter") else (3, 2, 0, 1)
    return np.ascontiguousarray(values.transpose(order))


def _pad_same(x: torch.Tensor, size: int, stride: int, value: float = 0.0) -> torch.Tensor:
    """Pad as TensorFlow's `same`: the larger half at the bottom and on the right."""
    padding = []
    for length in (x.shape[-1], x.shape[-2]):
        total = max(0, (-(-length // stride) - 1) * stride + size - length)
        padding += [total // 2, total - total // 2]
    return functional.pad(x, padding, value=value)


@cache
def _network() -> TinyXception:
    return TinyXception(read_weights(Path(os.environ[FOLDER_VARIABLE]) / MANIFEST)).eval()


def estimate(faces: np.ndarray) -> dict[str, np.ndarray]:
    """Estimate ages and genders with the weights of the fetched package; a callable for the model's card.

    Args:
        faces: (B, 3, 112, 112) float32: (RGB byte - channel mean) / 255.

    Returns:
        `age`: (B,) years; `gender`: (B, 2) probabilities of male and female.
    """
    with torch.inference_mode():
        ages, genders = _network()(torch.from_numpy(faces))
    return {"age": ages.numpy(), "gender": genders.numpy()}
