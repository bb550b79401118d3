"""Opened exported files of any format: the card inside, and checks of both."""

import zipfile
from abc import ABC, abstractmethod
from pathlib import Path

import numpy as np

from agebench.errors import UserError
from agebench.estimators.base import AgeEstimates
from agebench.estimators.exported.card import INPUT_SIDE_RANGE, ExportCard, foreign_model_message, read_card

# Largest sizes in bytes: of a file, and of the card inside.
MAX_FILE_BYTES = 2 * 1024**3
MAX_CARD_BYTES = 4 * 1024**2
SUFFIXES = {".ts": "torchscript", ".pt": "torchscript", ".onnx": "onnx", ".pt2": "pt2"}
BATCH_SIZE = 64


class ExportedFile(ABC):
    """An opened exported model.

    Args:
        path: the file.
        card: the card inside: model, training data, metrics, license, intended use, input and output.
    """

    def __init__(self, path: Path, card: ExportCard) -> None:
        self.path = path
        self.card = card

    def estimate(self, faces: np.ndarray) -> AgeEstimates:
        """Estimate the ages of N faces.

        Args:
            faces: (N, H, W, 3) uint8 RGB, framed as in training; (N, H, W, 6), the face first, for a model that sees
                bodies.

        Raises:
            UserError: the array has another type or shape, or sides outside of 32 to 1,024 pixels.
        """
        _check_faces(faces, self.card.input.planes)
        parts = [self.run(_planar(faces[start : start + BATCH_SIZE])) for start in range(0, len(faces), BATCH_SIZE)]
        if not parts:
            return self._empty()
        age, std, probs = (np.concatenate(part) for part in zip(*parts, strict=True))
        output = self.card.output
        return AgeEstimates(age, std if output.std else None, probs if output.probs else None, output.ages[0])

    @abstractmethod
    def run(self, images: np.ndarray) -> tuple[np.ndarray, ...]:
        """Call the file itself.

        Args:
            images: (B, C, H, W) uint8.

        Returns:
            float32 age (B,), std (B,) or (0,), probs (B, A) or (0, 0).
        """

    def _empty(self) -> AgeEstimates:
        empty, output = np.zeros(0, np.float32), self.card.output
        probs = np.zeros((0, output.n_ages), np.float32) if output.probs else None
        return AgeEstimates(empty, empty if output.std else None, probs, output.ages[0])


def read_archive_card(path: Path) -> ExportCard:
    """Read the card in an archive of torch without opening the model.

    Args:
        path: the file.

    Raises:
        UserError: the file is no archive, unpacks to more than is allowed, or holds no card.
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


def _check_faces(faces: np.ndarray, planes: int = 3) -> None:
    """Check that an array can be given to an exported file.

    Args:
        faces: the array.
        planes: number of channels that the file takes.

    Raises:
        UserError: it is not (N, H, W, planes) uint8, or its sides are out of range.
    """
    if not isinstance(faces, np.ndarray) or faces.dtype != np.uint8 or faces.ndim != 4 or faces.shape[3] != planes:
        actual = f"{faces.dtype} of the shape {faces.shape}" if isinstance(faces, np.ndarray) else type(faces).__name__
        raise UserError(f"faces must be a uint8 RGB array of the shape (N, H, W, {planes}); this is {actual}")
    if min(faces.shape[1:3]) < INPUT_SIDE_RANGE[0] or max(faces.shape[1:3]) > INPUT_SIDE_RANGE[1]:
        raise UserError(
            f"faces must be {INPUT_SIDE_RANGE[0]} to {INPUT_SIDE_RANGE[1]} pixels wide and high; these are "
            f"{faces.shape[2]} x {faces.shape[1]}"
        )


def _planar(faces: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(faces.transpose(0, 3, 1, 2))
