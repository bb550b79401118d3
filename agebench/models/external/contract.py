"""From faces to what a card's model takes, and from what it says to ages."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from agebench.errors import AgebenchError
from agebench.registry.external import ExternalCard, ExternalInput

# ITU-R BT.601 luma, as Pillow's and OpenCV's conversions to grey.
_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)


class ExternalBroken(AgebenchError):
    """The model cannot be called, or says what its card does not announce; the message says which and what to mend."""


class Answer(NamedTuple):
    """Of N faces: `age` (N,) float64 years; `probs` (N, A) for the ages 0, 1, 2, … and `std` (N,), or None."""

    age: np.ndarray
    probs: np.ndarray | None
    std: np.ndarray | None


def prepare(faces: np.ndarray, wanted: ExternalInput) -> np.ndarray:
    """(B, S, S, 3) uint8 RGB faces as the model takes them: (B, C, S, S) or (B, S, S, C), contiguous.

    The order is: channels, value range, mean, std, layout.
    """
    if wanted.channels == "bgr":
        faces = faces[..., ::-1]
    elif wanted.channels == "grey":
        faces = np.rint(faces.astype(np.float32) @ _LUMA).astype(np.uint8)[..., None]
    if wanted.dtype == "float32":
        low, high = wanted.value_range
        values = faces.astype(np.float32)
        if (low, high) != (0.0, 255.0):
            values = values * np.float32((high - low) / 255.0) + np.float32(low)
        faces = (values - np.array(wanted.mean, dtype=np.float32)) / np.array(wanted.std, dtype=np.float32)
    return np.ascontiguousarray(faces.transpose(0, 3, 1, 2) if wanted.layout == "nchw" else faces)


def pick(outputs: Any, name: str, model: str) -> Any:
    """Of what a model returned the output that its card names: a dict's entry, or a sequence's by number.

    Raises:
        ExternalBroken: there is none of this name, or there are several and the card names none.
    """
    if isinstance(outputs, dict):
        if name in outputs:
            return outputs[name]
        if name or len(outputs) != 1:
            raise ExternalBroken(
                f"model '{model}' gives the outputs {', '.join(map(str, outputs))}; output.name = {name!r} is none of them"
            )
        return next(iter(outputs.values()))
    if isinstance(outputs, list | tuple) and any(getattr(output, "ndim", 0) for output in outputs):  # else one age each
        if name.isdecimal() and int(name) < len(outputs):
            return outputs[int(name)]
        if name or len(outputs) != 1:
            raise ExternalBroken(
                f"model '{model}' gives {len(outputs)} outputs; say on its card which one, counted from 0: "
                'output.name = "0"'
            )
        return outputs[0]
    return outputs


def read_answer(raw: np.ndarray, count: int, card: ExternalCard) -> Answer:
    """What `count` faces' output says about their ages.

    Args:
        raw: (B,) or (B, 1) for an age, (B, A) for a distribution.
        count: B.
        card: the model's.

    Raises:
        ExternalBroken: another shape, or values that are no finite numbers; the message says what was expected.
    """
    try:
        values = np.asarray(raw, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ExternalBroken(f"model '{card.name}' gives no numbers: {error}") from error
    if values.shape[:1] != (count,):
        raise ExternalBroken(
            f"model '{card.name}' gives {_rows(values)} for {count} faces; it must give one row a face, in their order"
        )
    bad = ~np.isfinite(values.reshape(count, -1)).all(axis=1)
    if bad.any():
        raise ExternalBroken(
            f"model '{card.name}' gives NaN or infinity for {bad.sum()} of {count} faces, the first is number {bad.argmax()}; "
            "are the card's value_range, mean and std what it was trained with?"
        )
    if card.output.kind == "distribution":
        return _from_distribution(values, card)
    if values.size != count:
        raise ExternalBroken(
            f"model '{card.name}' gives the shape {values.shape}; an age is (B,) or (B, 1) = ({count}, 1). "
            'Is it a distribution? Then output.kind = "distribution"'
        )
    return Answer(card.output.offset + card.output.scale * values.reshape(count), None, None)


def join(answers: Sequence[Answer]) -> Answer:
    """Several batches' answers as one."""
    age, probs, std = (None if part[0] is None else np.concatenate(part) for part in zip(*answers, strict=True))
    assert age is not None
    return Answer(age, probs, std)


def _from_distribution(values: np.ndarray, card: ExternalCard) -> Answer:
    grid = np.array(card.output.ages, dtype=np.float64)
    if values.ndim > 2 and values[0].size == max(values.shape[1:]):  # (B, 1, A) and the like
        values = values.reshape(len(values), -1)
    if not len(grid) and values.ndim == 2:
        grid = np.arange(values.shape[1], dtype=np.float64)
    if values.ndim != 2 or values.shape[1] != len(grid) or len(grid) < 2:
        raise ExternalBroken(
            f"model '{card.name}' gives the shape {values.shape}; a distribution over the card's {len(grid)} output.ages "
            f"is (B, A) = ({len(values)}, {len(grid)})"
        )
    if card.output.logits:
        values = np.exp(values - values.max(axis=1, keepdims=True))
        values /= values.sum(axis=1, keepdims=True)
    sums = values.sum(axis=1)
    if (values < -1e-4).any() or (np.abs(sums - 1) > 1e-2).any():
        worst = sums[np.abs(sums - 1).argmax()]
        raise ExternalBroken(
            f"model '{card.name}' gives no distribution: values from {values.min():.3g}, a row's sum {worst:.4g}. "
            "Where a softmax is still to be taken: output.logits = true"
        )
    age = values @ grid
    std = np.sqrt(np.maximum((values * (grid[None] - age[:, None]) ** 2).sum(axis=1), 0))
    return Answer(age, _whole_years(values, grid), std)


def _whole_years(values: np.ndarray, grid: np.ndarray) -> np.ndarray | None:
    """(B, A) for the ages 0, 1, 2, …, where the classes are successive years; else None."""
    years = np.floor(grid).astype(int)
    if years[0] < 0 or (np.diff(years) != 1).any():
        return None
    return np.pad(values, ((0, 0), (years[0], 0)))


def _rows(values: np.ndarray) -> str:
    return f"{len(values)} rows" if values.ndim else "one number"
