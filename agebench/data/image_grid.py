"""Contact sheets: many faces in one image."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from agebench.data.faces.alignment import template_positions
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
    offset: float = 0.0,
    every: int = 1,
) -> Image.Image:
    """Draw faces in a grid, each with its label below it.

    Args:
        faces: (N, S, S, C) uint8 RGB; further channels, a body, are not drawn.
        labels: N labels.
        columns: faces per row.
        template: mark the target positions of the eyes and the nose base.
        coverage: framing of the faces, as `AlignmentSpec.crop_scale`.
        offset: vertical offset of the faces, as `AlignmentSpec.offset`.
        every: mark the last of each group of so many faces only.
    """
    size = faces.shape[1]
    rows = -(-len(faces) // columns)
    sheet = Image.new("RGB", (columns * (size + GAP) + GAP, rows * (size + LINE + GAP) + GAP), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=10)
    marks = template_positions(coverage, offset) * size
    for i, (face, label) in enumerate(zip(faces, labels, strict=True)):
        left = GAP + i % columns * (size + GAP)
        top = GAP + i // columns * (size + LINE + GAP)
        sheet.paste(Image.fromarray(face[..., :3]), (left, top))
        pen.text((left, top + size + 1), label, fill="black", font=font)
        for x, y in marks if template and i % every == every - 1 else ():
            pen.line((left + x - 3, top + y, left + x + 3, top + y), fill=(0, 255, 80))
            pen.line((left + x, top + y - 3, left + x, top + y + 3), fill=(0, 255, 80))
    return sheet


def make_tile(reader: Reader, path: str, size: int) -> np.ndarray:
    """Fit a whole image into a gray square; an unreadable image gives an empty square.

    Args:
        reader: reader of the dataset.
        path: path of the image, from the samples' column `path`.
        size: side of the square, pixels.

    Returns:
        (size, size, 3) uint8 RGB.
    """
    tile = Image.new("RGB", (size, size), (200, 200, 200))
    try:
        image = open_image(reader.image_bytes(path))
    except (ImageRejectedError, OSError):
        return np.asarray(tile)
    scale = size / max(image.size)
    image = image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))))
    tile.paste(image, ((size - image.width) // 2, (size - image.height) // 2))
    return np.asarray(tile)
