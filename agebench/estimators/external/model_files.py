"""Open model files: TorchScript, ONNX, torch.export. None of them is opened by unpickling."""

import importlib.util
import os
import re
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from agebench.config.cards.external import ExternalCard
from agebench.config.cards.package import PACKAGE_FOLDER
from agebench.errors import UserError
from agebench.estimators.external.io_spec import ExternalModelError, pick_name, select_output
from agebench.estimators.packages import package_file

# Prepared faces -> the outputs that the card reads (`card.output.reads`), each with one row per face.
ModelCall = Callable[[np.ndarray], list[np.ndarray]]


# Symbolic sizes in torch.export files: names, numbers, quoted names, arithmetic, and calls of a few functions of sympy.
_EXPRESSION = re.compile(r"(?:[A-Za-z_]\w*+|\d++(?:\.\d++)?|'[A-Za-z_]\w*+'|[\s+\-*/(),=<>])*+")
_MAX_TABLE = 256 << 20  # bytes of a table in a torch.export file
_CALLED = re.compile(r"([A-Za-z_]\w*)\s*\(")
_FUNCTIONS = frozenset(
    {"Symbol", "Integer", "Float", "Rational", "Max", "Min", "Mod", "Pow", "Add", "Mul", "Abs", "floor", "ceiling"}
    | {"FloorDiv", "CeilDiv", "PythonMod", "CleanDiv", "ModularIndexing", "IntTrueDiv", "ToFloat", "TruncToInt"}
)


@dataclass(frozen=True)
class OpenModel:
    """An open model; close it, or use it as a context manager.

    Attributes:
        call: calls the model.
        ages: age of each class as the model's own file states it; empty if it states none.
        close: releases what the model holds.
    """

    call: ModelCall
    ages: tuple[float, ...] = ()
    close: Callable[[], None] = lambda: None

    def __enter__(self) -> "OpenModel":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def find_file(card: ExternalCard) -> Path:
    """Return the path of the model's file: on disk, in a fetched package, or in an installed one, which is not imported.

    Args:
        card: the model's card.

    Raises:
        UserError: there is no such file, or the package is not fetched or installed.
    """
    if card.source.startswith(f"{PACKAGE_FOLDER}/"):
        return package_file(card)
    installed = card.in_package()
    if installed is None:
        path = Path(card.source)
        if not path.is_file():
            raise UserError(f"model '{card.name}': no such file: {path}")
        return path
    package, name = installed
    try:
        spec = importlib.util.find_spec(package)
    except ModuleNotFoundError:
        spec = None
    if spec is None:
        raise UserError(
            f"model '{card.name}': the package {package} is not installed: pip install {package.replace('_', '-')}"
        )
    for folder in spec.submodule_search_locations or []:
        if (Path(folder) / name).is_file():
            return Path(folder) / name
    raise UserError(f"model '{card.name}': the installed package {package} holds no file {name}")


def onnx_session(owner: str, source: Path | bytes) -> Any:
    """Open an ONNX model on the CPU, without log messages.

    Args:
        owner: the model, for messages.
        source: the file, or its content.

    Raises:
        UserError: onnxruntime is not installed.
    """
    require_onnxruntime(owner)
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if threads := os.environ.get("OMP_NUM_THREADS", ""):
        options.intra_op_num_threads = int(threads)
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def require_onnxruntime(owner: str) -> None:
    """Check that onnxruntime is installed.

    Args:
        owner: the model, for messages.

    Raises:
        UserError: it is not.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise UserError(f"{owner} is ONNX, and onnxruntime is not installed: pip install 'agebench[onnx]'") from error
    del onnxruntime


def open_onnx(card: ExternalCard, path: Path, device: str) -> ModelCall:
    """Open an ONNX file on the CPU.

    Args:
        card: the model's card.
        path: the file.
        device: not used.

    Raises:
        UserError: onnxruntime is not installed, or the file cannot be read.
    """
    with readable(card, path, "an ONNX model"):
        session = onnx_session(f"model '{card.name}'", path)
    feed = session.get_inputs()[0].name
    known = [output.name for output in session.get_outputs()]
    names = [pick_name(known, name, card.name) for name in card.output.reads]
    distinct = list(dict.fromkeys(names))

    def call(batch: np.ndarray) -> list[np.ndarray]:
        with accepted(card, batch):
            outputs = dict(zip(distinct, session.run(distinct, {feed: batch}), strict=True))
        return [np.asarray(outputs[name]) for name in names]

    return call


def open_torchscript(card: ExternalCard, path: Path, device: str) -> ModelCall:
    """Open a TorchScript file.

    Args:
        card: the model's card.
        path: the file.
        device: device of the model.

    Raises:
        UserError: the file cannot be read.
    """
    with readable(card, path, "a TorchScript model"):
        module = load_torchscript(path, device).eval()
    return _torch_call(card, module, device)


def load_torchscript(path: Path, device: str) -> Any:
    """Load a TorchScript file without torch's warning that the format is deprecated, which a user cannot act on.

    Args:
        path: the file.
        device: device of the model.
    """
    import torch

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning)
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        return torch.jit.load(path, map_location=device)  # type: ignore[no-untyped-call]


def open_export(card: ExternalCard, path: Path, device: str) -> ModelCall:
    """Open a torch.export file.

    Args:
        card: the model's card.
        path: the file.
        device: device of the model.

    Raises:
        UserError: the file cannot be read.
    """
    import torch

    with readable(card, path, "a torch.export model"):
        _refuse_code(path)
    # torch.export.load falls back to full unpickling by itself; this forbids it.
    with readable(card, path, "a torch.export model"), temporary_env("TORCH_FORCE_WEIGHTS_ONLY_LOAD", "1"):
        module = torch.export.load(path).module().to(device)
    return _torch_call(card, module, device)


def _refuse_code(path: Path) -> None:
    """Refuse a torch.export file with symbolic expressions that are more than arithmetic: loading evaluates them.

    Args:
        path: the file.

    Raises:
        ValueError: an expression contains something else than names, numbers and arithmetic, or a table is too large.
        zipfile.BadZipFile: the file is no archive.
    """
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            name = entry.filename
            if not name.endswith(".json"):
                continue
            if entry.file_size > _MAX_TABLE:  # a few kilobytes can unpack to more than the memory
                raise ValueError(f"{name} unpacks to {entry.file_size:,} bytes; at most {_MAX_TABLE:,} are read")
            for text in re.findall(
                r'"expr_str"\s*:\s*"((?:[^"\\]|\\.)*)"', archive.read(name).decode("utf-8", "replace")
            ):
                if not _EXPRESSION.fullmatch(text) or "__" in text or set(_CALLED.findall(text)) - _FUNCTIONS:
                    raise ValueError(f"{name} contains an expression that could run code: {text[:80]!r}")


def _torch_call(card: ExternalCard, module: Any, device: str) -> ModelCall:
    """Return the function that calls a torch module.

    Args:
        card: the model's card.
        module: the module, on the device.
        device: its device.
    """
    import torch

    def call(batch: np.ndarray) -> list[np.ndarray]:
        with accepted(card, batch), torch.inference_mode():
            outputs = module(torch.from_numpy(batch).to(device))
        selected = [select_output(outputs, name, card.name) for name in card.output.reads]
        return [np.asarray(value.float().cpu() if isinstance(value, torch.Tensor) else value) for value in selected]

    return call


@contextmanager
def readable(card: ExternalCard, path: Path, what: str) -> Iterator[None]:
    """Convert exceptions of a runtime that opens a file to a UserError.

    Args:
        card: the model's card.
        path: the file.
        what: the kind of file, with its article.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # each runtime raises exceptions of its own
        raise UserError(f"model '{card.name}': {path} is not readable as {what}: {first_line(error)}") from error


@contextmanager
def accepted(card: ExternalCard, batch: np.ndarray) -> Iterator[None]:
    """Convert exceptions of a model that is called to an ExternalModelError.

    Args:
        card: the model's card.
        batch: the prepared faces that the model is called with.
    """
    try:
        yield
    except Exception as error:
        raise ExternalModelError(
            f"model '{card.name}' refuses a batch of the shape {batch.shape}, {batch.dtype}: {reason(error)}. "
            "Do input.size, layout, channels, dtype and batch_size on its card fit?"
        ) from error


@contextmanager
def temporary_env(key: str, value: str) -> Iterator[None]:
    """Set an environment variable within the block.

    Args:
        key: its name.
        value: its value.
    """
    before = os.environ.get(key)
    os.environ[key] = value
    try:
        yield
    finally:
        os.environ.pop(key) if before is None else os.environ.update({key: before})


def first_line(error: BaseException) -> str:
    """Return the type of an exception and the first line of its text that is not empty, at most 300 characters.

    Args:
        error: the exception.
    """
    line = next((line.strip() for line in str(error).splitlines() if line.strip()), "no reason given")
    return f"{type(error).__name__}: {line[:300]}"


def reason(error: BaseException) -> str:
    """Return the type and the text of an exception; of a long text the first and the last line, which state the cause.

    Args:
        error: the exception.
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or ["no reason given"]
    text = " ".join(lines)
    if len(text) > 400 and len(lines) > 1:
        text = f"{lines[0][:200]} … {lines[-1][:200]}"
    return f"{type(error).__name__}: {text[:420]}".rstrip(".")
