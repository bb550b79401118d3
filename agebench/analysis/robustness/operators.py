"""Blur, motion blur, downscaling and JPEG as matrix products on whole batches, on any device."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from agebench.training.image_quality import CHROMA_STEPS, LUMA_STEPS, YCBCR


def apply_separable(images: Tensor, matrix: Tensor) -> Tensor:
    """Apply one matrix along both image axes.

    Args:
        images: (..., S, S).
        matrix: (T, S).

    Returns:
        (..., T, T): `matrix @ images @ matrix.T`.
    """
    matrix = matrix.to(images)
    return matrix @ (images @ matrix.T)


def gaussian_matrix(size: int, sigma: float) -> Tensor:
    """Return the matrix of a Gaussian blur along one axis.

    Args:
        size: the side of the image in pixels.
        sigma: the standard deviation in pixels.

    Returns:
        (size, size); pixels outside the image repeat the edge.
    """
    radius = max(1, math.ceil(3 * sigma))
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float32)
    return _convolution_matrix(size, torch.exp(-(offsets**2) / (2 * sigma**2)))


def motion_blur_matrix(size: int, length: float) -> Tensor:
    """Return the matrix of a straight motion blur along one axis.

    Args:
        size: the side of the image in pixels.
        length: the length of the motion in pixels.

    Returns:
        (size, size); pixels outside the image repeat the edge.
    """
    radius = max(1, math.ceil(length / 2))
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float32)
    return _convolution_matrix(size, (length / 2 + 0.5 - offsets.abs()).clamp(0, 1))


def downscale_matrix(size: int, share: float) -> Tensor:
    """Return the matrix of antialiased bilinear downscaling followed by bilinear upscaling along one axis.

    Args:
        size: the side of the image in pixels.
        share: the side of the downscaled image as a fraction of `size`.

    Returns:
        (size, size).
    """
    small = max(1, round(size * share))
    down = _resize_rows(torch.eye(size), small, antialias=True)
    return _resize_rows(down, size, antialias=False)


def jpeg_approximation(images: Tensor, quality: int) -> Tensor:
    """Compress and decompress images with baseline JPEG (ITU-T T.81), with chroma at half resolution.

    Entropy coding is lossless and omitted.

    Args:
        images: (B, 3, S, S) in 0 to 255.
        quality: 1 to 100, on libjpeg's scale.

    Returns:
        (B, 3, S, S), not rounded.
    """
    size = images.shape[-1]
    padded = F.pad(images, (0, -size % 16, 0, -size % 16), mode="replicate")
    side = padded.shape[-1]
    to_ycc = YCBCR.to(images)
    ycc = torch.einsum("ij,bjhw->bihw", to_ycc, padded)
    scale = 5000 / quality if quality < 50 else 200 - 2 * quality
    luma = _quantize(ycc[:, :1] - 128, LUMA_STEPS, scale) + 128
    chroma = _quantize(apply_separable(ycc[:, 1:], _pair_means(side)), CHROMA_STEPS, scale)
    upsampled = F.interpolate(chroma, side, mode="bilinear", align_corners=False)
    restored = torch.einsum("ij,bjhw->bihw", torch.linalg.inv(to_ycc), torch.cat([luma, upsampled], dim=1))
    return restored[..., :size, :size]


def _quantize(plane: Tensor, table: Tensor, scale: float) -> Tensor:
    side = plane.shape[-1]
    transform = _dct(side).to(plane)
    steps = ((table * scale + 50) / 100).floor().clamp(1, 255).to(plane).repeat(side // 8, side // 8)
    levels = (apply_separable(plane, transform) / steps).round()
    return apply_separable(levels * steps, transform.T)


def _dct(side: int) -> Tensor:
    """Return the matrix (side, side) of the orthonormal 8-point DCT of each block of 8."""
    index = torch.arange(8, dtype=torch.float32)
    block = torch.cos((2 * index[None, :] + 1) * index[:, None] * math.pi / 16) / 2
    block[0] /= math.sqrt(2)
    return torch.kron(torch.eye(side // 8), block)


def _pair_means(side: int) -> Tensor:
    """Return the matrix (side / 2, side) that averages pairs of pixels."""
    return torch.eye(side // 2).repeat_interleave(2, dim=1) / 2


def _convolution_matrix(size: int, weights: Tensor) -> Tensor:
    """Return the matrix (size, size) of a convolution; weights outside the image count at the edge."""
    radius = len(weights) // 2
    matrix = torch.zeros(size, size)
    rows = torch.arange(size)
    for offset, weight in enumerate(weights / weights.sum(), start=-radius):
        matrix[rows, (rows + offset).clamp(0, size - 1)] += weight
    return matrix


def _resize_rows(rows: Tensor, count: int, *, antialias: bool) -> Tensor:
    """Resize (n, m) to (count, m) bilinearly; applied to the identity, this gives the matrix that resizes."""
    size = (count, rows.shape[1])
    return F.interpolate(rows[None, None], size, mode="bilinear", align_corners=False, antialias=antialias)[0, 0]
