"""Faces cut out by a box with a margin, without alignment, as many estimators were trained on."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from agebench.data.faces.alignment import AlignmentSpec, warp
from agebench.data.faces.body_crops import FACE, Box, fit_letterbox
from agebench.data.faces.detectors.base import Detection, Detector, detect_faces, open_detector
from agebench.data.samples import Samples
from agebench.errors import ImageRejectedError
from agebench.types import RejectReason

# Version of the face cache of boxes. Raise it when the same image and box give other pixels than before.
VERSION = 1
# Minimum side of a box, pixels of the image.
MIN_SIDE = 4


class AnnotatedFace(NamedTuple):
    """The annotated position of a face.

    Attributes:
        box: left, top, right, bottom, pixels; None if it is not annotated.
        points: x0, y0, x1, y1, … of annotated points, pixels; None if they are not annotated.
        whole: whether the box refers to the whole image, of which the row's image is a part.
    """

    box: Box | None
    points: Sequence[float] | None
    whole: bool = False


def annotated_faces(samples: Samples, mode: str) -> list[AnnotatedFace]:
    """Return the annotated position of each sample's face.

    Args:
        samples: the samples.
        mode: `AlignmentSpec.mode`; with `boxes`, the landmarks are the four corners of the face box.
    """
    missing = [None] * len(samples)
    columns = [samples.table.get(name, missing) for name in (FACE, "bbox", "landmarks")]
    faces = []
    for whole_box, box, points in zip(*columns, strict=True):
        points = points if _is_known(points) else None
        if mode == "boxes" and points is not None:
            x, y = points[0::2], points[1::2]
            box, points = (min(x), min(y), max(x), max(y)), None
        if _is_known(whole_box):
            faces.append(AnnotatedFace(tuple(whole_box), None, whole=True))
        else:
            faces.append(AnnotatedFace(tuple(box) if _is_known(box) else None, points))
    return faces


def crop_face_box(
    image: Image.Image, spec: AlignmentSpec, annotated: AnnotatedFace, detector: Detector | None = None
) -> np.ndarray:
    """Cut out a face by its annotated box, else by the detected one, with the spec's margin.

    Of several detected faces, the one nearest to the annotated points is taken, without points the largest. `letterbox` and
    `stretch` end at the border of the image; `square` repeats its edge.

    Args:
        image: an upright RGB image.
        spec: size, margin, fit and detector.
        annotated: the annotated position of the face.
        detector: an instance of the spec's detector, for callers with many images; None to create one.

    Returns:
        (size, size, 3) uint8 RGB.

    Raises:
        ImageRejectedError: no face is detected, or the box is empty or outside the image.
    """
    box = annotated.box or _detected_box(image, spec, annotated.points, detector)
    left, top, right, bottom = (float(side) for side in box)
    width, height = right - left, bottom - top
    if not np.isfinite([left, top, right, bottom]).all() or min(width, height) < MIN_SIDE:
        raise ImageRejectedError(
            f"the box of its face, {' '.join(f'{side:g}' for side in box)}, is smaller than {MIN_SIDE} pixels",
            RejectReason.BAD_FACE_BOX,
        )
    margin = spec.margin * max(width, height)
    if spec.fit == "square":
        side = max(width, height) + 2 * margin
        corner = ((left + right - side) / 2, (top + bottom - side) / 2)
        scale = side / spec.size
        return warp(image, np.array([[scale, 0.0, corner[0]], [0.0, scale, corner[1]]]), spec.size)
    edges = (left - margin, top - margin, right + margin, bottom + margin)
    clipped = [round(min(max(edge, 0), image.size[axis % 2])) for axis, edge in enumerate(edges)]
    if clipped[2] - clipped[0] < 1 or clipped[3] - clipped[1] < 1:
        raise ImageRejectedError("the box of its face lies outside the image", RejectReason.BAD_FACE_BOX)
    part = image.crop((clipped[0], clipped[1], clipped[2], clipped[3]))
    if spec.fit == "letterbox":
        return fit_letterbox(part, spec.size)
    return np.asarray(part.resize((spec.size, spec.size), Image.Resampling.BILINEAR))


def _detected_box(
    image: Image.Image, spec: AlignmentSpec, points: Sequence[float] | None, detector: Detector | None
) -> Box:
    faces = detect_faces(detector or open_detector(spec.detector), image, name=spec.detector)
    if not faces:
        raise ImageRejectedError("no face found", RejectReason.NO_FACE)
    if points is None:
        return faces[0].box
    center = np.asarray(points, dtype=np.float64).reshape(-1, 2).mean(axis=0)

    def distance(face: Detection) -> float:
        middle = np.array([face.box[0] + face.box[2], face.box[1] + face.box[3]]) / 2
        return float(np.linalg.norm(middle - center))

    return min(faces, key=distance).box


def _is_known(values: object) -> bool:
    return isinstance(values, list | tuple | np.ndarray) and len(values) > 0
