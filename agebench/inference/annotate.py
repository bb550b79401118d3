"""Draw boxes and ages into images."""

import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import IO

from PIL import Image, ImageDraw, ImageFont

from agebench.inference.predictor import FacePrediction
from agebench.inference.writers import gate_decision

# Blue, green and vermilion of Okabe and Ito, distinguishable with every kind of color vision.
_PLAIN, _OVER, _CHECK = (0, 114, 178), (0, 125, 92), (190, 75, 0)
_JPEG_QUALITY = 92


def annotate(image: Image.Image, faces: Sequence[FacePrediction], challenge: float | None = None) -> Image.Image:
    """Return a copy of an RGB image with each face's box, age and interval.

    Args:
        image: the image.
        faces: the predictions for it.
        challenge: challenge age, years; each face then also has `over` or `check`. None: no gate.
    """
    drawn = image.copy()
    pen = ImageDraw.Draw(drawn)
    for face in faces:
        color = {"over": _OVER, "check": _CHECK}.get(gate_decision(face, challenge) or "", _PLAIN)
        box = face.box or (0.0, 0.0, float(image.width), float(image.height))
        if face.box:
            pen.rectangle(box, outline=color, width=max(2, round(min(image.size) / 200)))
        _label(pen, image.size, box, face_caption(face, challenge), color)
    return drawn


def face_caption(face: FacePrediction, challenge: float | None = None) -> str:
    """Return the text at a face: `31 (24-38)`, with a gate `24.9 (17-32) check`, or the reason for a missing age.

    Args:
        face: the prediction.
        challenge: challenge age, years; None: no gate.
    """
    if face.error:
        return face.error
    interval = f" ({face.low:.0f}-{face.high:.0f})" if math.isfinite(face.low) else ""
    decision = gate_decision(face, challenge)
    # With a gate, one decimal, rounded down: "25.0 check" at 24.97 would contradict itself.
    return f"{math.floor(10 * face.age) / 10:.1f}{interval} {decision}" if decision else f"{face.age:.0f}{interval}"


def save_image(image: Image.Image, file: Path | IO[bytes]) -> None:
    """Save an image as JPEG.

    Args:
        image: the image.
        file: a path or an open file.
    """
    image.save(file, "JPEG", quality=_JPEG_QUALITY)


def _label(
    pen: ImageDraw.ImageDraw, size: tuple[int, int], box: Sequence[float], text: str, color: tuple[int, int, int]
) -> None:
    """Draw a label above a box, as large as its width allows, and always within the image."""
    height = min(max(14, (box[2] - box[0]) / 9), max(14, min(size) / 12))
    font = _font(round(height))
    left, top, right, bottom = pen.textbbox((0, 0), text, font=font)
    pad = round(height / 4)
    width, label_height = right - left + 2 * pad, bottom - top + 2 * pad
    x = min(max(0.0, box[0]), max(0.0, size[0] - width))
    y = max(0.0, box[1] - label_height)
    pen.rectangle((x, y, x + width, y + label_height), fill=color)
    pen.text((x + pad - left, y + pad - top), text, fill="white", font=font)


@cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
