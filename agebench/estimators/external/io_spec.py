"""Preprocessing for external models, and conversion of their outputs to ages, as their cards specify."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from agebench.config.cards.external import ExternalCard, ExternalInput
from agebench.errors import AgebenchError
from agebench.estimators.base import AgeEstimates

# ITU-R BT.601 luma, as Pillow's and OpenCV's conversions to grey.
_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)
# A distribution with fewer classes than this and without output.ages is refused: its columns are more likely something
# else than the ages 0, 1, 2, …, such as a gender and an age side by side.
MIN_UNNAMED_AGES = 50


class ExternalModelError(AgebenchError):
    """A model that cannot be called, or that returns a result that its card does not announce."""


def prepare(faces: np.ndarray, spec: ExternalInput) -> np.ndarray:
    """Convert faces to the model's input, in this order: channels, value range, mean, std, layout.

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
        if (low, high) != (0.0, 255.0):
            values = values * np.float32((high - low) / 255.0) + np.float32(low)
        values = (values - np.array(spec.mean, dtype=np.float32)) / np.array(spec.std, dtype=np.float32)
        faces = values.astype(spec.dtype, copy=False)
    return np.ascontiguousarray(faces.transpose(0, 3, 1, 2) if spec.layout == "nchw" else faces)


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


def parse_output(raw: np.ndarray, count: int, card: ExternalCard) -> AgeEstimates:
    """Convert a model's output to age estimates.

    Args:
        raw: (B,) or (B, 1) for an age, (B, A) for a distribution.
        count: the number of faces, B.
        card: the model's card.

    Raises:
        ExternalModelError: the output has another shape, or values that are not finite.
    """
    try:
        values = np.asarray(raw, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ExternalModelError(f"model '{card.name}' gives no numbers: {error}") from error
    if values.shape[:1] != (count,):
        raise ExternalModelError(
            f"model '{card.name}' gives {_rows(values)} for {count} faces; it must give one row a face, in their order"
        )
    bad = ~np.isfinite(values.reshape(count, -1)).all(axis=1)
    if bad.any():
        raise ExternalModelError(
            f"model '{card.name}' gives NaN or infinity for {bad.sum()} of {count} faces, the first is number {bad.argmax()}; "
            "are the card's value_range, mean and std what it was trained with?"
        )
    if card.output.kind == "distribution":
        return _from_distribution(values, card)
    return AgeEstimates(card.output.offset + card.output.scale * _one_number(values, card))


def _one_number(values: np.ndarray, card: ExternalCard) -> np.ndarray:
    """Return the (B,) column that is the age: the only one, or the card's `output.column`.

    Raises:
        ExternalModelError: there are several columns and the card selects none, or there is no such column.
    """
    count = len(values)
    if values.ndim > 1 and values[0].size != max(values.shape[1:]):
        raise ExternalModelError(
            f"model '{card.name}' gives the shape {values.shape}; an output with an age is (B,) or (B, columns) = ({count}, …)"
        )
    values = values.reshape(count, -1)
    width, column = values.shape[1], card.output.column
    if column is None and width != 1:
        raise ExternalModelError(
            f"model '{card.name}' gives {width} numbers a face (shape {values.shape}), and its card says that the output is one "
            f"age. The model's documentation says which of the numbers is the age; on the card: output.column = N, from 0 to "
            f"{width - 1}, with output.scale and output.offset. docs/models.md has the other kinds of output"
        )
    if column is not None and column >= width:
        raise ExternalModelError(
            f"model '{card.name}' gives {width} numbers a face; output.column = {column} is none of 0 to {width - 1}"
        )
    return values[:, column or 0]


def _from_distribution(values: np.ndarray, card: ExternalCard) -> AgeEstimates:
    grid = np.array(card.output.ages, dtype=np.float64)
    if values.ndim > 2 and values[0].size == max(values.shape[1:]):  # (B, 1, A) and the like
        values = values.reshape(len(values), -1)
    if not len(grid) and values.ndim == 2:
        grid = np.arange(values.shape[1], dtype=np.float64)
        if len(grid) < MIN_UNNAMED_AGES:
            raise ExternalModelError(
                f"model '{card.name}' gives {len(grid)} numbers a face; without output.ages they would be the probabilities of "
                f"the ages 0 to {len(grid) - 1}. The card must state what each of them stands for: output.ages = [{len(grid)} ages]"
            )
    if values.ndim != 2 or values.shape[1] != len(grid) or len(grid) < 2:
        raise ExternalModelError(
            f"model '{card.name}' gives the shape {values.shape}; a distribution over the card's {len(grid)} output.ages "
            f"is (B, A) = ({len(values)}, {len(grid)})"
        )
    if card.output.logits:
        values = np.exp(values - values.max(axis=1, keepdims=True))
        values /= values.sum(axis=1, keepdims=True)
    sums = values.sum(axis=1)
    if (values < -1e-4).any() or (np.abs(sums - 1) > 1e-2).any():
        worst = sums[np.abs(sums - 1).argmax()]
        raise ExternalModelError(
            f"model '{card.name}' gives no distribution: values from {values.min():.3g}, a row's sum {worst:.4g}; probabilities "
            "are 0 or more and sum to 1. output.logits = true is for a model whose documentation says that its output is logits"
        )
    age = values @ grid
    std = np.sqrt(np.maximum((values * (grid[None] - age[:, None]) ** 2).sum(axis=1), 0))
    return AgeEstimates(age, std, _whole_years(values, grid))


def _whole_years(values: np.ndarray, grid: np.ndarray) -> np.ndarray | None:
    """Return (B, A) probabilities of the ages 0, 1, 2, … if the classes are successive years, else None."""
    years = np.floor(grid).astype(int)
    if years[0] < 0 or (np.diff(years) != 1).any():
        return None
    return np.pad(values, ((0, 0), (years[0], 0)))


def _rows(values: np.ndarray) -> str:
    return f"{len(values)} rows" if values.ndim else "one number"
