"""Extract aligned faces from images of any source."""

import time
from collections.abc import Collection, Sequence
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

# Larger files are refused before they are read; photographs are smaller.
MAX_BYTES = 256_000_000


@dataclass(frozen=True)
class ExtractedFaces:
    """The faces of one image.

    Attributes:
        faces: (n, S, S, 3) uint8 RGB, the largest face first.
        boxes: box of each face in pixels of the upright image; None if faces were not searched.
        error: the reason for missing faces; else empty.
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
        spec: mode `detect` (every face that the detector finds) or `none` (the image is one framed face).
        search: images with a longer side are reduced to this many pixels before faces are searched; 0: as they are.
        every: the images of one call are successive frames, of which every so many are searched; in between, the faces'
            positions are kept.
    """

    spec: AlignmentSpec
    search: int = 0
    every: int = 1

    def __call__(self, images: Sequence[Any]) -> list[ExtractedFaces]:
        """Extract the faces of each image; an unusable image has a reason instead.

        Args:
            images: paths, bytes, PIL images or arrays, see `load_image`.

        Raises:
            AgebenchError: the detector is missing or fails.
        """
        detect = self.spec.mode == "detect"
        search = _Search(self.spec.detector, self.search, self.every) if detect else None
        return [self._find(image, search) for image in images]

    def _find(self, source: Any, search: "_Search | None") -> ExtractedFaces:
        clock = _Clock()
        boxes: list[Box | None]
        try:
            image = load_image(source)
            clock.lap("decode")
            if search is None:
                faces, boxes = [align_or_crop(image, self.spec)], [None]
            else:
                detections = search(image)
                clock.lap("detect")
                if not detections:
                    raise ImageRejectedError("no face found", RejectReason.NO_FACE)
                faces = [align_face(image, self.spec, face.landmarks) for face in detections]
                boxes = [face.box for face in detections]
            clock.lap("align")
        except ImageRejectedError as rejection:
            return ExtractedFaces(self._no_faces(), error=str(rejection), seconds=clock.seconds)
        except OSError as error:
            reason = f"cannot be read: {error.strerror or error}"
            return ExtractedFaces(self._no_faces(), error=reason, seconds=clock.seconds)
        return ExtractedFaces(np.stack(faces), boxes, seconds=clock.seconds)

    def _no_faces(self) -> np.ndarray:
        return np.zeros((0, self.spec.size, self.spec.size, 3), np.uint8)


class _Search:
    """Detects faces in successive images; see `FaceExtractor`."""

    def __init__(self, detector: str, side: int, every: int) -> None:
        self._name, self._side, self._every = detector, side, every
        self._detector = open_detector(detector)
        self._n_images = 0
        self._last: tuple[tuple[int, int], list[Detection]] = ((0, 0), [])

    def __call__(self, image: Image.Image) -> list[Detection]:
        """Return the detections in an image, the largest first."""
        if self._n_images % self._every == 0 or image.size != self._last[0]:
            self._last = (image.size, self._detect(image))
        self._n_images += 1
        return self._last[1]

    def _detect(self, image: Image.Image) -> list[Detection]:
        factor = max(image.size) / self._side if self._side else 1.0
        if factor <= 1:
            return detect_faces(self._detector, image, name=self._name)
        size = (max(1, round(image.width / factor)), max(1, round(image.height / factor)))
        reduced = image.resize(size, Image.Resampling.BILINEAR, reducing_gap=2)
        scale = np.array(image.size) / size
        return [
            replace(face, box=tuple(np.tile(scale, 2) * face.box), landmarks=face.landmarks * scale)
            for face in detect_faces(self._detector, reduced, name=self._name)
        ]


def load_image(source: Any) -> Image.Image:
    """Open an image as upright RGB.

    Args:
        source: a path, bytes of an image file, a PIL image, a (H, W, 3) RGB or (H, W) gray uint8 array, or the reason for
            which the image could not be read from its shard.

    Raises:
        ImageRejectedError: it is not an image, damaged, or too large, or the source is the reason.
        OSError: the file cannot be read.
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
    if isinstance(source, ImageRejectedError):
        raise source
    if isinstance(source, Image.Image):
        try:
            return upright(source)  # a lazily opened image is decoded only now
        except (ImageRejectedError, OSError):
            raise
        except Exception as error:
            raise ImageRejectedError(f"a damaged image: {error}") from error
    return Image.fromarray(source).convert("RGB")


def check_image(source: Any, position: int) -> None:
    """Check that an item can be an image.

    Args:
        source: the item.
        position: its position in the input, for messages.

    Raises:
        UserError: it has another type or shape.
    """
    if isinstance(source, np.ndarray):
        if source.dtype != np.uint8 or not has_image_shape(source) or not source.size:
            raise UserError(
                f"image {position}: an array of shape {source.shape} and type {source.dtype}; it must be (H, W, 3) RGB or "
                "(H, W) gray, uint8"
            )
    elif not isinstance(source, str | Path | bytes | Image.Image):
        raise UserError(
            f"image {position}: {type(source).__name__} is no image; give paths, PIL images, uint8 arrays or files' bytes"
        )


def has_image_shape(array: np.ndarray, channels: Collection[int] = (3,)) -> bool:
    """Return whether an array has the shape of one image, (H, W) or (H, W, C).

    Args:
        array: the array.
        channels: the values of C that an image can have.
    """
    return array.ndim == 2 or (array.ndim == 3 and array.shape[2] in channels)


class _Clock:
    """Processor time by stage; wall-clock time would depend on the machine's other load."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.thread_time()

    def lap(self, stage: str) -> None:
        """Assign the time since the last call to a stage.

        Args:
            stage: name of the stage.
        """
        now = time.thread_time()
        self.seconds[stage], self._last = now - self._last, now
