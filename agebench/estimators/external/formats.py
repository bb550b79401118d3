"""The formats of model files: which files a model consists of, and how it is opened. Runtimes are imported only then."""

import json
from collections.abc import Callable
from pathlib import Path

from agebench.config.cards.external import ExternalCard
from agebench.errors import UserError
from agebench.estimators.exported.onnx_inspect import scan_onnx
from agebench.estimators.external import model_files as torch_onnx
from agebench.estimators.external.model_files import ModelCall, OpenModel, find_file, readable
from agebench.utils.io import refuse_placeholder

FILES = ("onnx", "torchscript", "torch-export", "tfjs", "tflite", "keras", "transformers")
_Opener = Callable[[ExternalCard, Path, str], ModelCall | OpenModel]


def model_files(card: ExternalCard) -> list[Path]:
    """Return the files that a model consists of.

    Args:
        card: the card of a model in files.

    Raises:
        UserError: a file is missing.
    """
    if card.format == "transformers":
        from agebench.estimators.external.transformers_model import find_folder

        folder = find_folder(card)
        return [folder / "config.json", *sorted(folder.glob("*.safetensors"))]
    path = find_file(card)
    if card.format not in _WEIGHT_FILES:
        return [path]
    what, weight_files = _WEIGHT_FILES[card.format]
    refuse_placeholder(path)
    with readable(card, path, what):
        files = [path, *weight_files(path)]
    missing = next((file for file in files if not file.is_file()), None)
    if missing is not None:
        raise UserError(f"model '{card.name}': {path} names the weight file {missing.name}, which is not beside it")
    return files


def _tfjs_weights(path: Path) -> list[Path]:
    from agebench.estimators.external.tfjs import weight_files

    return weight_files(path, json.loads(path.read_text(encoding="utf-8"))["weightsManifest"])


def _onnx_weights(path: Path) -> list[Path]:
    return scan_onnx(path, path.read_bytes()).weight_paths(path)


# Format -> the kind of file, with its article, and the function that lists the other files with its weights.
_WEIGHT_FILES: dict[str, tuple[str, Callable[[Path], list[Path]]]] = {
    "tfjs": ("a TensorFlow.js model", _tfjs_weights),
    "onnx": ("an ONNX model", _onnx_weights),
}


def open_model(card: ExternalCard, device: str) -> OpenModel:
    """Open a model in files.

    Args:
        card: the model's card.
        device: device of models that torch runs; the others run on the CPU.

    Raises:
        UserError: a file is missing or cannot be read, or its runtime is not installed.
    """
    files = model_files(card)
    for file in files:
        refuse_placeholder(file)
    path = files[0].parent if card.format == "transformers" else files[0]
    opened = _opener(card.format)(card, path, device)
    return opened if isinstance(opened, OpenModel) else OpenModel(opened)


def _opener(name: str) -> _Opener:
    """Return the function that opens a format."""
    if name == "tfjs":
        from agebench.estimators.external.tfjs import open_tfjs

        return open_tfjs
    if name == "tflite":
        from agebench.estimators.external.tflite import open_tflite

        return open_tflite
    if name == "keras":
        from agebench.estimators.external.keras_file import open_keras

        return open_keras
    if name == "transformers":
        from agebench.estimators.external.transformers_model import open_transformers

        return open_transformers
    return {
        "onnx": torch_onnx.open_onnx,
        "torchscript": torch_onnx.open_torchscript,
        "torch-export": torch_onnx.open_export,
    }[name]
