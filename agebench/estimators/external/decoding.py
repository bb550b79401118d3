"""Ages and genders from the outputs of external models, as their cards specify."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from agebench.config.cards.external import ExternalCard
from agebench.config.cards.external_io import GenderOutput
from agebench.estimators.base import AgeEstimates
from agebench.estimators.external.io_spec import ExternalModelError

# A distribution with fewer classes than this and without output.ages is refused: its columns are more likely something
# else than the ages 0, 1, 2, …, such as a gender and an age side by side.
MIN_UNNAMED_AGES = 50
_OLDEST = 150  # years; classes above are no single years of a person

# (B, A) probabilities -> (B,) years.
DecodeFunction = Callable[[np.ndarray], np.ndarray]


def parse_outputs(
    outputs: Sequence[np.ndarray],
    count: int,
    card: ExternalCard,
    *,
    ages: Sequence[float] = (),
    decode: DecodeFunction | None = None,
) -> AgeEstimates:
    """Convert a model's outputs to estimates of ages and, where the card states it, genders.

    Args:
        outputs: one array for each name in `card.output.reads`.
        count: the number of faces, B.
        card: the model's card.
        ages: age of each class as the model's own file states it; used where the card states none.
        decode: the card's own function for distributions; None for the built-in ways.

    Raises:
        ExternalModelError: an output has another shape, or values that are not finite.
    """
    estimates = parse_output(outputs[0], count, card, ages=ages, decode=decode)
    if card.output.gender is None:
        return estimates
    return replace(estimates, tasks={"gender": parse_gender(outputs[1], count, card.output.gender, card.name)})


def parse_output(
    raw: np.ndarray,
    count: int,
    card: ExternalCard,
    *,
    ages: Sequence[float] = (),
    decode: DecodeFunction | None = None,
) -> AgeEstimates:
    """Convert a model's output to age estimates.

    Args:
        raw: (B,) or (B, 1) for an age, (B, A) for a distribution.
        count: the number of faces, B.
        card: the model's card.
        ages: age of each class as the model's own file states it; used where the card states none.
        decode: the card's own function for distributions; None for the built-in ways.

    Raises:
        ExternalModelError: the output has another shape, or values that are not finite.
    """
    values = _finite_rows(raw, count, card.name)
    if card.output.kind == "distribution":
        return _from_distribution(values, card, ages, decode)
    return AgeEstimates(card.output.offset + card.output.scale * _one_number(values, card))


def parse_gender(raw: np.ndarray, count: int, spec: GenderOutput, model: str) -> np.ndarray:
    """Convert a model's output to probabilities of genders.

    Args:
        raw: (B, …), the output that holds the gender.
        count: the number of faces, B.
        spec: where the gender is.
        model: name of the card, for messages.

    Returns:
        (B, C) float32 probabilities of the classes.

    Raises:
        ExternalModelError: the output has too few columns, or its values are no probabilities.
    """
    values = _finite_rows(raw, count, model)
    values = values.reshape(count, int(np.prod(values.shape[1:])))
    width = values.shape[1]
    columns = spec.columns or tuple(range(width))
    n_classes = len(spec.classes)
    widths = (2, 1) if n_classes == 2 else (n_classes,)  # a single number distinguishes two classes
    if len(columns) not in widths or not all(0 <= column < width for column in columns):
        single = f", or one that is the probability of {spec.classes[1]!r}" if n_classes == 2 else ""
        problem = f"output.gender.columns must name the {n_classes} of {', '.join(spec.classes)}{single}"
        raise ExternalModelError(
            f"model '{model}' gives {width} numbers a face for the gender; {problem}, from 0 to {max(width - 1, 0)}"
        )
    values = values[:, columns]
    if spec.logits:
        values = softmax(np.pad(values, ((0, 0), (1, 0))) if len(columns) == 1 else values)
    elif len(columns) == 1:
        values = np.hstack([1 - values, values])
    if (values < -1e-3).any() or (np.abs(values.sum(axis=1) - 1) > 1e-2).any():
        raise ExternalModelError(
            f"model '{model}': output.gender gives no probabilities: values from {values.min():.3g} to {values.max():.3g}. "
            "output.gender.logits = true is for a model whose documentation states that its output is logits"
        )
    return values.astype(np.float32)


def softmax(values: np.ndarray) -> np.ndarray:
    """Return the softmax of each row.

    Args:
        values: (B, C) logits.
    """
    powers: np.ndarray = np.exp(values - values.max(axis=1, keepdims=True))
    powers /= powers.sum(axis=1, keepdims=True)
    return powers


def _finite_rows(raw: np.ndarray, count: int, model: str) -> np.ndarray:
    """Return an output as float64 after checking that it has one finite row for each face.

    Raises:
        ExternalModelError: it has not.
    """
    try:
        values = np.asarray(raw, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ExternalModelError(f"model '{model}' gives no numbers: {error}") from error
    if values.shape[:1] != (count,):
        raise ExternalModelError(
            f"model '{model}' gives {_rows(values)} for {count} faces; it must give one row a face, in their order"
        )
    bad = ~np.isfinite(values).all(axis=tuple(range(1, values.ndim)))
    if bad.any():
        raise ExternalModelError(
            f"model '{model}' gives NaN or infinity for {bad.sum()} of {count} faces, the first is number {bad.argmax()}; "
            "are the card's value_range, mean and std what it was trained with?"
        )
    return values


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
            f"model '{card.name}' gives {width} numbers a face (shape {values.shape}), and its card states that the output is one "
            f"age. The model's documentation states which of the numbers is the age; on the card: output.column = N, from 0 to "
            f"{width - 1}, with output.scale and output.offset. docs/how-to/external-models.md has the other kinds of output"
        )
    if column is not None and column >= width:
        raise ExternalModelError(
            f"model '{card.name}' gives {width} numbers a face; output.column = {column} is none of 0 to {width - 1}"
        )
    return values[:, column or 0]


def _from_distribution(
    values: np.ndarray, card: ExternalCard, ages: Sequence[float], decode: DecodeFunction | None
) -> AgeEstimates:
    grid = np.array(card.output.class_ages or ages, dtype=np.float64)
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
        values = softmax(values)
    sums = values.sum(axis=1)
    if (values < -1e-4).any() or (np.abs(sums - 1) > 1e-2).any():
        worst = sums[np.abs(sums - 1).argmax()]
        raise ExternalModelError(
            f"model '{card.name}' gives no distribution: values from {values.min():.3g}, a row's sum {worst:.4g}; probabilities "
            "are 0 or more and sum to 1. output.logits = true is for a model whose documentation states that its output is logits"
        )
    mean = values @ grid
    std = np.sqrt(np.maximum((values * (grid[None] - mean[:, None]) ** 2).sum(axis=1), 0))
    if decode is not None:
        age = _finite_rows(decode(values), len(values), card.name).reshape(len(values), -1)[:, 0]
    else:
        age = _decode_distribution(values, grid, card.output.decode)
    return AgeEstimates(age, std, _whole_years(values, grid))


def _decode_distribution(values: np.ndarray, grid: np.ndarray, how: str) -> np.ndarray:
    """Return (B,) years from probabilities of classes.

    Args:
        values: (B, A) probabilities.
        grid: (A,) age of each class.
        how: `expectation` or empty; `argmax`, the age of the likeliest class; `top2`, the expectation over the two
            likeliest classes.
    """
    if how == "argmax":
        likeliest: np.ndarray = grid[values.argmax(axis=1)]
        return likeliest
    if how == "top2":
        top = np.argsort(-values, axis=1, kind="stable")[:, :2]
        weights = np.take_along_axis(values, top, axis=1)
        return np.asarray((weights * grid[top]).sum(axis=1) / weights.sum(axis=1))
    return np.asarray(values @ grid)


def _whole_years(values: np.ndarray, grid: np.ndarray) -> np.ndarray | None:
    """Return (B, A) probabilities of the ages 0, 1, 2, … if the classes are successive years, else None."""
    years = np.floor(grid).astype(int)
    if years[0] < 0 or years[-1] > _OLDEST or (np.diff(years) != 1).any():
        return None
    return np.pad(values, ((0, 0), (years[0], 0)))


def _rows(values: np.ndarray) -> str:
    return f"{len(values)} rows" if values.ndim else "one number"
