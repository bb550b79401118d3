"""Face alignment: one preprocessing for all sources, which maps the eyes to the same position in every image."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NotRequired, TypedDict

import numpy as np
from PIL import Image

from agebench.data.faces import body_crops
from agebench.data.faces.detectors.base import (
    Detector,
    default_detector,
    largest_face_landmarks,
    open_detector,
)
from agebench.errors import ImageRejectedError
from agebench.types import RejectReason

# Image-left eye, image-right eye and nose base as shares of the side, at a crop scale of 1: the framing of UTKFace's 200 px
# crops (medians of 488 detections in the real set; the interquartile ranges are 3 to 6 px).
TEMPLATE = np.array([[59.5, 61.0], [136.5, 60.5], [98.0, 118.0]]) / 200.0
# Version of the face cache. Raise it when the same image and spec give other pixels than before.
VERSION = 2


class AlignmentSummary(TypedDict):
    """Alignment settings for reports.

    Attributes:
        mode: as `AlignmentSpec.mode`.
        size: side of the output, pixels.
        coverage: as `AlignmentSpec.crop_scale`.
        detector: name, class and versions of the detector; None if no detector is used.
        offset: as `AlignmentSpec.offset`; absent where it is 0.
        visible: as `AlignmentSpec.visible`; absent where it is 0.
    """

    mode: str
    size: int
    coverage: float
    detector: dict[str, object] | None
    offset: NotRequired[float]
    visible: NotRequired[float]


@dataclass(frozen=True)
class AlignmentSpec:
    """Specification of the crop of `size` x `size` pixels that is taken from an image.

    Attributes:
        mode: `none` (the image is framed like UTKFace's crops), `landmarks` (annotated points), `detect` (detected points),
            `boxes` (annotated corners of the face box: upper left, upper right, lower right, lower left; its own framing).
        size: side of the output, pixels.
        crop_scale: 1 for UTKFace's framing; 1.5 shows a region 1.5 times as wide around the same center.
        landmark_points: for `landmarks`, indices of the annotated image-left eye, image-right eye and nose base.
        detector: for `detect`, name of the detector.
        bodies: whether the body follows the face in three further channels.
        letterbox: whether annotated face boxes are cropped without alignment and letterboxed with black.
        mask_bodies: whether faces and other people are blackened in a body; mostly blackened bodies count as missing.
        offset: share of the side by which the face lies lower than in UTKFace's framing; negative: higher.
        visible: side of the region that is shown, 1 for that of UTKFace's crops; its edge is repeated outside it, so that faces of
            photographs show no more than those of crops. 0: all is shown.
        fit: how a face box becomes a square (`agebench.data.faces.box_faces`); empty: faces are aligned as `mode` states.
        margin: of a face box, added on each side, as a share of its longer side.
    """

    mode: Literal["none", "landmarks", "detect", "boxes"]
    size: int
    crop_scale: float = 1.0
    landmark_points: tuple[int, ...] = ()
    detector: str = field(default_factory=default_detector)
    bodies: bool = False
    letterbox: bool = False
    mask_bodies: bool = False
    offset: float = 0.0
    visible: float = 0.0
    fit: Literal["", "square", "letterbox", "stretch"] = ""
    margin: float = 0.0

    @property
    def channels(self) -> int:
        """Number of channels: RGB of the face and, with `bodies`, RGB of the body.

        A missing one is black.
        """
        return 6 if self.bodies else 3

    def key(self) -> dict[str, object]:
        """Return the settings that determine the pixels, as JSON for the face cache."""
        key: dict[str, object] = {"version": VERSION, "mode": self.mode, "size": self.size, "coverage": self.crop_scale}
        if self.mode == "landmarks":
            key["points"] = self.landmark_points
        if self.mode == "detect":
            key["detector"] = self._detector_key()
        if self.bodies:
            key["bodies"] = body_crops.VERSION
            if self.mask_bodies:
                key["mask_bodies"] = True
        if self.letterbox:
            key |= {"letterbox": body_crops.VERSION, "mode": "letterbox"}
        if self.offset:  # keys of earlier versions have no offset
            key["offset"] = self.offset
        if self.visible:
            key["visible"] = self.visible
        if self.fit:
            key |= {"box": 1, "fit": self.fit, "margin": self.margin, "detector": self._detector_key()}
        return key

    def _detector_key(self) -> dict[str, object]:
        return {"name": self.detector, **open_detector(self.detector).key()}

    def summary(self) -> AlignmentSummary:
        """Return mode, size, coverage, detector and any offset for reports."""
        detector = self._detector_key() if self.mode == "detect" or self.fit else None
        summary: AlignmentSummary = {
            "mode": self.mode,
            "size": self.size,
            "coverage": self.crop_scale,
            "detector": detector,
        }
        if self.offset:
            summary["offset"] = self.offset
        if self.visible:
            summary["visible"] = self.visible
        return summary

    def template(self) -> np.ndarray:
        """Return (3, 2) output positions of the eyes and the nose base, pixels (x, y).

        Pixel centers are at +0.5.
        """
        return template_positions(self.crop_scale, self.offset) * self.size


def template_positions(crop_scale: float = 1.0, offset: float = 0.0) -> np.ndarray:
    """Return (3, 2) positions of the eyes and the nose base in an aligned face, as shares of the side (x, y).

    Args:
        crop_scale: framing, as `AlignmentSpec.crop_scale`.
        offset: vertical displacement of the face, as `AlignmentSpec.offset`.
    """
    positions: np.ndarray = (TEMPLATE - 0.5) / crop_scale + 0.5
    positions[:, 1] += offset
    return positions


def align_or_crop(
    image: Image.Image, spec: AlignmentSpec, landmarks: Sequence[float] | None = None, detector: Detector | None = None
) -> np.ndarray:
    """Align the face in an image, or crop the image, as a spec defines.

    Pixels outside the image repeat its edge.

    Args:
        image: an upright RGB image.
        spec: the alignment.
        landmarks: annotated points x0, y0, x1, y1, … in pixels of `image`, for the modes `landmarks` and `boxes`.
        detector: an instance of the spec's detector, for callers with many images; None to create one.

    Returns:
        (size, size, 3) uint8 RGB.

    Raises:
        ImageRejectedError: no face is detected, no landmarks are annotated, or the points define no similarity transform.
        AgebenchError: the detector fails.
    """
    if spec.mode == "none":
        side = min(image.size)
        corner = ((image.width - side) / 2, (image.height - side) / 2)
        scale = side * spec.crop_scale / spec.size
        origin = [corner[axis] + side * (1 - spec.crop_scale) / 2 for axis in (0, 1)]
        top = origin[1] - spec.offset * spec.size * scale
        return _hide_surroundings(warp(image, np.array([[scale, 0.0, origin[0]], [0.0, scale, top]]), spec.size), spec)
    if spec.mode == "boxes":
        return warp(image, estimate_similarity(_output_corners(spec), _annotated_corners(landmarks)), spec.size)
    if spec.mode == "detect":
        points = largest_face_landmarks(detector or open_detector(spec.detector), image, name=spec.detector)
    else:
        points = _annotated_points(landmarks, spec.landmark_points)
    return align_face(image, spec, points)


def align_face(image: Image.Image, spec: AlignmentSpec, points: np.ndarray) -> np.ndarray:
    """Align a face with known landmarks.

    Args:
        image: an upright RGB image.
        spec: the alignment.
        points: (3, 2) image-left eye, image-right eye and nose base, pixels of `image`.

    Returns:
        (size, size, 3) uint8 RGB.

    Raises:
        ImageRejectedError: the points define no similarity transform.
    """
    return _hide_surroundings(warp(image, estimate_similarity(spec.template(), points), spec.size), spec)


def _hide_surroundings(face: np.ndarray, spec: AlignmentSpec) -> np.ndarray:
    """Repeat the edge of the visible region outside it.

    Args:
        face: (size, size, 3), aligned as `spec` states.
        spec: the alignment.
    """
    if not spec.visible:
        return face
    reach = spec.visible / spec.crop_scale / 2
    columns, rows = (
        np.arange(spec.size).clip(
            *np.round(np.array([center - reach, center + reach]) * spec.size - [0, 1]).astype(int)
        )
        for center in (0.5, 0.5 + spec.offset)
    )
    shown: np.ndarray = face[rows.clip(0, spec.size - 1)][:, columns.clip(0, spec.size - 1)]
    return shown


def estimate_similarity(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Estimate the similarity transform that maps points to points.

    It minimizes the squared error of rotation, scale and translation.

    Umeyama (1991) in the plane, without reflections: points as complex numbers, target = a * source + b.

    Args:
        source: (n, 2) points.
        target: (n, 2) points that `source` is mapped to.

    Returns:
        (2, 3) matrix.

    Raises:
        ImageRejectedError: the target points coincide or are not finite.
    """
    source_center, target_center = source.mean(axis=0), target.mean(axis=0)
    to_complex = np.array([1, 1j])
    z, w = (source - source_center) @ to_complex, (target - target_center) @ to_complex
    factor = complex(np.vdot(z, w) / np.vdot(z, z))
    if not math.isfinite(abs(factor)) or abs(factor) < 1e-3:
        raise ImageRejectedError(
            "its landmarks fall together: no transform brings them to the template", RejectReason.BAD_LANDMARKS
        )
    linear = np.array([[factor.real, -factor.imag], [factor.imag, factor.real]])
    return np.column_stack([linear, target_center - linear @ source_center])


def _output_corners(spec: AlignmentSpec) -> np.ndarray:
    """Return the (4, 2) output positions of the corners of a face box, pixels."""
    corners = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    return ((corners - 0.5) / spec.crop_scale + [0.5, 0.5 + spec.offset]) * spec.size


def _annotated_corners(box: Sequence[float] | None) -> np.ndarray:
    if box is None or len(box) != 8:
        raise ImageRejectedError("no box is annotated: four corners, eight numbers", RejectReason.NO_LANDMARKS)
    return np.asarray(box, dtype=np.float64).reshape(4, 2)


def _annotated_points(landmarks: Sequence[float] | None, indices: tuple[int, ...]) -> np.ndarray:
    if landmarks is None or len(landmarks) == 0:
        raise ImageRejectedError("no landmarks are annotated", RejectReason.NO_LANDMARKS)
    points = np.asarray(landmarks, dtype=np.float64).reshape(-1, 2)
    if len(indices) != len(TEMPLATE) or max(indices) >= len(points):
        raise ImageRejectedError(
            f"{len(points)} landmarks are annotated, and the card asks for points {indices}: it needs three of them",
            RejectReason.BAD_LANDMARKS,
        )
    return points[list(indices)]


def warp(image: Image.Image, matrix: np.ndarray, size: int) -> np.ndarray:
    """Sample an image at the positions that a matrix maps to; reductions are low-pass filtered, edges are repeated.

    Args:
        image: an RGB image.
        matrix: (2, 3), output pixel -> input pixel.
        size: side of the output, pixels.

    Returns:
        (size, size, 3) uint8 RGB.

    Raises:
        ImageRejectedError: the region is larger than 20,000 pixels.
    """
    corners = np.array([[0, 0, 1], [size, 0, 1], [0, size, 1], [size, size, 1]]) @ matrix.T
    low, high = np.floor(corners.min(axis=0)).astype(int) - 2, np.ceil(corners.max(axis=0)).astype(int) + 2
    if (high - low).max() > 20_000:
        raise ImageRejectedError("its landmarks ask for a face of more than 20,000 pixels", RejectReason.BAD_LANDMARKS)
    rows = np.arange(low[1], high[1]).clip(0, image.height - 1)
    columns = np.arange(low[0], high[0]).clip(0, image.width - 1)
    image = image.crop((int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1))
    if image.size != (len(columns), len(rows)):  # repeat the edges, one axis after the other: 14 times faster than both
        pixels = np.asarray(image).take(rows - rows[0], axis=0).take(columns - columns[0], axis=1)
        image = Image.fromarray(pixels)
    matrix = np.column_stack([matrix[:, :2], matrix[:, 2] - low])
    if np.allclose(matrix[[0, 1], [1, 0]], 0):  # without rotation, one resize is exact
        (left, top), scale = matrix[:, 2], matrix[0, 0]
        box = (left, top, left + scale * size, top + scale * size)
        return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR, box=box))
    reduction = float(np.hypot(matrix[0, 0], matrix[1, 0]))
    if reduction > 1:  # reduce to the output's scale first: the bicubic kernel of the warp covers 4 x 4 pixels only
        size_reduced = (max(1, round(image.width / reduction)), max(1, round(image.height / reduction)))
        factors = np.array([[size_reduced[0] / image.width], [size_reduced[1] / image.height]])
        image, matrix = image.resize(size_reduced, Image.Resampling.BILINEAR), matrix * factors
    coefficients = tuple(float(value) for value in matrix.ravel())
    return np.asarray(image.transform((size, size), Image.Transform.AFFINE, coefficients, Image.Resampling.BICUBIC))
