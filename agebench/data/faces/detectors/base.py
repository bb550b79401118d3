"""Face detectors: the interface, the checks of a detector's output, and the choice of the default detector."""

import importlib.metadata
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from agebench.errors import AgebenchError, ImageRejectedError, UserError
from agebench.registry.builtin import detectors
from agebench.types import RejectReason

__all__ = [
    "DEFAULT_DETECTORS",
    "Detection",
    "Detector",
    "default_detector",
    "detect_faces",
    "detectors",
    "largest_face_landmarks",
    "open_detector",
]

# The first installed one is the default, in the order of their failure rates (docs/explanation/detectors.md).
DEFAULT_DETECTORS = ("yunet", "dlib")


@dataclass(frozen=True)
class Detection:
    """One detected face, in pixels of the photograph; pixel centers are at +0.5.

    Attributes:
        box: left, top, right, bottom. It may exceed the photograph, but must overlap it.
        landmarks: (3, 2) x, y of the image-left eye, the image-right eye and the nose base (below the tip).
        score: confidence; larger is more confident.
        five_points: (5, 2) x, y of the image-left eye, the image-right eye, the nose tip, and the image-left and image-right
            corners of the mouth; None if the detector has no such points.
    """

    box: tuple[float, float, float, float]
    landmarks: np.ndarray
    score: float = 0.0
    five_points: np.ndarray | None = None

    @property
    def area(self) -> float:
        """Area of the box, square pixels."""
        return (self.box[2] - self.box[0]) * (self.box[3] - self.box[1])


class Detector(ABC):
    """Face detector. It is created without arguments and can be pickled.

    The first `detect` loads its model.

    Attributes:
        packages: installed packages that determine the detections; their versions are part of the face cache's key.
        version: version of the detector; raise it when the same photograph gives other detections than before.
        install: the command that installs `packages`; empty: pip install and their names.
    """

    packages: ClassVar[tuple[str, ...]] = ()
    version: ClassVar[int] = 1
    install: ClassVar[str] = ""

    @abstractmethod
    def detect(self, image: Image.Image) -> Sequence[Detection]:
        """Detect all faces; the result must be deterministic.

        Args:
            image: an upright RGB photograph.

        Returns:
            Detections in any order; empty if there is no face.
        """

    def key(self) -> dict[str, Any]:
        """Return everything except the photograph that determines the detections, as JSON.

        Raises:
            UserError: a package is not installed.
        """
        versions = self.package_versions()
        missing = [name for name in self.packages if name not in versions]
        if missing:
            raise self.not_installed(missing)
        return {"class": type(self).__qualname__, "version": self.version, "packages": versions}

    @classmethod
    def package_versions(cls) -> dict[str, str]:
        """Return the versions of those of `packages` that are installed."""
        versions = {}
        for name in cls.packages:
            try:
                versions[name] = importlib.metadata.version(name)
            except importlib.metadata.PackageNotFoundError:
                continue
        return versions

    @classmethod
    def is_installed(cls) -> bool:
        """Return whether everything that the detector needs is installed."""
        return len(cls.package_versions()) == len(cls.packages)

    @classmethod
    def not_installed(cls, missing: Sequence[str]) -> UserError:
        """Return the error about packages that are not installed, with the ways out.

        Args:
            missing: names of the packages.
        """
        command = cls.install or f"pip install {' '.join(missing)}"
        return UserError(
            f"detecting faces needs {' and '.join(missing)}, not installed: {command}. Without a detector: "
            '`faces = "none"` on the card of a dataset whose images are framed like UTKFace\'s crops already'
        )


@cache
def default_detector() -> str:
    """Return the name of the default detector: the first of `DEFAULT_DETECTORS` that is installed, else the first."""
    for name in DEFAULT_DETECTORS:
        if detectors.get(name).is_installed():
            return name
    return DEFAULT_DETECTORS[0]


def describe_detectors() -> dict[str, str]:
    """Return each detector's name with its state: the default one, how to install it, or an empty string."""
    states = {}
    for name in detectors.names():
        kind = detectors.get(name)
        is_missing = isinstance(kind, type) and issubclass(kind, Detector) and not kind.is_installed()
        states[name] = "the default" if name == default_detector() else ""
        if is_missing:
            states[name] = f"not installed: {kind.install or 'pip install ' + ' '.join(kind.packages)}"
    return states


def __getattr__(name: str) -> str:
    if name == "DEFAULT_DETECTOR":  # the constant of earlier versions
        return default_detector()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def open_detector(name: str) -> Detector:
    """Create a detector by name.

    Args:
        name: name of the detector, as `agebench list detectors` shows it.

    Raises:
        UserError: no detector has this name, or its plugin is broken.
        AgebenchError: the detector cannot be created.
    """
    detector_class = detectors.get(name)
    if not (isinstance(detector_class, type) and issubclass(detector_class, Detector)):
        raise AgebenchError(
            f"detector '{name}' is no subclass of agebench.data.faces.detectors.base.Detector; mend the plugin"
        )
    try:
        detector: Detector = detector_class()
    except AgebenchError:
        raise
    except Exception as error:  # third-party code may raise anything
        raise _broken(name, f"it cannot be made: {type(error).__name__}: {error}") from error
    return detector


def detect_faces(detector: Detector, image: Image.Image, *, name: str) -> list[Detection]:
    """Detect all faces in a photograph and validate them.

    Args:
        detector: the detector.
        image: an upright RGB photograph.
        name: name of the detector in error messages.

    Returns:
        Detections, the largest first.

    Raises:
        AgebenchError: the detector failed, or a detection violates the interface.
    """
    try:
        faces = list(detector.detect(image))
    except AgebenchError:
        raise
    except Exception as error:  # third-party code may raise anything
        raise _broken(name, f"{type(error).__name__}: {error}") from error
    for face in faces:
        problem = validate_detection(face, image.size)
        if problem:
            raise _broken(name, problem)
    return sorted(faces, key=lambda face: face.area, reverse=True)


def largest_face_landmarks(detector: Detector, image: Image.Image, *, name: str) -> np.ndarray:
    """Return the landmarks of the largest face that a detector finds.

    Args:
        detector: the detector.
        image: an upright RGB photograph.
        name: name of the detector in error messages.

    Returns:
        (3, 2) image-left eye, image-right eye and nose base, pixels of `image`.

    Raises:
        ImageRejectedError: no face is detected.
        AgebenchError: the detector fails.
    """
    faces = detect_faces(detector, image, name=name)
    if not faces:
        raise ImageRejectedError("no face found", RejectReason.NO_FACE)
    return faces[0].landmarks


def validate_detection(face: object, size: tuple[int, int]) -> str:
    """Describe how a detection violates the interface; empty for a valid one.

    Args:
        face: the detector's output for one face.
        size: width and height of the photograph, pixels.
    """
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
    if face.five_points is not None:
        five = np.asarray(face.five_points)
        if five.shape != (5, 2) or five.dtype.kind not in "fiu" or not np.isfinite(five).all():
            return f"it gives five_points of the shape {five.shape}; they must be (5, 2) finite numbers, or None"
    return ""


def _short(numbers: Sequence[float]) -> str:
    return "(" + ", ".join(f"{float(number):.4g}" for number in numbers) + ")"


def _broken(name: str, problem: str) -> AgebenchError:
    return AgebenchError(
        f"detector '{name}' broke its contract: {problem}. `agebench check {name}` shows more; "
        "--set faces.detector=NAME takes another one"
    )
