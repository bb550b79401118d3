"""Files of weights from anywhere: opened without running pickled code, and refused with the reason where they are none."""

import argparse
import collections
import pathlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from agebench.errors import UserError
from agebench.utils.io import refuse_placeholder

# Beside tensors, what training scripts put into checkpoints: arguments, paths, counters and single numbers. None of these runs
# code. NumPy 1.x wrote the names on the right of a pair.
Allowed = Callable[..., Any] | tuple[Callable[..., Any], str]
PLAIN: list[Allowed] = [
    argparse.Namespace,
    *(
        (pathlib.PurePosixPath, f"{module}.{name}")
        for module in ("pathlib", "pathlib._local")
        for name in ("PosixPath", "PurePosixPath")
    ),
    collections.defaultdict,
    dict,
    np.dtype,
    np._core.multiarray.scalar,  # type: ignore[attr-defined]
    (np._core.multiarray.scalar, "numpy.core.multiarray.scalar"),  # type: ignore[attr-defined]
    *(type(np.dtype(name)) for name in ("float16", "float32", "float64", "int32", "int64", "uint8", "bool")),
]


def read_file(path: Path) -> Any:
    """Return the content of a weights file, tensors on the CPU: a .safetensors, or anything that `torch.save` wrote.

    Raises:
        UserError: no such file, a placeholder, a damaged one, or one that would run code.
    """
    refuse_placeholder(path)
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with torch.serialization.safe_globals(PLAIN):
            return torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, OSError, RuntimeError, ValueError, EOFError, KeyError) as error:
        raise UserError(f"{path}: not a readable checkpoint: {first_line(error)}") from error
    except Exception as error:  # pickle's own errors: weights_only refuses whatever is not plain data
        named = _refused_names(path)
        what = f": {', '.join(named[:3])}{', …' if len(named) > 3 else ''}" if named else f" ({type(error).__name__})"
        raise UserError(
            f"{path}: holds more than tensors and numbers{what}; code in checkpoints is not run. Where the file is trusted, save "
            "its state dict alone: torch.save(model.state_dict(), FILE)"
        ) from error


def refuse_not_finite(weights: Mapping[str, Tensor], source: str) -> None:
    """Refuse weights with NaN or infinity: training from them would look like a learning rate that is too high.

    Raises:
        UserError: a tensor is not finite; the message names the first.
    """
    for name, value in weights.items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            count = int((~torch.isfinite(value)).sum())
            raise UserError(
                f"{source}: {count} of the {value.numel()} values of '{name}' are NaN or infinite: the file is damaged, or the "
                "training that wrote it diverged; take another checkpoint"
            )


def first_line(error: Exception) -> str:
    """The first line of an error's text."""
    return next(iter(str(error).splitlines()), "no reason given")


def _refused_names(path: Path) -> list[str]:
    """The classes and functions of a checkpoint that are refused; none where torch cannot list them."""
    try:
        with torch.serialization.safe_globals(PLAIN):
            return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except Exception:  # an old or damaged format: the refusal itself stands
        return []
