"""The contract of models: a card's network can be trained, and an external model returns ages."""

import io
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from agebench.config.cards.external import ExternalCard
from agebench.config.cards.model import ModelCard
from agebench.errors import UserError
from agebench.estimators.base import AgeEstimates, concat_estimates
from agebench.estimators.external.base import ExternalEstimator, estimate, fingerprint
from agebench.estimators.external.io_spec import ExternalModelError
from agebench.estimators.external.photos import Photo
from agebench.models.age_model import AGES, create_model
from agebench.models.weight_files.catalog import WEIGHT_FILES
from agebench.models.weights import PACKAGES
from agebench.plugins.testing.head import check_head
from agebench.plugins.testing.violation import violation
from agebench.registry.catalog import load_catalog

FACES = 6
PHOTO_SIDE = 256  # pixels of a generated photograph


def check_model(model: str | ModelCard | ExternalCard) -> str:
    """Check a model and its head; an external model is called with a few generated faces.

    Args:
        model: name of a model, or its card.

    Returns:
        A description of the checks.

    Raises:
        ContractViolation: a rule of the contract is violated.
        UserError: an external model's file or package is not on this machine.
    """
    card = load_catalog().models.get(model) if isinstance(model, str) else model
    if isinstance(card, ExternalCard):
        for problem in _external(card):
            raise violation("external model", card.name, problem)
        return _external_text(card)
    for problem in _trainable(card):
        raise violation("model", card.name, problem)
    check_head(card.head, ages=AGES, **card.head_options)
    return f"one training step at {card.size} px, and its head"


def _trainable(card: ModelCard) -> Iterator[str]:
    readable = [*PACKAGES, *WEIGHT_FILES]
    if card.weights and card.weights not in readable:
        yield f"weights = {card.weights!r} is none of the packages that agebench can read: {', '.join(readable)}"
    torch.manual_seed(0)
    try:
        network = create_model(card)
    except UserError as error:
        yield f"it cannot be created: {error}"
        return
    images, ages = torch.randn(4, card.channels, card.size, card.size), torch.tensor([3.0, 25.0, 48.0, 80.0])
    network.head.init_from_ages(ages)
    network.train()
    logits = network(images)
    if logits.shape != (4, network.head.out_features):
        expected = (4, network.head.out_features)
        yield f"forward returns {tuple(logits.shape)} for 4 images; it must be (B, head.out_features) = {expected}"
        return
    network.head.loss(logits, ages).backward()  # type: ignore[no-untyped-call]
    untrained = [name for name, value in network.named_parameters() if value.requires_grad and value.grad is None]
    if untrained:
        yield f"the loss does not reach {len(untrained)} parameters, the first is {untrained[0]}: they are never trained"
    network.eval()
    with torch.inference_mode():
        age = network.predict(images).age
        alone = network.predict(images[:1]).age
    if age.shape != (4,) or not torch.isfinite(age).all():
        yield f"predict gives ages of the shape {tuple(age.shape)}, or not finite; they must be (B,) = (4,) years"
    elif not torch.allclose(alone, age[:1], atol=1e-2):
        yield "the age of a face depends on what else is in its batch, in evaluation mode"


def _external_text(card: ExternalCard) -> str:
    """Describe the checks of an external model."""
    if card.format == "http":
        return "its card and its environment variables; it was not called, because calls may be paid for"
    if card.input.kind == "photo":
        return f"called with {FACES} generated photographs, which need not show a face to it"
    framing = f"margin = {card.input.margin:g}" if card.input.kind == "box" else f"coverage = {card.input.coverage:g}"
    return (
        f"called with {FACES} generated faces, three times; not checked: the framing (input.{framing}), which decides the error of "
        f"many models. `agebench check {card.name} --sweep` tries others on labelled faces"
    )


@dataclass(frozen=True)
class _Answers:
    """Estimates of generated faces, of the same in reverse order, and of the first of them alone."""

    whole: AgeEstimates
    reverse: AgeEstimates
    first: AgeEstimates


def _estimates(card: ExternalCard) -> _Answers:
    """Ask a model three times; one that stays open between calls is asked without being opened again."""
    faces = synthetic_faces(FACES, card.size)
    order = np.arange(FACES)
    asked = order, order[::-1], order[: FACES // 2]
    if card.format == "command":
        return _Answers(*(estimate(card, faces, rows) for rows in asked))
    with ExternalEstimator(card) as estimator:
        if card.input.kind == "photo":
            photos = [
                Photo(f"{row}.png", _encoded(face)) for row, face in enumerate(synthetic_faces(FACES, PHOTO_SIDE))
            ]
            return _Answers(*(estimator.estimate_photos([photos[row] for row in rows]) for rows in asked))
        return _Answers(*(_in_batches(estimator, faces[rows], card.batch_size) for rows in asked))


def _in_batches(estimator: ExternalEstimator, faces: np.ndarray, size: int) -> AgeEstimates:
    return concat_estimates([estimator.estimate(faces[start : start + size]) for start in range(0, len(faces), size)])


def _encoded(face: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(face).save(buffer, "PNG")
    return buffer.getvalue()


def _external(card: ExternalCard) -> Iterator[str]:
    if not card.licence.strip():
        yield "the card's licence is empty; write the terms, or `unknown`"
    if card.format == "http":
        fingerprint(card)
        return
    try:
        answers = _estimates(card)
    except ExternalModelError as error:
        yield str(error)
        return
    first, second, alone = answers.whole, answers.reverse, answers.first
    if (np.isnan(first.age[::-1]) != np.isnan(second.age)).any():
        yield "of the same photographs in another order it processes others: its answer must not depend on earlier photographs"
        return
    if not np.allclose(first.age[::-1], second.age, atol=0.05, equal_nan=True):
        off = np.nanmax(np.abs(first.age[::-1] - second.age))
        yield (
            f"the same faces in another order get other ages (up to {off:.3g} years): ages must follow the order of the "
            "faces, and the age of a face must be deterministic and independent of the others"
        )
    elif not np.allclose(first.age[: len(alone.age)], alone.age, atol=0.05, equal_nan=True):
        off = np.nanmax(np.abs(first.age[: len(alone.age)] - alone.age))
        yield (
            f"the same faces without the others get other ages (up to {off:.3g} years): the age of a face must not depend on what "
            "else is in its batch, nor on earlier calls"
        )
    if (first.age < -20).any() or (first.age > 150).any():
        yield (
            f"it returns ages from {first.age.min():.4g} to {first.age.max():.4g}, which are not human ages: "
            "set output.scale and output.offset, or value_range, mean and std of the input"
        )


def synthetic_faces(count: int, size: int) -> np.ndarray:
    """Draw (count, size, size, 3) uint8 faces: ovals of different skin tones with two eyes."""
    rng = np.random.default_rng(7)
    grid = (np.arange(size) + 0.5) / size
    y, x = np.meshgrid(grid, grid, indexing="ij")
    faces = np.empty((count, size, size, 3), dtype=np.uint8)
    for face in faces:
        face[:] = rng.integers(30, 226, 3)
        face[((x - 0.5) / 0.36) ** 2 + ((y - 0.5) / 0.46) ** 2 < 1] = rng.integers((120, 80, 60), (246, 206, 186))
        for eye in (0.3, 0.7):
            face[(x - eye) ** 2 + (y - 0.38) ** 2 < rng.uniform(0.03, 0.07) ** 2] = rng.integers(0, 90, 3)
    noise = rng.integers(-8, 9, faces.shape)
    return np.clip(faces.astype(int) + noise, 0, 255).astype(np.uint8)
