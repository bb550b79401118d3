"""Read published checkpoints and map them name by name onto our modules.

Pickled code is never run.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from agebench.errors import UserError
from agebench.models.checkpoint_file import read_file, refuse_not_finite

# Name in the authors' state dict -> our names, each with the rows to copy; None: a derived tensor, which is recomputed.
KeyMap = Callable[[str], list[tuple[str, slice]] | None]
ALL_KEYS = slice(None)
# Content of a checkpoint: state dicts by name, and further values that its authors stored.
Checkpoint = dict[str, Any]


def read_checkpoint(path: Path) -> Checkpoint:
    """Return the content of a checkpoint file, with tensors on the CPU.

    Args:
        path: the file.

    Raises:
        UserError: the file does not exist, is damaged, would run code, or contains no dictionary.
    """
    if not path.exists():
        raise UserError(
            f"{path}: the checkpoint does not exist. Give the authors' file, or start from random weights with --no-pretrained"
        )
    content = read_file(path)
    if not isinstance(content, dict):
        raise UserError(f"{path}: contains a {type(content).__name__}, but a checkpoint is a dictionary of state dicts")
    return content


def state_dict(content: Checkpoint, key: str, source: str) -> dict[str, Tensor]:
    """Return a state dict of a checkpoint.

    The prefix of data-parallel training is removed from its names.

    Args:
        content: the checkpoint.
        key: the key of the state dict.
        source: the origin of the checkpoint, for messages.

    Raises:
        UserError: the state dict does not exist, or contains a value that is not a tensor.
    """
    tensors = content.get(key)
    if not isinstance(tensors, dict):
        raise UserError(f"{source}: the key '{key}' is missing. Keys: {', '.join(map(str, content)) or 'none'}")
    invalid = next((name for name, value in tensors.items() if not isinstance(value, Tensor)), None)
    if invalid is not None:
        raise UserError(f"{source}: {key}: '{invalid}' is a {type(tensors[invalid]).__name__}, not a tensor")
    return {str(name).removeprefix("module."): value for name, value in tensors.items()}


def load_state_dict_mapped(model: nn.Module, published: dict[str, Tensor], rename: KeyMap, *, source: str) -> str:
    """Copy published tensors into a model under other names, all of them or none.

    Args:
        model: the module, which receives the tensors.
        published: the authors' state dict.
        rename: the map from the authors' names to ours.
        source: the origin of the tensors, for messages.

    Returns:
        A description of the copied tensors, for the manifest.

    Raises:
        UserError: a tensor is missing, has another shape, is not used, or is not finite.
    """
    own = model.state_dict()
    mapped: dict[str, Tensor] = {}
    left_over, recomputed = [], 0
    for name, value in published.items():
        targets = rename(name)
        if targets is None:
            recomputed += 1
        elif not targets or any(target not in own for target, _ in targets):
            left_over.append(name)
        else:
            mapped |= {target: value[rows] if value.ndim else value for target, rows in targets}
    missing = sorted(own.keys() - mapped.keys())
    shapes = [name for name in sorted(mapped) if mapped[name].shape != own[name].shape]
    if missing or left_over or shapes:
        differences = [f"{len(missing)} tensors are missing, first {missing[0]}"] if missing else []
        differences += [f"{len(left_over)} are not used, first {left_over[0]}"] if left_over else []
        differences += [
            f"{name} is {tuple(mapped[name].shape)} in the file and {tuple(own[name].shape)} in the model"
            for name in shapes[:1]
        ]
        raise UserError(f"{source}: the tensors do not fit the model: {'; '.join(differences)}")
    refuse_not_finite(mapped, source)
    model.load_state_dict(mapped)
    derived = f", {recomputed} derived tensors recomputed" if recomputed else ""
    return f"{len(published) - recomputed} of {len(published)} tensors loaded{derived}"


def plain_number(content: Checkpoint, key: str, source: str) -> float:
    """Return a finite number of a checkpoint.

    Args:
        content: the checkpoint.
        key: the key of the number.
        source: the origin of the checkpoint, for messages.

    Raises:
        UserError: the value is missing or is not a finite number.
    """
    value = content.get(key)
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise UserError(f"{source}: {key} is {value!r}; a finite number is required") from None
    if not np.isfinite(number):
        raise UserError(f"{source}: {key} is {value!r}; a finite number is required")
    return number
