"""Preprocessing for external models, and selection among their outputs, as their cards specify."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from agebench.config.cards.external import ExternalInput
from agebench.errors import AgebenchError

# ITU-R BT.601 luma, as Pillow's and OpenCV's conversions to gray.
_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)


class ExternalModelError(AgebenchError):
    """A model that cannot be called, or that returns a result that its card does not announce."""


def prepare(faces: np.ndarray, spec: ExternalInput) -> np.ndarray:
    """Convert faces to the model's input, in this order: channels, min-max, value range, mean, std, layout.

    Args:
        faces: (B, S, S, 3) uint8 RGB.
        spec: the input that the card specifies.

    Returns:
        (B, C, S, S) or (B, S, S, C), contiguous.
    """
    if spec.channels == "bgr":
        faces = faces[..., ::-1]
    elif spec.channels == "grey":
        faces = np.rint(faces.astype(np.float32) @ _LUMA).astype(np.uint8)[..., None]
    if spec.dtype != "uint8":
        low, high = spec.value_range
        values: np.ndarray = faces.astype(np.float32)
        if spec.normalize == "min-max":
            values = _stretch(values)
        if (low, high) != (0.0, 255.0):
            values = values * np.float32((high - low) / 255.0) + np.float32(low)
        values = (values - np.array(spec.mean, dtype=np.float32)) / np.array(spec.std, dtype=np.float32)
        faces = values.astype(spec.dtype, copy=False)
    return np.ascontiguousarray(faces.transpose(0, 3, 1, 2) if spec.layout == "nchw" else faces)


def _stretch(faces: np.ndarray) -> np.ndarray:
    """Return faces whose smallest value is 0 and whose largest is 255, each over all its pixels and channels."""
    low, high = (end(axis=(1, 2, 3), keepdims=True) for end in (faces.min, faces.max))
    stretched: np.ndarray = (faces - low) * (255.0 / np.maximum(high - low, 1)).astype(np.float32)
    return stretched


def select_output(outputs: Any, name: str, model: str) -> Any:
    """Return the output that the card selects by its name, or by its number from 0.

    Args:
        outputs: what the model returned: a dict, a sequence of arrays, or the only output itself.
        name: `output.name` of the card; empty: the only output.
        model: name of the card, for messages.

    Raises:
        ExternalModelError: no output has this name, or there are several and the card names none.
    """
    if isinstance(outputs, dict):
        return outputs[pick_name([str(key) for key in outputs], name, model)]
    if isinstance(outputs, list | tuple) and any(getattr(output, "ndim", 0) for output in outputs):  # else one age each
        return outputs[int(pick_name([str(number) for number in range(len(outputs))], name, model))]
    if name not in ("", "0"):
        raise ExternalModelError(
            f"model '{model}' gives a single output without a name, not output.name = {name!r}; leave output.name out"
        )
    return outputs


def pick_name(names: Sequence[str], name: str, model: str) -> str:
    """Return the output name that `name` selects.

    Args:
        names: the names of all outputs.
        name: one of `names`, or its number from 0; empty: the only output.
        model: name of the card, for messages.

    Raises:
        ExternalModelError: `name` selects no output, or it is empty and there are several.
    """
    if name in names:
        return name
    if name.isdecimal() and int(name) < len(names):
        return names[int(name)]
    if not name and len(names) == 1:
        return names[0]
    listed = f"{len(names)} outputs: {', '.join(f'{number} = {output}' for number, output in enumerate(names))}"
    if all(output == str(number) for number, output in enumerate(names)):
        listed = f"{len(names)} outputs without names, 0 to {len(names) - 1}"
    problem = f"output.name = {name!r} is none of them" if name else "the card must name the one to read"
    raise ExternalModelError(
        f"model '{model}' gives {listed}; {problem}: output.name takes a name, or a number counted from 0"
    )
