"""Many faces on one picture, to look at."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from agebench.data.faces import TEMPLATE

GAP, LINE = 4, 14


def contact_sheet(
    faces: np.ndarray, labels: Sequence[str], *, columns: int = 10, template: bool = False, coverage: float = 1.0
) -> Image.Image:
    """`faces` (N, S, S, 3) uint8 in rows of `columns`, each with its label below.

    `template` marks where the eyes and the nose base belong at `coverage`.
    """
    size = faces.shape[1]
    rows = -(-len(faces) // columns)
    sheet = Image.new("RGB", (columns * (size + GAP) + GAP, rows * (size + LINE + GAP) + GAP), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=10)
    marks = ((TEMPLATE - 0.5) / coverage + 0.5) * size
    for number, (face, label) in enumerate(zip(faces, labels, strict=True)):
        left = GAP + number % columns * (size + GAP)
        top = GAP + number // columns * (size + LINE + GAP)
        sheet.paste(Image.fromarray(face), (left, top))
        pen.text((left, top + size + 1), label, fill="black", font=font)
        for x, y in marks if template else ():
            pen.line((left + x - 3, top + y, left + x + 3, top + y), fill=(0, 255, 80))
            pen.line((left + x, top + y - 3, left + x, top + y + 3), fill=(0, 255, 80))
    return sheet
