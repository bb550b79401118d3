"""Bodies beside faces: cut out by an annotated box, or a picture of their own; for models that look at both."""

import math
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from PIL import Image

from agebench.data.samples import Samples
from agebench.errors import ImageRefused, RejectReason, UserError

COLUMNS = ("body_path", "body_bbox")
# Raise it when the same image and box give other pixels than before.
VERSION = 1
# Pixels by which a box may leave its image: annotations are rounded.
SLACK = 1.0


class Body(NamedTuple):
    """Where a body is: in the image at `path` ("" for the face's own), all of it or within `box` (left, top, right, bottom)."""

    path: str
    box: tuple[float, ...] | None


def bodies_of(samples: Samples) -> list[Body | None]:
    """Each sample's body, None where none is annotated."""
    nothing = [None] * len(samples)
    paths, boxes = (samples.table.get(column, nothing) for column in COLUMNS)
    found: list[Body | None] = []
    for path, box in zip(paths, boxes, strict=True):
        path = path if isinstance(path, str) else ""
        box = None if box is None or isinstance(box, float) else tuple(float(value) for value in box)
        found.append(Body(path, box) if path or box else None)
    return found


def prepare_body(image: Image.Image, box: Sequence[float] | None, size: int) -> np.ndarray:
    """(size, size, 3) uint8: the body as large as it fits, upright, unstretched, in the middle of black.

    Raises:
        ImageRefused: the box is empty or leaves the image.
    """
    if box is not None:
        image = image.crop(_within(box, image.size))
    scale = size / max(image.size)
    width, height = (max(1, round(side * scale)) for side in image.size)
    frame = Image.new("RGB", (size, size))
    frame.paste(image.resize((width, height), Image.Resampling.BILINEAR), ((size - width) // 2, (size - height) // 2))
    return np.asarray(frame)


def _within(box: Sequence[float], size: tuple[int, int]) -> tuple[int, int, int, int]:
    said = f"its body_bbox {' '.join(f'{value:g}' for value in box)}"
    if len(box) != 4 or not all(math.isfinite(value) for value in box):
        raise ImageRefused(f"{said} is not left, top, right, bottom", RejectReason.BAD_BODY_BOX)
    left, top, right, bottom = box
    width, height = size
    if left < -SLACK or top < -SLACK or right > width + SLACK or bottom > height + SLACK:
        raise ImageRefused(f"{said} leaves the image, which is {width} x {height} pixels", RejectReason.BAD_BODY_BOX)
    if right - left < 1 or bottom - top < 1:
        raise ImageRefused(f"{said} is empty: it must be left, top, right, bottom in pixels", RejectReason.BAD_BODY_BOX)
    return max(0, round(left)), max(0, round(top)), min(width, round(right)), min(height, round(bottom))


def read_boxes(column: "pd.Series[str]", *, source: str) -> "pd.Series[Any]":
    """`12 30 80 190`, also with commas, semicolons or brackets -> (left, top, right, bottom); None where it is unknown.

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
            raise UserError(
                f"{source}: body_bbox '{text[:80]}' is not four numbers: left, top, right, bottom in pixels"
            )
        found.append(box)
    return pd.Series(found, index=column.index, dtype=object)
