"""Facial regions as boxes on the aligned face; alignment maps them to the same position in every image."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from agebench.errors import UserError

Box = tuple[float, float, float, float]

# Left, top, right, bottom as shares of the side at coverage 1, about the template's eyes (30, 30) and (68, 30) % and
# its nose base (49, 59) %. Measured on the mean faces of UTKFace and FG-NET.
FACE: dict[str, Box] = {
    "eyes": (0.17, 0.22, 0.81, 0.39),
    "nose": (0.37, 0.39, 0.61, 0.62),
    "mouth": (0.30, 0.64, 0.68, 0.82),
    "forehead": (0.19, 0.02, 0.79, 0.20),
}
# Framings that bring eyes and nose to the template, as `FaceCache.mode`; an unknown one counts as such.
_ON_TEMPLATE = ("", "none", "landmarks", "detect")
# The corners are those of the image, independent of the coverage. No face extends into them; a watermark or a frame may.
_CORNER = 0.2
_MIN_SIDE = 0.01  # of the visible part of a region; less is no pixel of most images
CORNERS: tuple[Box, ...] = (
    (0.0, 0.0, _CORNER, _CORNER),
    (1 - _CORNER, 0.0, 1.0, _CORNER),
    (0.0, 1 - _CORNER, _CORNER, 1.0),
    (1 - _CORNER, 1 - _CORNER, 1.0, 1.0),
)


def region_boxes(name: str, coverage: float, offset: float = 0.0) -> tuple[Box, ...]:
    """Return the boxes of a region, as shares of the image's side.

    Args:
        name: `corners`, or a name in `FACE`.
        coverage: framing of the faces, as `AlignmentSpec.crop_scale`.
        offset: vertical offset of the faces, as `AlignmentSpec.offset`.

    Returns:
        The part of the region that lies in the image; no box where that is less than a hundredth of the side.
    """
    if name == "corners":
        return CORNERS
    left, top, right, bottom = ((share - 0.5) / coverage + 0.5 for share in FACE[name])
    box = (max(left, 0.0), max(top + offset, 0.0), min(right, 1.0), min(bottom + offset, 1.0))
    return (box,) if min(box[2] - box[0], box[3] - box[1]) >= _MIN_SIDE else ()


def missing_regions(mode: str, coverage: float, offset: float = 0.0) -> dict[str, str]:
    """Return the regions of the face that have no known place in the images, with the reason.

    Args:
        mode: framing of the faces, as `FaceCache.mode`.
        coverage: as of `region_boxes`.
        offset: as of `region_boxes`.
    """
    if mode in _ON_TEMPLATE:
        outside = "it lies outside the images, which show only part of the face"
        return {name: outside for name in FACE if not region_boxes(name, coverage, offset)}
    return dict.fromkeys(FACE, "the faces are cut out by boxes, not aligned by eyes and nose, so that its place varies")


def region_notes(missing: Mapping[str, str], names: Iterable[str]) -> list[str]:
    """Return a sentence for each region that is left out.

    Args:
        missing: region -> reason, see `missing_regions`.
        names: the regions that would be there.
    """
    return [f"the region '{name}' is left out: {missing[name]}" for name in names if name in missing]


def parse_box(text: str) -> Box:
    """Parse a box such as `0,0,0.2,0.2`.

    The numbers are left, top, right, bottom as shares of the image's side.

    Args:
        text: four numbers between 0 and 1, separated by commas.

    Raises:
        UserError: the text is not four numbers with left < right and top < bottom between 0 and 1.
    """
    try:
        left, top, right, bottom = (float(share) for share in text.split(","))
    except ValueError:
        left, top, right, bottom = 1.0, 1.0, 0.0, 0.0
    if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
        raise UserError(
            f"--occlude {text}: give left,top,right,bottom as shares of the image's side, e.g. 0,0,0.2,0.2 for the top left corner"
        )
    return left, top, right, bottom


def region_mask(areas: tuple[Box, ...], size: int, grow: float = 1.0, device: torch.device | None = None) -> Tensor:
    """Rasterize boxes to the share of each pixel that they cover.

    Args:
        areas: boxes as shares of the image's side.
        size: side of the mask, pixels.
        grow: factor of the boxes' sides. A box at an edge of the image is scaled toward that edge, any other toward its
            center.
        device: device of the mask.

    Returns:
        (size, size) float32 between 0 and 1.
    """
    mask = torch.zeros(size, size, device=device)
    for left, top, right, bottom in areas:
        columns, rows = _covered_shares(left, right, size, grow), _covered_shares(top, bottom, size, grow)
        mask = torch.maximum(mask, rows[:, None].to(mask) * columns[None, :].to(mask))
    return mask


def _covered_shares(low: float, high: float, size: int, grow: float) -> Tensor:
    """Return the (size,) share of each pixel that lies in an interval."""
    anchor = 0.0 if low <= 0 and high < 1 else 1.0 if high >= 1 and low > 0 else 0.5
    length = (high - low) * grow
    start = low + (high - low - length) * anchor
    edges = torch.arange(size + 1, dtype=torch.float32) / size
    clipped = edges.clamp(start, start + length)
    return (clipped[1:] - clipped[:-1]) * size
