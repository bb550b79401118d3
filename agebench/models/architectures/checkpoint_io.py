"""Their authors' weights: opened without running pickled code, mapped name by name, refused where anything is left over."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from agebench.errors import UserError
from agebench.models.checkpoint_file import read_file, refuse_not_finite

# A name in the authors' state dict -> ours, with the rows to take of a tensor; None: recomputed here, not read.
KeyMap = Callable[[str], list[tuple[str, slice]] | None]
ALL_KEYS = slice(None)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """What stands in a checkpoint file; tensors on the CPU.

    Raises:
        UserError: no such file, a damaged one, one that would run code, or no dictionary.
    """
    if not path.exists():
        raise UserError(
            f"{path}: no such checkpoint; models of the zoo start from a file of their authors, or at random (--no-pretrained)"
        )
    content = read_file(path)
    if not isinstance(content, dict):
        raise UserError(f"{path}: holds a {type(content).__name__}; a checkpoint is a dictionary of state dicts")
    return content


def state_dict(content: dict[str, Any], key: str, source: str) -> dict[str, Tensor]:
    """One state dict of a checkpoint, without the prefix of data-parallel training.

    Raises:
        UserError: there is none, or something in it is no tensor.
    """
    found = content.get(key)
    if not isinstance(found, dict):
        raise UserError(f"{source}: no '{key}' in it; there are: {', '.join(map(str, content)) or 'nothing'}")
    wrong = next((name for name, value in found.items() if not isinstance(value, Tensor)), None)
    if wrong is not None:
        raise UserError(f"{source}: {key}: '{wrong}' is a {type(found[wrong]).__name__}, not a tensor")
    return {str(name).removeprefix("module."): value for name, value in found.items()}


def load_state_dict_mapped(model: nn.Module, theirs: dict[str, Tensor], rename: KeyMap, *, source: str) -> str:
    """Copy tensors into `model` by the names that `rename` gives; returns what was done, in words.

    Nothing is copied unless everything fits.

    Raises:
        UserError: a tensor is missing, has another shape, is left over, or is not finite.
    """
    own = model.state_dict()
    mapped: dict[str, Tensor] = {}
    left_over, recomputed = [], 0
    for name, value in theirs.items():
        places = rename(name)
        if places is None:
            recomputed += 1
        elif not places or any(place not in own for place, _ in places):
            left_over.append(name)
        else:
            mapped |= {place: value[rows] if value.ndim else value for place, rows in places}
    missing = sorted(own.keys() - mapped.keys())
    shapes = [name for name in sorted(mapped) if mapped[name].shape != own[name].shape]
    if missing or left_over or shapes:
        parts = [f"{len(missing)} tensors are missing, the first: {missing[0]}"] if missing else []
        parts += [f"{len(left_over)} are left over, the first: {left_over[0]}"] if left_over else []
        parts += [
            f"{name} is {tuple(mapped[name].shape)} in it and {tuple(own[name].shape)} in the model"
            for name in shapes[:1]
        ]
        raise UserError(f"{source}: does not fit: {'; '.join(parts)}")
    refuse_not_finite(mapped, source)
    model.load_state_dict(mapped)
    again = f", {recomputed} derived ones computed anew" if recomputed else ""
    return f"{len(theirs) - recomputed} of {len(theirs)} tensors taken over{again}"


def plain_number(content: dict[str, Any], key: str, source: str) -> float:
    """A finite number of a checkpoint.

    Raises:
        UserError: it is not there, or no number.
    """
    value = content.get(key)
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise UserError(f"{source}: {key} is {value!r}; it must be a number") from None
    if not np.isfinite(number):
        raise UserError(f"{source}: {key} is {value!r}; it must be a number")
    return number
