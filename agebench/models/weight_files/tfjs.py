"""Read the weights of a TensorFlow.js model: a manifest in JSON and the binary files beside it."""

import json
from pathlib import Path

import numpy as np

from agebench.errors import UserError

_DTYPES = {"float32": "<f4", "float16": "<f2", "int32": "<i4", "uint8": "|u1", "uint16": "<u2"}


def read_weights(manifest: Path) -> dict[str, np.ndarray]:
    """Return name -> float32 or int32 array of a weights manifest, with quantized values restored.

    A quantized value q stands for q * scale + min.

    Args:
        manifest: the file `…-weights_manifest.json`; the files that it names lie beside it.

    Raises:
        UserError: a file cannot be read, is too short, or the manifest has another form.
    """
    weights: dict[str, np.ndarray] = {}
    try:
        for group in json.loads(manifest.read_text(encoding="utf-8")):
            content = b"".join((manifest.parent / Path(name).name).read_bytes() for name in group["paths"])
            position = 0
            for entry in group["weights"]:
                quantization = entry.get("quantization")
                dtype = np.dtype(_DTYPES[(quantization or entry)["dtype"]])
                count = int(np.prod(entry["shape"]))
                values = np.frombuffer(content, dtype, count, position)
                if quantization and "scale" in quantization:
                    values = values.astype(np.float64) * quantization["scale"] + quantization["min"]
                position += count * dtype.itemsize
                target = np.int32 if entry["dtype"] == "int32" else np.float32
                weights[entry["name"]] = values.astype(target).reshape(entry["shape"])
    except OSError as error:
        raise UserError(f"{error.filename}: cannot be read: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{manifest}: is no weights manifest of TensorFlow.js, or a file is cut off ({error})"
        ) from error
    return weights
