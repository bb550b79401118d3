"""Detectors: what finds the faces in a photograph. The built-in one is dlib's; others are plugins."""

import importlib.metadata
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from agebench.errors import AgebenchError
from agebench.registry.builtin import detectors

__all__ = ["DEFAULT_DETECTOR", "Detection", "Detector", "detect_faces", "detectors", "open_detector"]

DEFAULT_DETECTOR = "dlib"


@dataclass(frozen=True)
class Detection:
    """One face in one photograph, in pixels of it; a pixel's centre is at +0.5.

    Attributes:
        box: left, top, right, bottom. It may reach over the photograph's edge, but not lie beside it.
        points: (3, 2) x, y of the eye on the image's left, of the one on its right, of the nose's base (below its tip).
        score: how sure the detector is; larger is surer.
    """

    box: tuple[float, float, float, float]
    landmarks: np.ndarray
    score: float = 0.0

    @property
    def area(self) -> float:
        """Of the box, square pixels."""
        return (self.box[2] - self.box[0]) * (self.box[3] - self.box[1])


class Detector(ABC):
    """Finds faces. It is made without arguments and can be pickled: what is heavy is loaded by the first `detect`.

    Attributes:
        packages: installed packages that determine what is found; their versions are part of the face cache's key.
        version: raised when the same photograph gives other faces than before.
    """

    packages: ClassVar[tuple[str, ...]] = ()
    version: ClassVar[int] = 1

    @abstractmethod
    def detect(self, image: Image.Image) -> Sequence[Detection]:
        """All faces in an upright RGB photograph, in any order; none is an empty list. The same each time it is asked."""

    def key(self) -> dict[str, Any]:
        """What determines the faces found, beside the photograph."""
        versions = {name: importlib.metadata.version(name) for name in self.packages}
        return {"class": type(self).__qualname__, "version": self.version, "packages": versions}


def open_detector(name: str) -> Detector:
    """The detector called `name`.

    Raises:
        UserError: there is none, or it is broken.
        AgebenchError: it cannot be made.
    """
    kind = detectors.get(name)
    if not (isinstance(kind, type) and issubclass(kind, Detector)):
        raise AgebenchError(
            f"detector '{name}' is no subclass of agebench.data.faces.detectors.base.Detector; mend the plugin"
        )
    try:
        made: Detector = kind()
    except AgebenchError:
        raise
    except Exception as error:  # a third party's code may raise anything
        raise _broken(name, f"it cannot be made: {type(error).__name__}: {error}") from error
    return made


def detect_faces(detector: Detector, image: Image.Image, *, name: str) -> list[Detection]:
    """All faces in a photograph, the largest first, after a look at whether they can be any.

    Raises:
        AgebenchError: the detector called `name` failed, or its answer breaks the contract; the message says how.
    """
    try:
        faces = list(detector.detect(image))
    except AgebenchError:
        raise
    except Exception as error:  # a third party's code may raise anything
        raise _broken(name, f"{type(error).__name__}: {error}") from error
    for face in faces:
        problem = validate_detection(face, image.size)
        if problem:
            raise _broken(name, problem)
    return sorted(faces, key=lambda face: face.area, reverse=True)


def validate_detection(face: object, size: tuple[int, int]) -> str:
    """What is wrong with a detector's answer for a photograph of `size` (width, height); "" if nothing is."""
    if not isinstance(face, Detection):
        return f"it gives {type(face).__name__} where a face should be; it must be agebench.data.faces.detectors.base.Detection"
    box, points = np.asarray(face.box, dtype=np.float64), np.asarray(face.landmarks)
    if box.shape != (4,) or not np.isfinite(box).all() or box[2] <= box[0] or box[3] <= box[1]:
        return f"it gives the box {_short(face.box)}; it must be left < right and top < bottom, as (left, top, right, bottom)"
    if box[2] <= 0 or box[3] <= 0 or box[0] >= size[0] or box[1] >= size[1]:
        return f"it gives the box {_short(face.box)}, which lies outside the image of {size[0]} x {size[1]} pixels"
    if points.shape != (3, 2) or points.dtype.kind not in "fiu":
        return f"it gives points of the shape {points.shape}; they must be (3, 2) numbers: image-left eye, -right eye, nose base"
    if not np.isfinite(points).all():
        return "it gives points that are not finite (NaN); leave out faces of which it has no points"
    margin = np.array(size, dtype=np.float64)
    if (points < -margin).any() or (points > 2 * margin).any():
        return (
            f"it gives points far outside the image of {size[0]} x {size[1]} pixels: {_short(points.ravel().tolist())}"
        )
    return ""


def _short(numbers: Sequence[float]) -> str:
    return "(" + ", ".join(f"{float(number):.4g}" for number in numbers) + ")"


def _broken(name: str, problem: str) -> AgebenchError:
    return AgebenchError(
        f"detector '{name}' broke its contract: {problem}. `agebench check {name}` tells more; "
        "--set faces.detector=NAME takes another one"
    )
