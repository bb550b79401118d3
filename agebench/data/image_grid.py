"""Many faces on one picture, to look at."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from agebench.data.faces.alignment import TEMPLATE
from agebench.data.image_io import open_image
from agebench.data.readers import Reader
from agebench.errors import ImageRejectedError

GAP, LINE = 4, 14


def make_contact_sheet(
    faces: np.ndarray,
    labels: Sequence[str],
    *,
    columns: int = 10,
    template: bool = False,
    coverage: float = 1.0,
    every: int = 1,
) -> Image.Image:
    """`faces` (N, S, S, C) uint8 in rows of `columns`, each with its label below; a body behind a face is not shown.

    `template` marks where the eyes and the nose base belong at `coverage`, on the last of `every` so many faces.
    """
    size = faces.shape[1]
    rows = -(-len(faces) // columns)
    sheet = Image.new("RGB", (columns * (size + GAP) + GAP, rows * (size + LINE + GAP) + GAP), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=10)
    marks = ((TEMPLATE - 0.5) / coverage + 0.5) * size
    for number, (face, label) in enumerate(zip(faces, labels, strict=True)):
        left = GAP + number % columns * (size + GAP)
        top = GAP + number // columns * (size + LINE + GAP)
        sheet.paste(Image.fromarray(face[..., :3]), (left, top))
        pen.text((left, top + size + 1), label, fill="black", font=font)
        for x, y in marks if template and number % every == every - 1 else ():
            pen.line((left + x - 3, top + y, left + x + 3, top + y), fill=(0, 255, 80))
            pen.line((left + x, top + y - 3, left + x, top + y + 3), fill=(0, 255, 80))
    return sheet


def make_tile(reader: Reader, path: str, size: int) -> np.ndarray:
    """(size, size, 3) uint8: the whole image within a grey square; grey alone where it cannot be read."""
    made = Image.new("RGB", (size, size), (200, 200, 200))
    try:
        image = open_image(reader.image_bytes(path))
    except (ImageRejectedError, OSError):
        return np.asarray(made)
    shrink = size / max(image.size)
    image = image.resize((max(1, round(image.width * shrink)), max(1, round(image.height * shrink))))
    made.paste(image, ((size - image.width) // 2, (size - image.height) // 2))
    return np.asarray(made)
