"""Where things are on the aligned face: the template puts them at the same place in every image."""

import torch
from torch import Tensor

from agebench.errors import UserError

Box = tuple[float, float, float, float]

# Left, top, right, bottom as shares of the side at coverage 1, about the template's eyes (30, 30) and (68, 30) % and
# its nose base (49, 59) %. Read off the mean faces of UTKFace and FG-NET.
FACE: dict[str, Box] = {
    "eyes": (0.17, 0.22, 0.81, 0.39),
    "nose": (0.37, 0.39, 0.61, 0.62),
    "mouth": (0.30, 0.64, 0.68, 0.82),
    "forehead": (0.19, 0.02, 0.79, 0.20),
}
# The corners are the image's, whatever the coverage: no face reaches into them, a mark or a frame may.
_CORNER = 0.2
CORNERS: tuple[Box, ...] = (
    (0.0, 0.0, _CORNER, _CORNER),
    (1 - _CORNER, 0.0, 1.0, _CORNER),
    (0.0, 1 - _CORNER, _CORNER, 1.0),
    (1 - _CORNER, 1 - _CORNER, 1.0, 1.0),
)


def region_boxes(name: str, coverage: float) -> tuple[Box, ...]:
    """The boxes of a region, as shares of the image's side."""
    if name == "corners":
        return CORNERS
    left, top, right, bottom = ((share - 0.5) / coverage + 0.5 for share in FACE[name])
    return ((left, top, right, bottom),)


def parse_box(text: str) -> Box:
    """`0,0,0.2,0.2`: left, top, right, bottom as shares of the image's side.

    Raises:
        UserError: not four rising numbers between 0 and 1.
    """
    try:
        left, top, right, bottom = (float(part) for part in text.split(","))
    except ValueError:
        left, top, right, bottom = 1.0, 1.0, 0.0, 0.0
    if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
        raise UserError(
            f"--occlude {text}: give left,top,right,bottom as shares of the image's side, e.g. 0,0,0.2,0.2 for the top left corner"
        )
    return left, top, right, bottom


def region_mask(areas: tuple[Box, ...], size: int, grow: float = 1.0, device: torch.device | None = None) -> Tensor:
    """(size, size) float32: the share of every pixel that lies in one of the boxes, each shrunk to `grow` of its sides.

    A box that touches an edge of the image shrinks towards that edge, any other towards its middle.
    """
    found = torch.zeros(size, size, device=device)
    for left, top, right, bottom in areas:
        across, down = _covered(left, right, size, grow), _covered(top, bottom, size, grow)
        found = torch.maximum(found, down[:, None].to(found) * across[None, :].to(found))
    return found


def _covered(low: float, high: float, size: int, grow: float) -> Tensor:
    """(size,) how much of each pixel lies in the interval."""
    anchor = 0.0 if low <= 0 and high < 1 else 1.0 if high >= 1 and low > 0 else 0.5
    length = (high - low) * grow
    start = low + (high - low - length) * anchor
    edges = torch.arange(size + 1, dtype=torch.float32) / size
    inside = edges.clamp(start, start + length)
    return (inside[1:] - inside[:-1]) * size
