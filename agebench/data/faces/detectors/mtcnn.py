"""Detector `mtcnn`: MTCNN (Zhang et al., IEEE Signal Processing Letters 2016) in the package facenet-pytorch."""

from functools import cache
from typing import Any

import numpy as np
from PIL import Image

from agebench.data.faces.detectors.base import Detection, Detector
from agebench.data.faces.detectors.five_points import Search, detection_from_points, search_faces

# Pixels of the searched image, as the package has it. The pyramid of the first network begins there.
MIN_FACE = 20
SEARCHES = (Search(416), Search(416, border=0.25))


class MTCNNDetector(Detector):
    """A cascade of three networks with five points; detects faces of at least 20 pixels in an image of 416."""

    packages = ("facenet-pytorch",)
    # The package requires an old torch, without which it works too.
    install = "pip install --no-deps facenet-pytorch"

    def detect(self, image: Image.Image) -> list[Detection]:
        """Detect all faces.

        Args:
            image: an upright RGB photograph.

        Raises:
            UserError: facenet-pytorch is not installed.
        """
        return search_faces(image, SEARCHES, _search)


def _search(pixels: np.ndarray) -> list[Detection]:
    if min(pixels.shape[:2]) <= MIN_FACE:  # the pyramid would have no level
        return []
    boxes, scores, points = _network().detect(Image.fromarray(pixels), landmarks=True)
    if boxes is None:
        return []
    return [
        detection_from_points(box, np.asarray(five, dtype=np.float64), score)
        for box, score, five in zip(boxes, scores, points, strict=True)
        if score is not None
    ]


@cache
def _network() -> Any:
    """Load the networks, once per process."""
    try:
        from facenet_pytorch import MTCNN
    except ImportError as error:
        raise MTCNNDetector.not_installed(MTCNNDetector.packages) from error
    return MTCNN(keep_all=True, device="cpu", min_face_size=MIN_FACE)
