"""What all formats of exported files share: the opened file, its card, and the checks of both."""

import json
import zipfile
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import numpy as np

from agebench.errors import UserError
from agebench.estimators.base import AgeEstimates

# Bytes: of a file, and of the card inside.
MAX_FILE_BYTES = 2 * 1024**3
MAX_CARD_BYTES = 4 * 1024**2
SUFFIXES = {".ts": "torchscript", ".pt": "torchscript", ".onnx": "onnx", ".pt2": "pt2"}
# Pixels, of height and width.
INPUT_SIDE_RANGE = (32, 1024)
BATCH_SIZE = 64


class ExportedFile(ABC):
    """One exported model.

    Attributes:
        path: the file.
        card: what stands inside of it: model, training data, figures, licence, intended use, input and output.
    """

    def __init__(self, path: Path, card: dict[str, Any]) -> None:
        self.path = path
        self.card = card

    def estimate(self, faces: np.ndarray) -> AgeEstimates:
        """What the model says about (N, H, W, 3) uint8 RGB faces that are framed like the training faces, in their order.

        A model that sees bodies takes (N, H, W, 6), the face first.

        Raises:
            UserError: another type or shape; sides outside of 32 to 1024 pixels.
        """
        check_faces(faces, self.card["input"]["planes"])
        parts = [self.run(_planar(faces[start : start + BATCH_SIZE])) for start in range(0, len(faces), BATCH_SIZE)]
        if not parts:
            return self._none()
        age, std, probs = (np.concatenate(part) for part in zip(*parts, strict=True))
        output = self.card["output"]
        return AgeEstimates(age, std if output["std"] else None, probs if output["probs"] else None, output["ages"][0])

    @abstractmethod
    def run(self, images: np.ndarray) -> tuple[np.ndarray, ...]:
        """The file itself: (B, C, H, W) uint8 -> age (B,), std (B,) or (0,), probs (B, A) or (0, 0); float32."""

    def _none(self) -> AgeEstimates:
        none, output = np.zeros(0, np.float32), self.card["output"]
        low, high = output["ages"]
        probs = np.zeros((0, high - low + 1), np.float32) if output["probs"] else None
        return AgeEstimates(none, none if output["std"] else None, probs, low)


def read_archive_card(path: Path) -> dict[str, Any]:
    """The card in an archive of torch's, read without opening the model.

    Raises:
        UserError: no archive, one that unpacks to more than its size, or one without our card.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            if sum(entry.file_size for entry in entries) > MAX_FILE_BYTES:
                raise UserError(f"{path}: unpacks to more than an exported model may have ({MAX_FILE_BYTES:,} bytes)")
            cards = [entry for entry in entries if entry.filename.endswith("extra/card.json")]
            if not cards:
                raise UserError(foreign_model_message(path, "it holds no card"))
            if cards[0].file_size > MAX_CARD_BYTES:
                raise UserError(f"{path}: its card has {cards[0].file_size:,} bytes; {MAX_CARD_BYTES:,} are allowed")
            return read_card(path, archive.read(cards[0]))
    except (zipfile.BadZipFile, OSError, NotImplementedError, RuntimeError, EOFError) as error:
        raise UserError(f"{path}: not a readable model file: {error}") from error


def read_card(path: Path, text: bytes | str) -> dict[str, Any]:
    """The card from its JSON.

    Raises:
        UserError: no card of ours.
    """
    try:
        card = json.loads(text)
        size, planes, (low, high) = card["input"]["size"], card["input"]["planes"], card["output"]["ages"]
        whole = all(type(value) is int for value in (size, planes, low, high))
        if (
            card["kind"] == "agebench-export"
            and whole
            and 0 < size <= INPUT_SIDE_RANGE[1]
            and planes in (3, 6)
            and 0 <= low < high < 200
        ):
            card["model"], card["output"]["std"], card["output"]["probs"]
            return dict(card)
    except (ValueError, TypeError, KeyError, RecursionError):
        pass
    raise UserError(foreign_model_message(path, "its card is not one of agebench's"))


def foreign_model_message(path: Path, why: str) -> str:
    """The sentence for a model that somebody else wrote."""
    return (
        f"{path}: not a model that `agebench export` wrote: {why}. A model of somebody else is described by a card of the kind "
        "`external`, see docs/models.md"
    )


def check_faces(faces: np.ndarray, planes: int = 3) -> None:
    """Raise UserError unless these are (N, H, W, `planes`) uint8 with sides that exported files take."""
    if not isinstance(faces, np.ndarray) or faces.dtype != np.uint8 or faces.ndim != 4 or faces.shape[3] != planes:
        found = f"{faces.dtype} of the shape {faces.shape}" if isinstance(faces, np.ndarray) else type(faces).__name__
        raise UserError(f"faces must be a uint8 RGB array of the shape (N, H, W, {planes}); this is {found}")
    if min(faces.shape[1:3]) < INPUT_SIDE_RANGE[0] or max(faces.shape[1:3]) > INPUT_SIDE_RANGE[1]:
        raise UserError(
            f"faces must be {INPUT_SIDE_RANGE[0]} to {INPUT_SIDE_RANGE[1]} pixels wide and high; these are "
            f"{faces.shape[2]} x {faces.shape[1]}"
        )


def _planar(faces: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(faces.transpose(0, 3, 1, 2))
