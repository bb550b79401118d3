"""Read untrusted files of weights without running pickled code."""

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

# Classes that training scripts put into checkpoints beside tensors: arguments, paths, counters and single numbers. None of them
# runs code. The second element of a pair is the name that NumPy 1.x or another Python version wrote.
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
    """Return the content of a weights file, with tensors on the CPU.

    Args:
        path: a .safetensors file or a file of `torch.save`.

    Raises:
        UserError: the file does not exist, is a placeholder, is damaged, or would run code.
    """
    refuse_placeholder(path)
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with torch.serialization.safe_globals(PLAIN):
            return torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, OSError, RuntimeError, ValueError, EOFError, KeyError) as error:
        raise UserError(f"{path}: not a readable checkpoint: {first_line(error)}") from error
    except Exception as error:  # errors of pickle: weights_only rejects all but plain data
        names = _refused_names(path)
        what = f": {', '.join(names[:3])}{', …' if len(names) > 3 else ''}" if names else f" ({type(error).__name__})"
        raise UserError(
            f"{path}: contains more than tensors and numbers{what}; code in checkpoints is not run. If you trust the file, "
            "save its state dict alone: torch.save(model.state_dict(), FILE)"
        ) from error


def refuse_not_finite(weights: Mapping[str, Tensor], source: str) -> None:
    """Reject weights with NaN or infinity.

    Training from them would look like too high a learning rate.

    Args:
        weights: name -> tensor.
        source: the origin of the weights, for the message.

    Raises:
        UserError: a tensor is not finite; the message names the first.
    """
    for name, value in weights.items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            count = int((~torch.isfinite(value)).sum())
            raise UserError(
                f"{source}: {count} of the {value.numel()} values of '{name}' are NaN or infinite. The file is damaged, or the "
                "training that wrote it diverged. Use another checkpoint"
            )


def first_line(error: Exception) -> str:
    """Return the first line of an error's message."""
    return next(iter(str(error).splitlines()), "no reason given")


def _refused_names(path: Path) -> list[str]:
    """Return the rejected classes and functions of a checkpoint, if listable."""
    try:
        with torch.serialization.safe_globals(PLAIN):
            return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except Exception:  # an old or damaged format; the file is rejected without names
        return []
