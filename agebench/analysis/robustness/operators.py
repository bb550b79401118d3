"""Blur, streaks, lost resolution and JPEG as products with small matrices: a whole batch at once, on any device."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

# Independent JPEG Group, as in ITU-T T.81, tables K.1 and K.2: what quality 50 divides luma and chroma by.
_LUMA = torch.tensor(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ],
    dtype=torch.float32,
)
_CHROMA = torch.full((8, 8), 99.0)
_CHROMA[:4, :4] = torch.tensor([[17, 18, 24, 47], [18, 21, 26, 66], [24, 26, 56, 99], [47, 66, 99, 99]])
# JFIF: R'G'B' -> Y'CbCr, all of 0 to 255, chroma about 128 (added where it matters).
_YCC = torch.tensor([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])


def apply_separable(images: Tensor, matrix: Tensor) -> Tensor:
    """`matrix` (T, S) over rows and columns: (B, C, S, S) -> (B, C, T, T)."""
    matrix = matrix.to(images)
    return matrix @ (images @ matrix.T)


def gaussian_matrix(size: int, sigma: float) -> Tensor:
    """(size, size) blur along one axis with `sigma` pixels; edges repeat."""
    reach = max(1, math.ceil(3 * sigma))
    places = torch.arange(-reach, reach + 1, dtype=torch.float32)
    return _kernel(size, torch.exp(-(places**2) / (2 * sigma**2)))


def motion_blur_matrix(size: int, length: float) -> Tensor:
    """(size, size) a straight streak of `length` pixels along one axis; edges repeat."""
    reach = max(1, math.ceil(length / 2))
    places = torch.arange(-reach, reach + 1, dtype=torch.float32)
    return _kernel(size, (length / 2 + 0.5 - places.abs()).clamp(0, 1))


def downscale_matrix(size: int, share: float) -> Tensor:
    """(size, size) down to `share` of the side filtered and up again, bilinear."""
    small = max(1, round(size * share))
    down = _resized(torch.eye(size), small, antialias=True)
    return _resized(down, size, antialias=False)


def jpeg_approximation(images: Tensor, quality: int) -> Tensor:
    """What JPEG at `quality` (1 to 100, libjpeg's scale) leaves of (B, 3, S, S) images of 0 to 255; chroma at half resolution.

    Baseline DCT, ITU-T T.81; entropy coding loses nothing and is left out.
    """
    size = images.shape[-1]
    padded = F.pad(images, (0, -size % 16, 0, -size % 16), mode="replicate")
    side = padded.shape[-1]
    colour = _YCC.to(images)
    ycc = torch.einsum("ij,bjhw->bihw", colour, padded)
    scale = 5000 / quality if quality < 50 else 200 - 2 * quality
    luma = _quantised(ycc[:, :1] - 128, _LUMA, scale) + 128
    half = _halves(side)
    chroma = _quantised(apply_separable(ycc[:, 1:], half), _CHROMA, scale)
    wide = F.interpolate(chroma, side, mode="bilinear", align_corners=False)
    restored = torch.einsum("ij,bjhw->bihw", torch.linalg.inv(colour), torch.cat([luma, wide], dim=1))
    return restored[..., :size, :size]


def _quantised(plane: Tensor, table: Tensor, scale: float) -> Tensor:
    side = plane.shape[-1]
    transform = _dct(side).to(plane)
    steps = ((table * scale + 50) / 100).floor().clamp(1, 255).to(plane).repeat(side // 8, side // 8)
    levels = (apply_separable(plane, transform) / steps).round()
    return apply_separable(levels * steps, transform.T)


def _dct(side: int) -> Tensor:
    """(side, side) the orthonormal 8-point DCT of every block of 8."""
    places = torch.arange(8, dtype=torch.float32)
    block = torch.cos((2 * places[None, :] + 1) * places[:, None] * math.pi / 16) / 2
    block[0] /= math.sqrt(2)
    return torch.kron(torch.eye(side // 8), block)


def _halves(side: int) -> Tensor:
    """(side / 2, side) the mean of every two pixels."""
    return torch.eye(side // 2).repeat_interleave(2, dim=1) / 2


def _kernel(size: int, weights: Tensor) -> Tensor:
    """(size, size) a convolution; what would fall outside counts at the edge."""
    reach = len(weights) // 2
    matrix = torch.zeros(size, size)
    rows = torch.arange(size)
    for place, weight in enumerate(weights / weights.sum(), start=-reach):
        matrix[rows, (rows + place).clamp(0, size - 1)] += weight
    return matrix


def _resized(rows: Tensor, count: int, *, antialias: bool) -> Tensor:
    """(n, m) -> (count, m), bilinear; of the unit matrix it makes the matrix that resizes."""
    size = (count, rows.shape[1])
    return F.interpolate(rows[None, None], size, mode="bilinear", align_corners=False, antialias=antialias)[0, 0]
