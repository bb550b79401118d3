"""Pictures with boxes and ages drawn into them."""

import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import IO

from PIL import Image, ImageDraw, ImageFont

from agebench.inference.predictor import FacePrediction
from agebench.inference.writers import gate_decision

# Okabe and Ito's blue, green and vermilion: told apart with every kind of colour vision.
_PLAIN, _OVER, _CHECK = (0, 114, 178), (0, 125, 92), (190, 75, 0)
_QUALITY = 92


def annotate(picture: Image.Image, faces: Sequence[FacePrediction], challenge: float | None = None) -> Image.Image:
    """A copy of an RGB picture with each face's box, age and interval; with a challenge age, also `over` or `check`."""
    drawn = picture.copy()
    pen = ImageDraw.Draw(drawn)
    for face in faces:
        colour = {"over": _OVER, "check": _CHECK}.get(gate_decision(face, challenge) or "", _PLAIN)
        box = face.box or (0.0, 0.0, float(picture.width), float(picture.height))
        if face.box:
            pen.rectangle(box, outline=colour, width=max(2, round(min(picture.size) / 200)))
        _label(pen, picture.size, box, face_caption(face, challenge), colour)
    return drawn


def face_caption(face: FacePrediction, challenge: float | None = None) -> str:
    """What stands at a face: `31 (24-38)`, with a gate `24.9 (17-32) check`, or why there is no age."""
    if face.error:
        return face.error
    between = f" ({face.low:.0f}-{face.high:.0f})" if math.isfinite(face.low) else ""
    said = gate_decision(face, challenge)
    # With a decimal where it decides, and never above the estimate: "25.0 check" at 24.97 would contradict itself.
    return f"{math.floor(10 * face.age) / 10:.1f}{between} {said}" if said else f"{face.age:.0f}{between}"


def save_picture(picture: Image.Image, file: Path | IO[bytes]) -> None:
    """As JPEG."""
    picture.save(file, "JPEG", quality=_QUALITY)


def _label(
    pen: ImageDraw.ImageDraw, size: tuple[int, int], box: Sequence[float], text: str, colour: tuple[int, int, int]
) -> None:
    """Above the box, as large as fits its width; within the picture whatever the box."""
    height = min(max(14, (box[2] - box[0]) / 9), max(14, min(size) / 12))
    font = _font(round(height))
    left, top, right, bottom = pen.textbbox((0, 0), text, font=font)
    pad = round(height / 4)
    wide, high = right - left + 2 * pad, bottom - top + 2 * pad
    x = min(max(0.0, box[0]), max(0.0, size[0] - wide))
    y = max(0.0, box[1] - high)
    pen.rectangle((x, y, x + wide, y + high), fill=colour)
    pen.text((x + pad - left, y + pad - top), text, fill="white", font=font)


@cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
