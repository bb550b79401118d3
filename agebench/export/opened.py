"""Exported files, opened: whatever the format, faces in and answers out."""

import json
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from agebench.errors import UserError
from agebench.export.answers import Answers

# Bytes: of a file, and of the card inside.
LARGEST_FILE = 2 * 1024**3
LARGEST_CARD = 4 * 1024**2
SUFFIXES = {".ts": "torchscript", ".pt": "torchscript", ".onnx": "onnx", ".pt2": "pt2"}
# Pixels, of height and width.
SIDES = (32, 1024)
BATCH = 64

# Writes a model that has been built, with this card, to this path as it is.
Save = Callable[[Path, dict[str, Any]], None]


class ExportedFile(ABC):
    """One exported model.

    Attributes:
        path: the file.
        card: what stands inside of it: model, training data, figures, licence, intended use, input and output.
    """

    def __init__(self, path: Path, card: dict[str, Any]) -> None:
        self.path = path
        self.card = card

    def estimate(self, faces: np.ndarray) -> Answers:
        """What the model says about (N, H, W, 3) uint8 RGB faces that are framed like the training faces, in their order.

        A model that sees bodies takes (N, H, W, 6), the face first.

        Raises:
            UserError: another type or shape; sides outside of 32 to 1024 pixels.
        """
        check_faces(faces, self.card["input"]["planes"])
        parts = [self.run(_planar(faces[start : start + BATCH])) for start in range(0, len(faces), BATCH)]
        if not parts:
            return self._none()
        age, std, probs = (np.concatenate(part) for part in zip(*parts, strict=True))
        output = self.card["output"]
        return Answers(age, std if output["std"] else None, probs if output["probs"] else None)

    @abstractmethod
    def run(self, images: np.ndarray) -> tuple[np.ndarray, ...]:
        """The file itself: (B, C, H, W) uint8 -> age (B,), std (B,) or (0,), probs (B, A) or (0, 0); float32."""

    def _none(self) -> Answers:
        none, output = np.zeros(0, np.float32), self.card["output"]
        low, high = output["ages"]
        probs = np.zeros((0, high - low + 1), np.float32) if output["probs"] else None
        return Answers(none, none if output["std"] else None, probs)


def open_exported(path: Path, *, trusted: bool = False, device: str = "cpu") -> ExportedFile:
    """Open a file that `agebench export` wrote: .ts or .pt (TorchScript), .onnx, .pt2 (torch.export).

    Args:
        path: the file.
        trusted: that code in it may run. TorchScript and torch.export files are programs; ONNX files need no trust.
        device: of TorchScript and torch.export files; ONNX runs on the CPU.

    Raises:
        UserError: no such file, not one of ours, damaged, too large, or of a format that wants trust and has none; a card
            that does not fit what the file says.
    """
    path = Path(path)
    kind = SUFFIXES.get(path.suffix.lower())
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    if kind is None:
        raise UserError(f"{path}: not an exported model; these end in {', '.join(SUFFIXES)}")
    if path.stat().st_size > LARGEST_FILE:
        raise UserError(
            f"{path}: {path.stat().st_size:,} bytes are more than an exported model may have ({LARGEST_FILE:,})"
        )
    if kind != "onnx" and not trusted:
        raise UserError(
            f"{path}: a {path.suffix} file is a program, and opening it can run code of whoever made it. If you know where it "
            "comes from, say so (--trusted, or trusted=True in Python); an .onnx file of the same model needs no trust"
        )
    opened = _open(path, kind, device)
    _check_fit(opened)
    return opened


def _open(path: Path, kind: str, device: str) -> ExportedFile:
    if kind == "onnx":
        from agebench.export.onnx_file import OnnxFile

        return OnnxFile(path)
    if kind == "pt2":
        from agebench.export.torch_export import TorchExportFile

        return TorchExportFile(path, archived_card(path), device)
    from agebench.export.torchscript import TorchScriptFile

    return TorchScriptFile(path, archived_card(path), device)


def _check_fit(opened: ExportedFile) -> None:
    """Ask about one grey face: the answers must have the shapes that the card announces.

    Raises:
        UserError: they have not, with the difference; or the file refuses what its card allows.
    """
    side, planes = opened.card["input"]["size"], opened.card["input"]["planes"]
    output = opened.card["output"]
    ages = output["ages"][1] - output["ages"][0] + 1
    announced = [(1,), (1,) if output["std"] else (0,), (1, ages) if output["probs"] else (0, 0)]
    try:
        given = [part.shape for part in opened.run(np.full((1, planes, side, side), 128, np.uint8))]
    except Exception as error:  # Each runtime raises kinds of its own.
        raise UserError(f"{opened.path}: refuses a face as its card describes it: {error}") from error
    if given != announced:
        raise UserError(
            f"{opened.path}: the file does not fit its card: for one face age, std and probs should have the shapes "
            f"{announced}; they have {given}"
        )


def archived_card(path: Path) -> dict[str, Any]:
    """The card in an archive of torch's, read without opening the model.

    Raises:
        UserError: no archive, one that unpacks to more than its size, or one without our card.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            if sum(entry.file_size for entry in entries) > LARGEST_FILE:
                raise UserError(f"{path}: unpacks to more than an exported model may have ({LARGEST_FILE:,} bytes)")
            cards = [entry for entry in entries if entry.filename.endswith("extra/card.json")]
            if not cards:
                raise UserError(not_ours(path, "it holds no card"))
            if cards[0].file_size > LARGEST_CARD:
                raise UserError(f"{path}: its card has {cards[0].file_size:,} bytes; {LARGEST_CARD:,} are allowed")
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
            and 0 < size <= SIDES[1]
            and planes in (3, 6)
            and 0 <= low < high < 200
        ):
            card["model"], card["output"]["std"], card["output"]["probs"]
            return dict(card)
    except (ValueError, TypeError, KeyError, RecursionError):
        pass
    raise UserError(not_ours(path, "its card is not one of agebench's"))


def not_ours(path: Path, why: str) -> str:
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
    if min(faces.shape[1:3]) < SIDES[0] or max(faces.shape[1:3]) > SIDES[1]:
        raise UserError(
            f"faces must be {SIDES[0]} to {SIDES[1]} pixels wide and high; these are {faces.shape[2]} x {faces.shape[1]}"
        )


def _planar(faces: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(faces.transpose(0, 3, 1, 2))
