"""One preprocessing for all faces: whatever the source, the eyes end at the same place in the image."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from PIL import Image

from agebench.data.faces import body_crops
from agebench.data.faces.detectors.base import DEFAULT_DETECTOR, Detector, open_detector
from agebench.data.faces.detectors.dlib import largest_face_landmarks
from agebench.errors import ImageRejectedError
from agebench.types import RejectReason

# Image-left eye, image-right eye, nose base as shares of the side, at coverage 1: the framing of UTKFace's 200 px crops
# (medians of 488 detections in the real set; quartiles lie 3 to 6 px apart).
TEMPLATE = np.array([[59.5, 61.0], [136.5, 60.5], [98.0, 118.0]]) / 200.0
# Raise it when the same image and spec give other pixels than before.
VERSION = 2


@dataclass(frozen=True)
class AlignmentSpec:
    """How a face becomes `size` x `size` pixels.

    Attributes:
        mode: `none` (the image is framed like UTKFace's crops), `landmarks` (annotated points), `detect` (found points),
            `boxes` (annotated corners of the face's box, upper left, upper right, lower right, lower left: a framing of its own).
        size: side of the output, pixels.
        coverage: 1 for UTKFace's framing; 1.5 shows half as much again around the same centre.
        landmark_points: for `landmarks`, which annotated points are the image-left eye, the image-right eye, the nose base.
        detector: for `detect`, the name of what finds them.
        bodies: whether a body stands behind the face, in three more channels.
        letterbox: where boxes of faces are annotated, they are cut out as they are, unaligned, and fitted into black.
        mask_bodies: faces and other people are blackened in a body, and bodies of which little is left count as none.
    """

    mode: Literal["none", "landmarks", "detect", "boxes"]
    size: int
    crop_scale: float = 1.0
    landmark_points: tuple[int, ...] = ()
    detector: str = DEFAULT_DETECTOR
    bodies: bool = False
    letterbox: bool = False
    mask_bodies: bool = False

    @property
    def channels(self) -> int:
        """Of a prepared image: RGB of the face and, with bodies, of the body; black where there is none."""
        return 6 if self.bodies else 3

    def key(self) -> dict[str, Any]:
        """Everything that determines the pixels beside the image itself."""
        made: dict[str, Any] = {"version": VERSION, "mode": self.mode, "size": self.size, "coverage": self.crop_scale}
        if self.mode == "landmarks":
            made["points"] = self.landmark_points
        if self.mode == "detect":
            made["detector"] = {"name": self.detector, **open_detector(self.detector).key()}
        if self.bodies:
            made["bodies"] = body_crops.VERSION
            if self.mask_bodies:
                made["mask_bodies"] = True
        if self.letterbox:
            made |= {"letterbox": body_crops.VERSION, "mode": "letterbox"}
        return made

    def summary(self) -> dict[str, Any]:
        """For a person: mode, size, coverage, and which detector in which version, or None."""
        detector = self.key().get("detector")
        return {"mode": self.mode, "size": self.size, "coverage": self.crop_scale, "detector": detector}

    def template(self) -> np.ndarray:
        """(3, 2) where the eyes and the nose base lie in the output, pixels (x, y); a pixel's centre is at +0.5."""
        centre = 0.5
        return ((TEMPLATE - centre) / self.crop_scale + centre) * self.size


def align_or_crop(
    image: Image.Image, spec: AlignmentSpec, landmarks: Sequence[float] | None = None, detector: Detector | None = None
) -> np.ndarray:
    """(size, size, 3) uint8: the face on the template. `landmarks` are x0, y0, x1, y1, … in pixels of `image`.

    `detector` is the spec's, made before, for callers with many images. What lies outside the photograph repeats its edge.

    Raises:
        ImageRejectedError: no face found, no landmarks annotated, or points that give no similarity transform.
        AgebenchError: the detector fails.
    """
    if spec.mode == "none":
        side = min(image.size)
        corner = ((image.width - side) / 2, (image.height - side) / 2)
        scale = side * spec.crop_scale / spec.size
        shift = [corner[axis] + side * (1 - spec.crop_scale) / 2 for axis in (0, 1)]
        return _warp(image, np.array([[scale, 0.0, shift[0]], [0.0, scale, shift[1]]]), spec.size)
    if spec.mode == "boxes":
        return _warp(image, estimate_similarity(_box(spec), _corners(landmarks)), spec.size)
    if spec.mode == "detect":
        points = largest_face_landmarks(detector or open_detector(spec.detector), image, name=spec.detector)
    else:
        points = _annotated(landmarks, spec.landmark_points)
    return align_face(image, spec, points)


def align_face(image: Image.Image, spec: AlignmentSpec, points: np.ndarray) -> np.ndarray:
    """(size, size, 3) uint8: the face whose eyes and nose base are `points` (3, 2), in pixels of `image`, on the template.

    Raises:
        ImageRejectedError: points that give no similarity transform.
    """
    return _warp(image, estimate_similarity(spec.template(), points), spec.size)


def estimate_similarity(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """(2, 3) the rotation, scale and shift that bring `source` (n, 2) onto `target` (n, 2) with the least squared error.

    Umeyama 1991 in the plane, without reflections: points as complex numbers, target = a * source + b.

    Raises:
        ImageRejectedError: the target's points fall together or are no numbers.
    """
    centre, goal = source.mean(axis=0), target.mean(axis=0)
    z, w = ((points - middle) @ np.array([1, 1j]) for points, middle in ((source, centre), (target, goal)))
    factor = complex(np.vdot(z, w) / np.vdot(z, z))
    if not math.isfinite(abs(factor)) or abs(factor) < 1e-3:
        raise ImageRejectedError(
            "its landmarks fall together: no transform brings them to the template", RejectReason.BAD_LANDMARKS
        )
    linear = np.array([[factor.real, -factor.imag], [factor.imag, factor.real]])
    return np.column_stack([linear, goal - linear @ centre])


def _box(spec: AlignmentSpec) -> np.ndarray:
    """(4, 2) where the corners of the box lie in the output, pixels."""
    corners = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    return ((corners - 0.5) / spec.crop_scale + 0.5) * spec.size


def _corners(box: Sequence[float] | None) -> np.ndarray:
    if box is None or len(box) != 8:
        raise ImageRejectedError("no box is annotated: four corners, eight numbers", RejectReason.NO_LANDMARKS)
    return np.asarray(box, dtype=np.float64).reshape(4, 2)


def _annotated(landmarks: Sequence[float] | None, chosen: tuple[int, ...]) -> np.ndarray:
    if landmarks is None or len(landmarks) == 0:
        raise ImageRejectedError("no landmarks are annotated", RejectReason.NO_LANDMARKS)
    points = np.asarray(landmarks, dtype=np.float64).reshape(-1, 2)
    if len(chosen) != len(TEMPLATE) or max(chosen) >= len(points):
        raise ImageRejectedError(
            f"{len(points)} landmarks are annotated, and the card asks for points {chosen}: it needs three of them",
            RejectReason.BAD_LANDMARKS,
        )
    return points[list(chosen)]


def _warp(image: Image.Image, matrix: np.ndarray, size: int) -> np.ndarray:
    """`image` at the places that `matrix` (output pixel -> input pixel) says, filtered where it shrinks, edges repeated."""
    corners = np.array([[0, 0, 1], [size, 0, 1], [0, size, 1], [size, size, 1]]) @ matrix.T
    low, high = np.floor(corners.min(axis=0)).astype(int) - 2, np.ceil(corners.max(axis=0)).astype(int) + 2
    if (high - low).max() > 20_000:
        raise ImageRejectedError("its landmarks ask for a face of more than 20,000 pixels", RejectReason.BAD_LANDMARKS)
    pixels = np.asarray(image)
    rows = np.arange(low[1], high[1]).clip(0, image.height - 1)
    columns = np.arange(low[0], high[0]).clip(0, image.width - 1)
    image = Image.fromarray(pixels.take(rows, axis=0).take(columns, axis=1))  # 14 times faster than both axes at once
    matrix = np.column_stack([matrix[:, :2], matrix[:, 2] - low])
    if np.allclose(matrix[[0, 1], [1, 0]], 0):  # no rotation: one exact resize
        (left, top), scale = matrix[:, 2], matrix[0, 0]
        box = (left, top, left + scale * size, top + scale * size)
        return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR, box=box))
    shrink = float(np.hypot(matrix[0, 0], matrix[1, 0]))
    if shrink > 1:  # bring it to the output's scale first: the warp's bicubic kernel looks at 4 x 4 pixels only
        reduced = (max(1, round(image.width / shrink)), max(1, round(image.height / shrink)))
        factors = np.array([[reduced[0] / image.width], [reduced[1] / image.height]])
        image, matrix = image.resize(reduced, Image.Resampling.BILINEAR), matrix * factors
    coefficients = tuple(float(value) for value in matrix.ravel())
    return np.asarray(image.transform((size, size), Image.Transform.AFFINE, coefficients, Image.Resampling.BICUBIC))
