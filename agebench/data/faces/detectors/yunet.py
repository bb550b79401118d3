"""Detector `yunet`: YuNet (Wu et al., Machine Intelligence Research 2023), run by OpenCV; the weights ship with agebench."""

import importlib.metadata
import multiprocessing
import threading
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from agebench.data.faces.detectors.base import Detection, Detector
from agebench.data.faces.detectors.five_points import Search, detection_from_points, search_faces

# OpenCV's model (MIT), SHA-256 8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4.
WEIGHTS = Path(__file__).parent / "weights" / "face_detection_yunet_2023mar.onnx"
# Distributions of the module cv2.
OPENCV = ("opencv-python-headless", "opencv-python", "opencv-contrib-python-headless", "opencv-contrib-python")
MIN_SCORE = 0.6
# Boxes of one face overlap by more than this share (intersection over union).
MAX_OVERLAP = 0.3
# Faces from 10 px on are detected, but hardly those that fill more than the searched image: the later searches show
# them smaller, and faces that the image's edge cuts with a border.
SEARCHES = (Search(416), Search(208), Search(208, border=0.25))

_networks = threading.local()  # a network of OpenCV must not be called by two threads at once


class YuNetDetector(Detector):
    """A small convolutional network with five points (75,856 parameters).

    Detects frontal faces and profiles of at least 10 pixels in a photograph that is reduced to 416 pixels.
    """

    packages = OPENCV[:1]
    install = "pip install 'agebench[detect]'"

    def detect(self, image: Image.Image) -> list[Detection]:
        """Detect all faces.

        Args:
            image: an upright RGB photograph.

        Raises:
            UserError: OpenCV is not installed.
        """
        return search_faces(image, SEARCHES, _search)

    @classmethod
    def package_versions(cls) -> dict[str, str]:
        """Return the version of OpenCV under one name, because its distributions share their code."""
        for name in OPENCV:
            try:
                return {cls.packages[0]: importlib.metadata.version(name)}
            except importlib.metadata.PackageNotFoundError:
                continue
        return {}


def _search(pixels: np.ndarray) -> list[Detection]:
    network = _network()
    network.setInputSize((pixels.shape[1], pixels.shape[0]))
    _, rows = network.detect(np.ascontiguousarray(pixels[..., ::-1]))
    faces = []
    for row in rows if rows is not None else []:
        left, top, width, height = (float(value) for value in row[:4])
        if width > 0 and height > 0 and np.isfinite(row).all():
            points = row[4:14].reshape(5, 2).astype(np.float64)
            faces.append(detection_from_points((left, top, left + width, top + height), points, row[14]))
    return faces


def _network() -> Any:
    """Return the thread's network."""
    if not hasattr(_networks, "network"):
        _networks.network = _load()
    return _networks.network


def _load() -> Any:
    try:
        import cv2

        create = cv2.FaceDetectorYN.create
    except (ImportError, AttributeError) as error:  # OpenCV before 4.5.4 has no FaceDetectorYN
        raise YuNetDetector.not_installed(YuNetDetector.packages) from error
    if multiprocessing.parent_process() is not None:  # the images of worker processes are parallel already
        cv2.setNumThreads(1)
    # OpenCV 5 warns that its new engine ignores the choice of a device.
    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)
    try:
        return create(str(WEIGHTS), "", (320, 320), MIN_SCORE, MAX_OVERLAP, 5000)
    finally:
        cv2.utils.logging.setLogLevel(level)
