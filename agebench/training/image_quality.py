"""Blur and JPEG compression of training images, batched, on the training device."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

JPEG_QUALITY = (30.0, 95.0)  # range of the drawn quality
BLOCK = 8  # side of a block of JPEG, pixels
# RGB -> YCbCr of JFIF, without the offset of the chroma planes, which the transform removes again.
YCBCR = torch.tensor([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])
# Quantization steps at quality 50 (ITU-T T.81, annex K): luma, and chroma, whose steps from the fourth on are 99.
LUMA_STEPS = torch.tensor(
    [
        [16.0, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ]
)
CHROMA_STEPS = torch.full((BLOCK, BLOCK), 99.0)
CHROMA_STEPS[:4, :4] = torch.tensor([[17.0, 18, 24, 47], [18, 21, 26, 66], [24, 26, 56, 99], [47, 66, 99, 99]])


@dataclass(frozen=True)
class QualityDraw:
    """The changes of the quality of B images.

    Attributes:
        sigma: (B,) standard deviation of the blur, pixels; 0: none.
        quality: (B,) quality of the JPEG compression, 1 to 100; 0: none.
    """

    sigma: Tensor
    quality: Tensor

    def __getitem__(self, rows: slice) -> "QualityDraw":
        return QualityDraw(self.sigma[rows], self.quality[rows])

    def apply(self, images: Tensor) -> Tensor:
        """Return the images (B, C, S, S), float 0 to 255, with blur and compression where these were drawn."""
        for values, change in ((self.sigma, gaussian_blur), (self.quality, jpeg)):
            rows = values.nonzero()[:, 0]
            if len(rows):
                index = rows.to(images.device)
                images = images.index_copy(0, index, change(images[index], values[rows].to(images.device)))
        return images


def draw_quality(count: int, blur: float, jpeg_share: float, generator: torch.Generator) -> QualityDraw:
    """Draw the changes of `count` images.

    Args:
        count: the number of images.
        blur: the largest standard deviation of the blur of half of the images, pixels.
        jpeg_share: the probability that an image is compressed.
        generator: a CPU generator, the source of all draws.
    """
    uniform = torch.rand(4, count, generator=generator)
    low, high = JPEG_QUALITY
    sigma = torch.where(uniform[0] < 0.5, blur * uniform[1], 0.0)
    return QualityDraw(sigma, torch.where(uniform[2] < jpeg_share, low + (high - low) * uniform[3], 0.0))


def gaussian_blur(images: Tensor, sigma: Tensor) -> Tensor:
    """Return the images, each convolved with its own normal kernel; edges repeat.

    Args:
        images: (B, C, S, S) float.
        sigma: (B,) standard deviations, pixels; above 0.
    """
    count, channels, size, _ = images.shape
    radius = min(max(1, math.ceil(3 * float(sigma.max()))), size - 1)
    offsets = torch.arange(-radius, radius + 1, device=images.device)
    kernels = (offsets**2 / (-2 * sigma[:, None] ** 2)).softmax(dim=1).repeat_interleave(channels, dim=0)
    planes = images.reshape(1, count * channels, size, size)
    for horizontal in (True, False):
        padding = (radius, radius, 0, 0) if horizontal else (0, 0, radius, radius)
        shape = (-1, 1, 1, 2 * radius + 1) if horizontal else (-1, 1, 2 * radius + 1, 1)
        planes = F.conv2d(F.pad(planes, padding, mode="replicate"), kernels.reshape(shape), groups=count * channels)
    return planes.reshape(images.shape)


def jpeg(images: Tensor, quality: Tensor) -> Tensor:
    """Return the images after the lossy part of JPEG compression (ITU-T T.81) without subsampling of the chroma planes.

    Blocks of 8 x 8 pixels are transformed by the cosine transform, and their coefficients are rounded to multiples of the steps
    of the quality, scaled as libjpeg does. Sides that are no multiple of 8 are extended by their edge.

    Args:
        images: (B, C, S, S) float, 0 to 255; C is 3 or 6, two images.
        quality: (B,) 1 to 100.
    """
    count, channels, size, _ = images.shape
    device = images.device
    rgb = images.reshape(-1, 3, size, size)
    missing = -size % BLOCK
    ycbcr = torch.einsum(
        "kc,bchw->bkhw", YCBCR.to(device), F.pad(rgb, (0, missing, 0, missing), mode="replicate")
    ).round()
    ycbcr[:, 0] -= 128
    side = (size + missing) // BLOCK
    blocks = ycbcr.reshape(len(rgb), 3, side, BLOCK, side, BLOCK).transpose(3, 4)
    percent = torch.where(quality < 50, 5000 / quality, 200 - 2 * quality).repeat_interleave(channels // 3)
    tables = torch.stack([LUMA_STEPS, CHROMA_STEPS, CHROMA_STEPS]).to(device)
    steps = ((tables * percent[:, None, None, None] + 50) / 100).floor().clamp(1, 255)[:, :, None, None]
    transform = _cosine_transform().to(device)
    coefficients = transform @ blocks @ transform.T
    blocks = transform.T @ ((coefficients / steps).round() * steps) @ transform
    ycbcr = blocks.transpose(3, 4).reshape(len(rgb), 3, size + missing, size + missing)[:, :, :size, :size].round()
    ycbcr[:, 0] += 128
    result = torch.einsum("kc,bchw->bkhw", torch.linalg.inv(YCBCR).to(device), ycbcr)
    return result.clamp(0, 255).reshape(count, channels, size, size)


def _cosine_transform() -> Tensor:
    """Return the (8, 8) matrix of the orthonormal cosine transform, type II."""
    position = torch.arange(BLOCK, dtype=torch.float32)
    matrix = torch.cos(math.pi * (2 * position[None, :] + 1) * position[:, None] / (2 * BLOCK)) * math.sqrt(2 / BLOCK)
    matrix[0] /= math.sqrt(2)
    return matrix
