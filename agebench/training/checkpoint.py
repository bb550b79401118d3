"""Checkpoints: safetensors files, written atomically, never pickled."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from agebench.errors import UserError
from agebench.utils.integrity import checkpoint_metadata, damaged_checkpoint
from agebench.utils.io import atomic_write

# The largest supported model needs a twentieth of it. The folder of a run may be untrusted.
MAX_WEIGHTS_BYTES = 8 * 1024**3


def save_weights(path: Path, model: nn.Module, metadata: Mapping[str, object]) -> None:
    """Write the weights of a model.

    Args:
        path: the file.
        model: the model.
        metadata: JSON values for the header of the file.
    """
    _save(path, _plain(model.state_dict()), metadata)


def load_weights(path: Path, model: nn.Module) -> dict[str, Any]:
    """Load a file of `save_weights`; return its metadata.

    Args:
        path: the file.
        model: the model, which receives the weights.

    Raises:
        UserError: the file does not exist, is damaged, is too large, or belongs to another model.
    """
    check_size(path)
    tensors, metadata = _load(path)
    _fit(path, model, tensors)
    return metadata


def check_size(path: Path) -> None:
    """Reject a file that is too large for a checkpoint, before reading it.

    Args:
        path: the file.

    Raises:
        UserError: the file is larger than `MAX_WEIGHTS_BYTES`.
    """
    if path.is_file() and path.stat().st_size > MAX_WEIGHTS_BYTES:
        raise UserError(
            f"{path}: {path.stat().st_size:,} bytes are more than a checkpoint may have ({MAX_WEIGHTS_BYTES:,})"
        )


def check_weights(path: Path, model: nn.Module) -> None:
    """Check by its header that a file contains the weights of a model.

    No tensor is read or allocated.

    Args:
        path: the file.
        model: the model; it may be on torch's meta device, where it has shapes but no memory.

    Raises:
        UserError: the file is damaged or belongs to another model, or parameters and buffers of the model are larger than
            `MAX_WEIGHTS_BYTES`.
    """
    try:
        with safe_open(path, framework="pt") as file:
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 - no mapping
    except (SafetensorError, OSError) as error:
        raise damaged_checkpoint(path, error) from error
    _compare(path, model, shapes)
    n_bytes = sum(value.nbytes for value in (*model.parameters(), *model.buffers()))  # also buffers that are not saved
    if n_bytes > MAX_WEIGHTS_BYTES:
        raise UserError(f"{path}: its model needs {n_bytes:,} bytes; {MAX_WEIGHTS_BYTES:,} are allowed")


def save_state(
    path: Path,
    model: nn.Module,
    optimizer: Optimizer,
    metadata: Mapping[str, object],
    average: Mapping[str, Tensor] | None = None,
) -> None:
    """Write all that a resume needs into one file.

    A kill between two files would leave halves that do not match.

    Args:
        path: the file.
        model: the model.
        optimizer: its optimizer.
        metadata: JSON values for the header of the file.
        average: the state dict of the averaged weights; None without an average.
    """
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    tensors |= {f"average.{name}": value for name, value in (average or {}).items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimiser.{index}.{name}": value for name, value in state.items() if isinstance(value, Tensor)}
    _save(path, _plain(tensors), metadata)


def load_state(
    path: Path, model: nn.Module, optimizer: Optimizer, average: Mapping[str, Tensor] | None = None
) -> dict[str, Any]:
    """Load a file of `save_state`; return its metadata.

    Args:
        path: the file.
        model: the model, which receives the weights.
        optimizer: its optimizer, which receives its state.
        average: the state dict of the averaged weights, which is overwritten; None without an average.

    Raises:
        UserError: the file is damaged, or belongs to another model or to a training with another average.
    """
    tensors, metadata = _load(path)
    parts: dict[str, dict[str, Tensor]] = {"model": {}, "optimiser": {}, "average": {}}
    for name, value in tensors.items():
        part, _, key = name.partition(".")
        if part not in parts:
            raise damaged_checkpoint(path, f"it has a tensor called '{name}'")
        parts[part][key] = value
    _fit(path, model, parts["model"])
    if {name: value.shape for name, value in parts["average"].items()} != {
        name: value.shape for name, value in (average or {}).items()
    }:
        raise damaged_checkpoint(path, "its averaged weights (train.ema_decay) are not those of this training")
    with torch.no_grad():
        for name, value in parts["average"].items():
            (average or {})[name].copy_(value)
    state: dict[int, dict[str, Tensor]] = {}
    try:
        for name, value in parts["optimiser"].items():
            index, _, key = name.partition(".")
            # The layout of the weight, because a difference would slow down every later step.
            layout = torch.channels_last if value.ndim == 4 else torch.contiguous_format
            state.setdefault(int(index), {})[key] = value.contiguous(memory_format=layout)
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    except (ValueError, KeyError) as error:
        raise damaged_checkpoint(path, error) from error
    return metadata


def _plain(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().cpu().contiguous() for name, value in tensors.items()}


def _save(path: Path, tensors: dict[str, Tensor], metadata: Mapping[str, object]) -> None:
    with atomic_write(path) as temporary:
        try:
            text = json.dumps(metadata)
            save_file(tensors, temporary, metadata={"agebench": text, "sha256": _digest(tensors, text)})
        except SafetensorError as error:  # safetensors' error for a full disk
            raise OSError(28 if "No space" in str(error) else 5, str(error)) from error


def _load(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    except (SafetensorError, OSError) as error:
        raise damaged_checkpoint(path, error) from error
    # Checkpoints of early versions have no digest.
    if "sha256" in header and header["sha256"] != _digest(tensors, header.get("agebench", "{}")):
        raise damaged_checkpoint(path, "its content does not match its SHA-256")
    return tensors, checkpoint_metadata(path)


def _digest(tensors: Mapping[str, Tensor], metadata: str) -> str:
    """Return the SHA-256 of metadata and tensors, independent of their order in the file."""
    digest = hashlib.sha256(metadata.encode())
    for name, value in sorted(tensors.items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _fit(path: Path, module: nn.Module, tensors: dict[str, Tensor]) -> None:
    _compare(path, module, {name: tuple(value.shape) for name, value in tensors.items()})
    with torch.no_grad():
        module.load_state_dict(tensors)


def _compare(path: Path, module: nn.Module, shapes: dict[str, tuple[int, ...]]) -> None:
    own = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    for name in sorted({*own, *shapes}):
        file_shape, model_shape = (part.get(name, "missing") for part in (shapes, own))
        if file_shape != model_shape:
            raise UserError(
                f"{path}: is a checkpoint of another model: {name} is {file_shape} in the file and {model_shape} in the model"
            )
