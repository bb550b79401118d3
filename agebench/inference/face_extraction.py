"""From a picture, wherever it comes from, to the faces in it on the template."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from agebench.data.faces.alignment import AlignmentSpec, align_face, align_or_crop
from agebench.data.faces.detectors.base import Detection, detect_faces, open_detector
from agebench.data.image_io import open_image, upright
from agebench.errors import ImageRejectedError, RejectReason, UserError

AlignMode = Literal["detect", "none"]
Box = tuple[float, float, float, float]

# A photograph is smaller; what is larger is not read into memory to find that out.
MAX_BYTES = 256_000_000


@dataclass(frozen=True)
class ExtractedFaces:
    """What is in one picture.

    Attributes:
        faces: (n, S, S, 3) uint8, the largest face first.
        boxes: of each face, pixels of the picture, upright; None where it was not looked for.
        error: why there is no face; else "".
        seconds: stage -> processor time.
    """

    faces: np.ndarray
    boxes: list[Box | None] = field(default_factory=list)
    error: str = ""
    seconds: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class FaceExtractor:
    """Finds and aligns faces as in training; can be pickled.

    Attributes:
        spec: mode `detect` (every face that the detector finds) or `none` (the picture is framed already: one face).
        search: pictures with a longer side than this are reduced to it before faces are looked for; 0: as they are.
        every: of one call's pictures, which are then frames in a row, only each `every`-th is searched; the faces of those
            between are taken to be where they were.
    """

    spec: AlignmentSpec
    search: int = 0
    every: int = 1

    def __call__(self, images: Sequence[Any]) -> list[ExtractedFaces]:
        """The faces of each image; what cannot be used has a reason instead.

        Raises:
            AgebenchError: the detector is missing or fails.
            UserError: something that is no image at all, but a number, or an array of another shape or type.
        """
        detect = self.spec.mode == "detect"
        search = _Search(self.spec.detector, self.search, self.every) if detect else None
        return [self._find(image, search) for image in images]

    def _find(self, source: Any, search: "_Search | None") -> ExtractedFaces:
        clock = _Clock()
        boxes: list[Box | None]
        try:
            image = open_picture(source)
            clock.lap("decode")
            if search is None:
                faces, boxes = [align_or_crop(image, self.spec)], [None]
            else:
                found = search(image)
                clock.lap("detect")
                if not found:
                    raise ImageRejectedError("no face found", RejectReason.NO_FACE)
                faces = [align_face(image, self.spec, face.landmarks) for face in found]
                boxes = [face.box for face in found]
            clock.lap("align")
        except ImageRejectedError as refusal:
            return ExtractedFaces(self._none(), error=str(refusal), seconds=clock.seconds)
        except OSError as error:
            reason = f"cannot be read: {error.strerror or error}"
            return ExtractedFaces(self._none(), error=reason, seconds=clock.seconds)
        return ExtractedFaces(np.stack(faces), boxes, seconds=clock.seconds)

    def _none(self) -> np.ndarray:
        return np.zeros((0, self.spec.size, self.spec.size, 3), np.uint8)


class _Search:
    """The faces of one picture after another; see `Finder`."""

    def __init__(self, detector: str, side: int, every: int) -> None:
        self._name, self._side, self._every = detector, side, every
        self._detector = open_detector(detector)
        self._asked = 0
        self._last: tuple[tuple[int, int], list[Detection]] = ((0, 0), [])

    def __call__(self, image: Image.Image) -> list[Detection]:
        """The largest first."""
        if self._asked % self._every == 0 or image.size != self._last[0]:
            self._last = (image.size, self._look(image))
        self._asked += 1
        return self._last[1]

    def _look(self, image: Image.Image) -> list[Detection]:
        shrink = max(image.size) / self._side if self._side else 1.0
        if shrink <= 1:
            return detect_faces(self._detector, image, name=self._name)
        size = (max(1, round(image.width / shrink)), max(1, round(image.height / shrink)))
        smaller = image.resize(size, Image.Resampling.BILINEAR, reducing_gap=2)
        scale = np.array(image.size) / size
        return [
            replace(face, box=tuple(np.tile(scale, 2) * face.box), landmarks=face.landmarks * scale)
            for face in detect_faces(self._detector, smaller, name=self._name)
        ]


def open_picture(source: Any) -> Image.Image:
    """The upright RGB picture: of a path, of a file's bytes, of a PIL image, or of an array.

    An array is (H, W, 3) RGB or (H, W) grey, uint8.

    Raises:
        ImageRejectedError: not an image, damaged, or too large.
        OSError: the file cannot be read.
        UserError: it is none of these.
    """
    if isinstance(source, str | Path):
        if "\0" in str(source):
            raise ImageRejectedError(
                "a path with a NUL character; where find wrote it, leave out -print0: one path a line"
            )
        path = Path(source)
        if path.is_dir():
            raise ImageRejectedError("a folder, not an image")
        if path.exists() and not path.is_file():
            raise ImageRejectedError("not an ordinary file")
        if path.stat().st_size > MAX_BYTES:
            raise ImageRejectedError(f"larger than the {MAX_BYTES // 1_000_000} MB allowed")
        return open_image(path.read_bytes())
    if isinstance(source, bytes):
        return open_image(source)
    if isinstance(source, Image.Image):
        try:
            return upright(source)  # opened lazily, it is read only now, and its damage found
        except (ImageRejectedError, OSError):
            raise
        except Exception as error:
            raise ImageRejectedError(f"a damaged image: {error}") from error
    return Image.fromarray(source).convert("RGB")


def check_picture(source: Any, position: int) -> None:
    """Whether `source` is a kind of thing that can be a picture.

    Raises:
        UserError: it is not; the message says which of the images, and what would be right.
    """
    if isinstance(source, np.ndarray):
        grey, colour = source.ndim == 2, source.ndim == 3 and source.shape[2:] == (3,)
        if source.dtype != np.uint8 or not (grey or colour) or not source.size:
            raise UserError(
                f"image {position}: an array of shape {source.shape} and type {source.dtype}; it must be (H, W, 3) RGB or "
                "(H, W) grey, uint8"
            )
    elif not isinstance(source, str | Path | bytes | Image.Image):
        raise UserError(
            f"image {position}: {type(source).__name__} is no image; give paths, PIL images, uint8 arrays or files' bytes"
        )


class _Clock:
    """Processor time by stage: on a busy machine the time on the wall would say more of what else it does."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.thread_time()

    def lap(self, stage: str) -> None:
        """What went by since the last lap belongs to `stage`."""
        now = time.thread_time()
        self.seconds[stage], self._last = now - self._last, now
