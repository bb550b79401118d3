"""Body crops for models that use face and body: cropped by an annotated box, or from a separate image.

Masking, limits and letterboxing follow the data reader that the authors of MiVOLO train and evaluate with (WildChlamydia/MiVOLO,
mivolo/data/dataset/reader_age_gender.py: `verify_images`, `find_associated_objects`, `_cropout_asced_objs`; mivolo/data/misc.py:
`class_letterbox`). There is one difference: images are reduced by Pillow's filter, which averages pixels, instead of OpenCV's,
which skips pixels.
"""

import math
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from PIL import Image

from agebench.data.samples import Samples
from agebench.errors import ImageRejectedError, UserError
from agebench.types import RejectReason

COLUMNS = ("body_path", "body_bbox")
FACE, MASKED = "face_bbox", "body_masked"
# Version of the face cache with bodies. Raise it when the same image and box give other pixels than before.
VERSION = 1
# Pixels by which a box may exceed its image, because annotations are rounded.
BOX_TOLERANCE_PX = 1.0
# From the authors' reader: the minimum side of a usable box, pixels; the minimum overlap (intersection over union) from which
# the box of another person is blackened; and the minimum share of nonzero values that must remain of a body.
MIN_FACE, MIN_BODY = 5, 100
MIN_OVERLAP = 0.0001
MIN_REMAINING = 0.4

# Not a failure to process: a person whose face is annotated as hidden is not a test case for a model that uses faces only.
NO_FACE = "no box of a face"

Box = tuple[float, ...]


class Mask(NamedTuple):
    """A face or person to blacken in the image of a body.

    Attributes:
        box: left, top, right, bottom, pixels.
        least: minimum side of the box, pixels; smaller boxes are ignored.
        own: whether this is the person's own face, which is blackened independent of its overlap with the body.
    """

    box: Box
    least: int
    own: bool


class Body(NamedTuple):
    """The position of a body.

    Attributes:
        path: path of the image; empty for the image of the face.
        box: left, top, right, bottom, pixels; None for the whole image.
        masks: regions to blacken.
    """

    path: str
    box: Box | None
    masks: tuple[Mask, ...] = ()


def body_boxes(samples: Samples, *, masked: bool = False) -> list[Body | None]:
    """Return the body of each sample; None if no body is annotated.

    Args:
        samples: the samples.
        masked: include the regions to blacken.
    """
    missing = [None] * len(samples)
    paths, boxes = (samples.table.get(column, missing) for column in COLUMNS)
    all_masks = samples.table.get(MASKED, missing) if masked else missing
    bodies: list[Body | None] = []
    for path, values, masks in zip(paths, boxes, all_masks, strict=True):
        path = path if isinstance(path, str) else ""
        box = _box(values)
        bodies.append(Body(path, box, masks if isinstance(masks, tuple) else ()) if path or box else None)
    return bodies


def face_boxes(samples: Samples) -> list[Box | None]:
    """Return the annotated face box of each sample in the whole image; None if there is none."""
    return [_box(box) for box in samples.table.get(FACE, [None] * len(samples))]


def find_masks(
    faces: Sequence[Box | None], bodies: Sequence[Box | None], images: Sequence[tuple[str, str]]
) -> list[tuple[Mask, ...]]:
    """Determine the regions to blacken in each body.

    These are the person's own face, and overlapping faces and bodies of other people.

    Args:
        faces: (N,) face box of each row.
        bodies: (N,) body box of each row.
        images: (N,) paths of the images of face and body of each row.
    """
    boxes_by_image: dict[str, list[tuple[int, Box, int]]] = {}
    for row, (face, body, (face_image, body_image)) in enumerate(zip(faces, bodies, images, strict=True)):
        if face:
            boxes_by_image.setdefault(face_image, []).append((row, face, MIN_FACE))
        if body:
            boxes_by_image.setdefault(body_image, []).append((row, body, MIN_BODY))
    masks: list[tuple[Mask, ...]] = []
    for row, (body, (_, image)) in enumerate(zip(bodies, images, strict=True)):
        boxes = boxes_by_image.get(image, []) if body else []
        own = [Mask(box, side, True) for box_row, box, side in boxes if box_row == row and side == MIN_FACE]
        others = [
            Mask(box, side, False) for box_row, box, side in boxes if box_row != row and body and _touch(box, body)
        ]
        masks.append((*own, *others))
    return masks


def _box(value: object) -> Box | None:
    return None if value is None or isinstance(value, float) else tuple(float(side) for side in value)  # type: ignore[attr-defined]


def _touch(box: Box, other: Box) -> bool:
    return min(box[2], other[2]) > max(box[0], other[0]) and min(box[3], other[3]) > max(box[1], other[1])


def prepare_masked_body(image: Image.Image, body: Body, size: int) -> np.ndarray | None:
    """Crop and letterbox a body, with other faces and people blackened.

    Args:
        image: the image of the body.
        body: the position of the body, and the regions to blacken.
        size: side of the output, pixels.

    Returns:
        (size, size, 3) uint8 RGB; None if the body is too small or almost entirely blackened.

    Raises:
        ImageRejectedError: the box is not left, top, right, bottom.
    """
    box = body.box or (0.0, 0.0, float(image.width), float(image.height))
    description = _describe_box(box)
    if box[2] <= box[0] or box[3] <= box[1]:
        raise ImageRejectedError(
            f"{description} is empty: it must be left, top, right, bottom in pixels", RejectReason.BAD_BODY_BOX
        )
    left, top, right, bottom = _clamped(box, image.size)
    if min(right - left, bottom - top) < MIN_BODY:
        return None
    pixels = np.array(image.crop((left, top, right, bottom)))
    for mask in body.masks:
        mask_left, mask_top, mask_right, mask_bottom = region = _clamped(mask.box, image.size)
        if min(mask_right - mask_left, mask_bottom - mask_top) < mask.least:
            continue
        if mask.own or _iou(region, (left, top, right, bottom)) >= MIN_OVERLAP:
            rows = slice(max(mask_top - top, 0), max(mask_bottom - top, 0))
            pixels[rows, max(mask_left - left, 0) : max(mask_right - left, 0)] = 0
    if np.count_nonzero(pixels) < MIN_REMAINING * pixels.size:
        return None
    return fit_letterbox(Image.fromarray(pixels), size)


def prepare_boxed_face(image: Image.Image, box: Box | None, size: int) -> np.ndarray:
    """Crop and letterbox a face by its annotated box, without alignment.

    Args:
        image: the whole image.
        box: left, top, right, bottom, pixels; None if no face is annotated.
        size: side of the output, pixels.

    Returns:
        (size, size, 3) uint8 RGB.

    Raises:
        ImageRejectedError: there is no box, or it has fewer than `MIN_FACE` pixels per side.
    """
    if box is None:
        raise ImageRejectedError(NO_FACE, RejectReason.NO_FACE_BOX)
    left, top, right, bottom = _clamped(box, image.size)
    if min(right - left, bottom - top) < MIN_FACE:
        raise ImageRejectedError(
            f"its face_bbox {' '.join(f'{value:g}' for value in box)} holds less than {MIN_FACE} pixels of a side",
            RejectReason.BAD_FACE_BOX,
        )
    return fit_letterbox(image.crop((left, top, right, bottom)), size)


def _clamped(box: Sequence[float], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Round a box to whole pixels, toward 0 as the authors do, and clip it to the image."""
    left, top, right, bottom = (int(value) if math.isfinite(value) else 0 for value in box)
    width, height = size
    return min(max(left, 0), width), min(max(top, 0), height), min(max(right, 0), width), min(max(bottom, 0), height)


def _iou(box: tuple[int, ...], other: tuple[int, ...]) -> float:
    """Return the intersection over union of two boxes."""
    width, height = (max(0, min(box[axis + 2], other[axis + 2]) - max(box[axis], other[axis])) for axis in (0, 1))
    areas = sum((right - left) * (bottom - top) for left, top, right, bottom in (box, other))
    return width * height / (areas - width * height)


def shown_halves(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return which prepared images contain a face, and which a body; a missing one is black.

    Args:
        pixels: (N, S, S, 6) uint8, face and body of each sample.

    Returns:
        (N,) whether there is a face, (N,) whether there is a body.
    """
    middle = pixels.shape[1] // 2
    halves = np.zeros((2, len(pixels)), dtype=bool)
    for row, image in enumerate(pixels):
        for half, channels in enumerate((slice(0, 3), slice(3, 6))):
            # One line is nearly always enough, and avoids reading the whole memory map.
            halves[half, row] = image[middle, :, channels].any() or image[..., channels].any()
    return halves[0], halves[1]


def prepare_body(image: Image.Image, box: Sequence[float] | None, size: int) -> np.ndarray:
    """Crop and letterbox a body.

    The body is as large as it fits, keeps its aspect ratio, and is centered on black.

    Args:
        image: the image of the body.
        box: left, top, right, bottom, pixels; None for the whole image.
        size: side of the output, pixels.

    Returns:
        (size, size, 3) uint8 RGB.

    Raises:
        ImageRejectedError: the box is empty or exceeds the image.
    """
    if box is not None:
        image = image.crop(_within(box, image.size))
    return fit_letterbox(image, size)


def fit_letterbox(image: Image.Image, size: int) -> np.ndarray:
    """Fit an image into a square, with its aspect ratio, centered on black.

    Args:
        image: an RGB image.
        size: side of the output, pixels.

    Returns:
        (size, size, 3) uint8 RGB.
    """
    scale = size / max(image.size)
    width, height = (max(1, round(side * scale)) for side in image.size)
    frame = Image.new("RGB", (size, size))
    frame.paste(image.resize((width, height), Image.Resampling.BILINEAR), ((size - width) // 2, (size - height) // 2))
    return np.asarray(frame)


def _within(box: Sequence[float], size: tuple[int, int]) -> tuple[int, int, int, int]:
    description = _describe_box(box)
    left, top, right, bottom = box
    width, height = size
    if (
        left < -BOX_TOLERANCE_PX
        or top < -BOX_TOLERANCE_PX
        or right > width + BOX_TOLERANCE_PX
        or bottom > height + BOX_TOLERANCE_PX
    ):
        raise ImageRejectedError(
            f"{description} leaves the image, which is {width} x {height} pixels", RejectReason.BAD_BODY_BOX
        )
    if right - left < 1 or bottom - top < 1:
        raise ImageRejectedError(
            f"{description} is empty: it must be left, top, right, bottom in pixels", RejectReason.BAD_BODY_BOX
        )
    return max(0, round(left)), max(0, round(top)), min(width, round(right)), min(height, round(bottom))


def _describe_box(box: Sequence[float]) -> str:
    """Return the name of a body box in error messages.

    Raises:
        ImageRejectedError: the box is not four finite numbers.
    """
    description = f"its body_bbox {' '.join(f'{value:g}' for value in box)}"
    if len(box) != 4 or not all(math.isfinite(value) for value in box):
        raise ImageRejectedError(f"{description} is not left, top, right, bottom", RejectReason.BAD_BODY_BOX)
    return description


def read_boxes(column: "pd.Series[str]", *, source: str, name: str = "body_bbox") -> "pd.Series[Any]":
    """Parse boxes such as `12 30 80 190`, also with commas, semicolons or brackets.

    Args:
        column: boxes as text.
        source: name of the table in error messages.
        name: name of the column in error messages.

    Returns:
        (left, top, right, bottom) of each row. None if the box is unknown, or if all four numbers are -1, which means that
        the image shows no such face or person.

    Raises:
        UserError: a value is not four numbers.
    """
    boxes: list[Box | None] = []
    for text in column:
        if not isinstance(text, str) or not text.strip():
            boxes.append(None)
            continue
        try:
            box = tuple(float(part) for part in re.split(r"[\s,;]+", text.strip(" []()")))
        except ValueError:
            box = ()
        if len(box) != 4:
            raise UserError(f"{source}: {name} '{text[:80]}' is not four numbers: left, top, right, bottom in pixels")
        boxes.append(None if all(side == -1 for side in box) else box)
    return pd.Series(boxes, index=column.index, dtype=object)
