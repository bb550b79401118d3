"""Run TensorFlow Lite files with LiteRT, their own runtime. A file holds no code; custom operations are refused by the runtime.

LiteRT reads damaged files without checks and can end its process. Each file is therefore loaded and called once in a process of
its own (`python -m agebench.estimators.external.tflite FILE DTYPE SIZE…`) before this process opens it.
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from agebench.config.cards.external import ExternalCard
from agebench.errors import UserError
from agebench.estimators.external.io_spec import pick_name, prepare
from agebench.estimators.external.model_files import ModelCall, accepted, readable


def open_tflite(card: ExternalCard, path: Path, device: str) -> ModelCall:
    """Open a TensorFlow Lite file.

    The batch of the file is set to the number of faces; a file whose batch is fixed gets whole batches, filled with black
    faces.

    Args:
        card: the model's card; its input layout must be that of the file, mostly nhwc.
        path: the .tflite file.
        device: not used; LiteRT computes on the CPU.

    Raises:
        UserError: LiteRT is not installed, or the file cannot be read, ends the runtime's process, or has several inputs.
    """
    if importlib.util.find_spec("ai_edge_litert") is None:
        raise UserError(
            f"model '{card.name}' is TensorFlow Lite, and LiteRT is not installed: pip install 'agebench[tflite]'"
        )
    _try_apart(card, path)
    with readable(card, path, "a TensorFlow Lite model"):
        interpreter = _load(path)
        inputs = interpreter.get_input_details()
        if len(inputs) != 1:
            raise UserError(f"model '{card.name}': {path} has {len(inputs)} inputs; one, the face, is supported")
        interpreter.allocate_tensors()
    known = [str(output["name"]) for output in interpreter.get_output_details()]
    positions = [known.index(pick_name(known, name, card.name)) for name in card.output.reads]

    def call(batch: np.ndarray) -> list[np.ndarray]:
        with accepted(card, batch):
            return _run(interpreter, batch, positions)

    return call


def _load(path: Path) -> Any:
    from ai_edge_litert.interpreter import Interpreter

    return Interpreter(model_content=path.read_bytes(), num_threads=int(os.environ.get("OMP_NUM_THREADS") or 1))


def _try_apart(card: ExternalCard, path: Path) -> None:
    """Load a file and call it with one black face, in a process of its own.

    Raises:
        UserError: the process died or did not end in time. Errors that the runtime reports are left to the caller.
    """
    face = prepare(np.zeros((1, card.input.size, card.input.size, 3), np.uint8), card.input)
    words = [sys.executable, "-m", __name__, str(path), str(face.dtype), *map(str, face.shape)]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(entry or os.getcwd() for entry in sys.path)}
    damaged = f"model '{card.name}': {path} is damaged: the TensorFlow Lite runtime"
    way_out = "compare its digest with that of its source, or download it again"
    try:
        ended = subprocess.run(
            words, env=env, stdin=subprocess.DEVNULL, capture_output=True, timeout=card.timeout, check=False
        )
    except subprocess.TimeoutExpired:
        raise UserError(f"{damaged} did not answer for one face within {card.timeout:g} s; {way_out}") from None
    if ended.returncode < 0:
        raise UserError(f"{damaged} was ended by signal {-ended.returncode} while it read or ran the file; {way_out}")


def _run(interpreter: Any, batch: np.ndarray, positions: list[int]) -> list[np.ndarray]:
    """Return outputs for a batch, in several calls where the file's batch is fixed."""
    details = interpreter.get_input_details()[0]
    signature = details.get("shape_signature", details["shape"])
    size = len(batch) if int(signature[0]) == -1 else int(details["shape"][0])
    parts: list[list[np.ndarray]] = [[] for _ in positions]
    for start in range(0, len(batch), size):
        faces = batch[start : start + size]
        padding = np.zeros((size - len(faces), *faces.shape[1:]), faces.dtype)
        if tuple(details["shape"]) != (size, *faces.shape[1:]):
            interpreter.resize_tensor_input(details["index"], (size, *faces.shape[1:]), strict=True)
            interpreter.allocate_tensors()
            details = interpreter.get_input_details()[0]
        interpreter.set_tensor(details["index"], _quantized(np.concatenate([faces, padding]), details))
        interpreter.invoke()
        outputs = interpreter.get_output_details()
        for part, position in zip(parts, positions, strict=True):
            values = interpreter.get_tensor(outputs[position]["index"])
            part.append(_dequantized(values, outputs[position])[: len(faces)])
    return [np.concatenate(part) for part in parts]


def _quantized(values: np.ndarray, details: dict[str, Any]) -> np.ndarray:
    """Convert floating-point values to the integers of a quantized input; other values stay as they are."""
    scale, zero = details["quantization"]
    kind = np.dtype(details["dtype"])
    if not scale or values.dtype == kind or values.dtype.kind != "f":
        return values
    limits = np.iinfo(kind)
    integers: np.ndarray = np.clip(np.rint(values / scale + zero), limits.min, limits.max).astype(kind)
    return integers


def _dequantized(values: np.ndarray, details: dict[str, Any]) -> np.ndarray:
    scale, zero = details["quantization"]
    if not scale or values.dtype.kind == "f":
        return values
    return np.asarray((values.astype(np.float32) - zero) * scale)


def _try(path: str, dtype: str, *shape: str) -> None:
    """Load a file and call it once with zeros; used in a process of its own."""
    interpreter = _load(Path(path))
    interpreter.allocate_tensors()
    _run(
        interpreter, np.zeros([int(side) for side in shape], dtype), list(range(len(interpreter.get_output_details())))
    )


if __name__ == "__main__":
    _try(*sys.argv[1:])
