"""Bodies beside faces: cut out by an annotated box, or a picture of their own; for models that look at both.

Masking, limits and letterboxing follow the data reader that the authors of MiVOLO train and evaluate with (WildChlamydia/MiVOLO,
mivolo/data/dataset/reader_age_gender.py: `verify_images`, `find_associated_objects`, `_cropout_asced_objs`; mivolo/data/misc.py:
`class_letterbox`). One thing differs: images are made smaller by Pillow's filter, which averages, and not by OpenCV's, which skips
pixels.
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
# Raise it when the same image and box give other pixels than before.
VERSION = 1
# Pixels by which a box may leave its image: annotations are rounded.
BOX_TOLERANCE_PX = 1.0
# Of the authors' reader: the least side of a box that counts, pixels; the least overlap (intersection over union) at which
# somebody else's box is blackened; and the least share of a body's values that may be left.
MIN_FACE, MIN_BODY = 5, 100
MIN_OVERLAP = 0.0001
MIN_REMAINING = 0.4

# No failure to process: a person whose face is annotated as not seen is asked of no model that sees faces alone.
NO_FACE = "no box of a face"

Box = tuple[float, ...]


class Mask(NamedTuple):
    """A face or person to blacken in a body's image: the box, its least side, and whether it is blackened however far away."""

    box: Box
    least: int
    own: bool


class Body(NamedTuple):
    """Where a body is: in the image at `path` ("" for the face's own), all of it or within `box` (left, top, right, bottom)."""

    path: str
    box: Box | None
    masks: tuple[Mask, ...] = ()


def body_boxes(samples: Samples, *, masked: bool = False) -> list[Body | None]:
    """Each sample's body, None where none is annotated; `masked`: with what is to be blackened in it."""
    nothing = [None] * len(samples)
    paths, boxes = (samples.table.get(column, nothing) for column in COLUMNS)
    masks = samples.table.get(MASKED, nothing) if masked else nothing
    bodies: list[Body | None] = []
    for path, box, hidden in zip(paths, boxes, masks, strict=True):
        path = path if isinstance(path, str) else ""
        area = _box(box)
        bodies.append(Body(path, area, hidden if isinstance(hidden, tuple) else ()) if path or area else None)
    return bodies


def face_boxes_of(samples: Samples) -> list[Box | None]:
    """Each sample's annotated box of the face in the whole image, None where there is none."""
    return [_box(box) for box in samples.table.get(FACE, [None] * len(samples))]


def masks_of(
    faces: Sequence[Box | None], bodies: Sequence[Box | None], where: Sequence[tuple[str, str]]
) -> list[tuple[Mask, ...]]:
    """What to blacken in each body: its own face, and faces and bodies of others in the same image that touch it.

    Args:
        faces: each row's box of a face.
        bodies: each row's box of a body.
        where: each row's image of the face, and image of the body.
    """
    shown: dict[str, list[tuple[int, Box, int]]] = {}
    for row, (face, body, (of_face, of_body)) in enumerate(zip(faces, bodies, where, strict=True)):
        if face:
            shown.setdefault(of_face, []).append((row, face, MIN_FACE))
        if body:
            shown.setdefault(of_body, []).append((row, body, MIN_BODY))
    masks: list[tuple[Mask, ...]] = []
    for row, (body, (_, image)) in enumerate(zip(bodies, where, strict=True)):
        near = shown.get(image, []) if body else []
        own = [Mask(box, least, True) for other, box, least in near if other == row and least == MIN_FACE]
        others = [Mask(box, least, False) for other, box, least in near if other != row and body and _touch(box, body)]
        masks.append((*own, *others))
    return masks


def _box(value: object) -> Box | None:
    return None if value is None or isinstance(value, float) else tuple(float(side) for side in value)  # type: ignore[attr-defined]


def _touch(box: Box, other: Box) -> bool:
    return min(box[2], other[2]) > max(box[0], other[0]) and min(box[3], other[3]) > max(box[1], other[1])


def prepare_masked_body(image: Image.Image, body: Body, size: int) -> np.ndarray | None:
    """(size, size, 3) uint8: the body with other faces and people blackened; None where it is too small, or too little is left.

    Raises:
        ImageRejectedError: the box is not left, top, right, bottom.
    """
    box = body.box or (0.0, 0.0, float(image.width), float(image.height))
    said = _check_order(box)
    if box[2] <= box[0] or box[3] <= box[1]:
        raise ImageRejectedError(
            f"{said} is empty: it must be left, top, right, bottom in pixels", RejectReason.BAD_BODY_BOX
        )
    left, top, right, bottom = _clamped(box, image.size)
    if min(right - left, bottom - top) < MIN_BODY:
        return None
    pixels = np.array(image.crop((left, top, right, bottom)))
    for mask in body.masks:
        area = _clamped(mask.box, image.size)
        if min(area[2] - area[0], area[3] - area[1]) < mask.least:
            continue
        if mask.own or _overlap(area, (left, top, right, bottom)) >= MIN_OVERLAP:
            rows = slice(max(area[1] - top, 0), max(area[3] - top, 0))
            pixels[rows, max(area[0] - left, 0) : max(area[2] - left, 0)] = 0
    if np.count_nonzero(pixels) < MIN_REMAINING * pixels.size:
        return None
    return _letterboxed(Image.fromarray(pixels), size)


def prepare_boxed_face(image: Image.Image, box: Box | None, size: int) -> np.ndarray:
    """(size, size, 3) uint8: the box of the face as it is, unaligned, as large as it fits, in the middle of black.

    Raises:
        ImageRejectedError: no box, or one of a few pixels.
    """
    if box is None:
        raise ImageRejectedError(NO_FACE, RejectReason.NO_FACE_BOX)
    left, top, right, bottom = _clamped(box, image.size)
    if min(right - left, bottom - top) < MIN_FACE:
        raise ImageRejectedError(
            f"its face_bbox {' '.join(f'{value:g}' for value in box)} holds less than {MIN_FACE} pixels of a side",
            RejectReason.BAD_FACE_BOX,
        )
    return _letterboxed(image.crop((left, top, right, bottom)), size)


def _clamped(box: Sequence[float], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Whole pixels, towards 0 as the authors round them, within the image."""
    left, top, right, bottom = (int(value) if math.isfinite(value) else 0 for value in box)
    width, height = size
    return min(max(left, 0), width), min(max(top, 0), height), min(max(right, 0), width), min(max(bottom, 0), height)


def _overlap(box: tuple[int, ...], other: tuple[int, ...]) -> float:
    """Intersection over union."""
    across, down = (max(0, min(box[axis + 2], other[axis + 2]) - max(box[axis], other[axis])) for axis in (0, 1))
    areas = sum((each[2] - each[0]) * (each[3] - each[1]) for each in (box, other))
    return across * down / (areas - across * down)


def shown_halves(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(N,) whether a face, (N,) whether a body is shown in prepared images (N, S, S, 6): black means that there is none."""
    middle = pixels.shape[1] // 2
    halves = np.zeros((2, len(pixels)), dtype=bool)
    for row, image in enumerate(pixels):
        for half, channels in enumerate((slice(0, 3), slice(3, 6))):
            # One line is nearly always enough, and spares reading all of a memory map.
            halves[half, row] = image[middle, :, channels].any() or image[..., channels].any()
    return halves[0], halves[1]


def prepare_body(image: Image.Image, box: Sequence[float] | None, size: int) -> np.ndarray:
    """(size, size, 3) uint8: the body as large as it fits, upright, unstretched, in the middle of black.

    Raises:
        ImageRejectedError: the box is empty or leaves the image.
    """
    if box is not None:
        image = image.crop(_within(box, image.size))
    return _letterboxed(image, size)


def _letterboxed(image: Image.Image, size: int) -> np.ndarray:
    """(size, size, 3) uint8: the image as large as it fits, unstretched, in the middle of black."""
    scale = size / max(image.size)
    width, height = (max(1, round(side * scale)) for side in image.size)
    frame = Image.new("RGB", (size, size))
    frame.paste(image.resize((width, height), Image.Resampling.BILINEAR), ((size - width) // 2, (size - height) // 2))
    return np.asarray(frame)


def _within(box: Sequence[float], size: tuple[int, int]) -> tuple[int, int, int, int]:
    said = _check_order(box)
    left, top, right, bottom = box
    width, height = size
    if (
        left < -BOX_TOLERANCE_PX
        or top < -BOX_TOLERANCE_PX
        or right > width + BOX_TOLERANCE_PX
        or bottom > height + BOX_TOLERANCE_PX
    ):
        raise ImageRejectedError(
            f"{said} leaves the image, which is {width} x {height} pixels", RejectReason.BAD_BODY_BOX
        )
    if right - left < 1 or bottom - top < 1:
        raise ImageRejectedError(
            f"{said} is empty: it must be left, top, right, bottom in pixels", RejectReason.BAD_BODY_BOX
        )
    return max(0, round(left)), max(0, round(top)), min(width, round(right)), min(height, round(bottom))


def _check_order(box: Sequence[float]) -> str:
    """How messages call the box.

    Raises:
        ImageRejectedError: it is not four finite numbers.
    """
    said = f"its body_bbox {' '.join(f'{value:g}' for value in box)}"
    if len(box) != 4 or not all(math.isfinite(value) for value in box):
        raise ImageRejectedError(f"{said} is not left, top, right, bottom", RejectReason.BAD_BODY_BOX)
    return said


def read_boxes(column: "pd.Series[str]", *, source: str, name: str = "body_bbox") -> "pd.Series[Any]":
    """`12 30 80 190`, also with commas, semicolons or brackets -> (left, top, right, bottom).

    None where the box is unknown, or where all four are -1: no such face or person is in the image.

    Raises:
        UserError: not four numbers.
    """
    found: list[object] = []
    for text in column:
        if not isinstance(text, str) or not text.strip():
            found.append(None)
            continue
        try:
            box = tuple(float(part) for part in re.split(r"[\s,;]+", text.strip(" []()")))
        except ValueError:
            box = ()
        if len(box) != 4:
            raise UserError(f"{source}: {name} '{text[:80]}' is not four numbers: left, top, right, bottom in pixels")
        found.append(None if all(side == -1 for side in box) else box)
    return pd.Series(found, index=column.index, dtype=object)
