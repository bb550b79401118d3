"""Affine registration of image pairs, and the similarity of the registered images."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter1d

# Copies share their fine detail; the faces of two people share their layout only.
DETAIL_SIGMA = 0.05  # standard deviation of the blur that removes detail and keeps layout, as a share of the side
MIN_OVERLAP = 0.6
# Downscaling factor, Gauss-Newton steps, and squared error (images of variance 1) from which a pair is discarded: most
# candidates show two people and need no precise registration.
_STAGES = ((4, 6, 0.3), (2, 6, 0.2), (1, 3, 0.2))
_CHUNK = 256


@dataclass(frozen=True)
class AffineTransform:
    """Map from points of the first image to points of the second.

    Attributes:
        matrix: 2 x 3 matrix, row by row, that is applied to (x, y, 1); x and y range from -1 to 1.
        mirrored: whether the map mirrors the image.
    """

    matrix: tuple[float, ...]
    mirrored: bool

    @classmethod
    def of_crop(cls, crop: tuple[float, float, float, float], mirrored: bool) -> "AffineTransform":
        """Return the transform between an image and its crop.

        The first image is the second one, cropped and then optionally mirrored.

        Args:
            crop: top, bottom, left and right, as shares of the side.
            mirrored: whether the cropped image was mirrored.
        """
        top, bottom, left, right = crop
        width = (1 - left - right) * (-1 if mirrored else 1)
        return cls((width, 0.0, left - right, 0.0, 1 - top - bottom, top - bottom), mirrored)

    def inverse(self) -> "AffineTransform":
        """Return the map from points of the second image to points of the first."""
        a, b, x, c, d, y = self.matrix
        inverse = np.linalg.inv(np.array([[a, b, x], [c, d, y], [0.0, 0.0, 1.0]]))[:2].ravel().tolist()
        return AffineTransform(tuple(inverse), self.mirrored)


def register_pairs(
    images: np.ndarray, first: np.ndarray, second: np.ndarray, starts: Sequence[AffineTransform]
) -> tuple[list[AffineTransform], np.ndarray]:
    """Register pairs of images, coarse to fine.

    Args:
        images: (N, S, S) uint8 gray.
        first: (P,) rows of `images` that stay fixed.
        second: (P,) rows of `images` that are mapped onto the fixed ones.
        starts: P approximate transforms.

    Returns:
        P transforms, and the (P,) correlation of fine detail after registration; 0 for discarded pairs.
    """
    transforms: list[AffineTransform] = []
    similarity = np.zeros(len(first))
    for low in range(0, len(first), _CHUNK):
        chunk = slice(low, low + _CHUNK)
        fixed, moving = (images[rows[chunk]].astype(np.float32) for rows in (first, second))
        matrices = np.array([start.matrix for start in starts[chunk]], dtype=np.float64).reshape(-1, 2, 3)
        active = np.arange(len(fixed))
        for scale, steps, max_error in _STAGES:
            if not len(active):  # all pairs of a large chunk can be false
                break
            matrices[active], error = _refine(
                _downscale(fixed[active], scale), _downscale(moving[active], scale), matrices[active], steps
            )
            active = active[error < max_error]
        similarity[low + active] = _detail_correlation(fixed[active], moving[active], matrices[active])
        transforms += [
            AffineTransform(tuple(matrix.ravel().tolist()), start.mirrored)
            for matrix, start in zip(matrices, starts[chunk], strict=True)
        ]
    return transforms, similarity


def _refine(fixed: np.ndarray, moving: np.ndarray, matrices: np.ndarray, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Refine transforms by inverse compositional Gauss-Newton steps (Baker and Matthews, IJCV 2004).

    The matrix of a pair changes only if its error decreases.

    Returns:
        (P, 2, 3) matrices and (P,) errors.
    """
    side = fixed.shape[-1]
    grid = _grid(side)
    target = _standardize(fixed, np.ones_like(fixed))
    slope_y, slope_x = (gradient * side / 2 for gradient in np.gradient(target, axis=(1, 2)))
    points = np.stack([*grid, np.ones_like(grid[0])]).reshape(3, -1).astype(np.float32)
    slopes = np.stack([slope_x, slope_y], axis=1).reshape(len(fixed), 2, 1, -1)
    steepest = (slopes * points).reshape(len(fixed), 6, -1)
    best, best_error = matrices, np.full(len(matrices), np.inf)
    for step in range(steps + 1):
        warped, inside = _warp(moving, matrices)
        difference = (_standardize(warped, inside) - target) * inside
        error = (difference**2).sum(axis=(1, 2)) / np.maximum(inside.sum(axis=(1, 2)), 1)
        error[inside.mean(axis=(1, 2)) < MIN_OVERLAP] = np.inf
        better = error < best_error
        best, best_error = np.where(better[:, None, None], matrices, best), np.where(better, error, best_error)
        if step == steps:
            break
        weighted = steepest * inside.reshape(len(fixed), 1, -1)
        hessian = (weighted @ steepest.transpose(0, 2, 1)).astype(np.float64)
        hessian += np.eye(6) * (1e-3 * np.trace(hessian, axis1=1, axis2=2)[:, None, None] / 6 + 1e-6)
        gradient = (steepest @ difference.reshape(len(fixed), -1, 1)).astype(np.float64)
        change = np.linalg.solve(hessian, gradient)[..., 0].clip(-0.1, 0.1).reshape(-1, 2, 3)
        matrices = _compose(matrices, change)
    return best, best_error


def _compose(matrices: np.ndarray, change: np.ndarray) -> np.ndarray:
    """Compose matrices with the inverse of a small motion of the fixed image."""
    bottom = np.broadcast_to([[[0.0, 0.0, 1.0]]], (len(matrices), 1, 3))
    motion = np.concatenate([np.array([[1.0, 0, 0], [0, 1, 0]]) + change, bottom], axis=1)
    composed: np.ndarray = (np.concatenate([matrices, bottom], axis=1) @ np.linalg.inv(motion))[:, :2]
    return composed


def _detail_correlation(fixed: np.ndarray, moving: np.ndarray, matrices: np.ndarray) -> np.ndarray:
    """Return the (P,) correlation of fine detail where the images overlap; 0 for too little overlap."""
    warped, inside = _warp(moving, matrices)
    sigma = DETAIL_SIGMA * fixed.shape[-1]
    mass = _blur(inside, sigma) + 1e-6
    details = [(image - _blur(image * inside, sigma) / mass) * inside for image in (fixed, warped)]
    left, right = (_standardize(detail, inside) * inside for detail in details)
    correlation: np.ndarray = (left * right).sum(axis=(1, 2)) / np.maximum(inside.sum(axis=(1, 2)), 1)
    correlation[inside.mean(axis=(1, 2)) < MIN_OVERLAP] = 0
    return correlation


def _blur(images: np.ndarray, sigma: float) -> np.ndarray:
    blurred: np.ndarray = gaussian_filter1d(gaussian_filter1d(images, sigma, axis=1), sigma, axis=2)
    return blurred


def _standardize(images: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Scale images to mean 0 and standard deviation 1 where `inside` is 1."""
    weight = np.maximum(inside.sum(axis=(1, 2), keepdims=True), 1)
    centered = images - (images * inside).sum(axis=(1, 2), keepdims=True) / weight
    standardized: np.ndarray = centered / (
        np.sqrt((centered**2 * inside).sum(axis=(1, 2), keepdims=True) / weight) + 1e-3
    )
    return standardized


def _warp(images: np.ndarray, matrices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sample images bilinearly at the positions that matrices map to.

    Returns:
        (P, S, S) sampled images, and (P, S, S) 1 for positions inside the image, else 0.
    """
    count, side = len(images), images.shape[-1]
    points = np.stack([*_grid(side), np.ones((side, side))]).reshape(3, -1)
    x, y = (((matrices @ points + 1) * side - 1) / 2).astype(np.float32).transpose(1, 0, 2)
    inside = (x >= -0.5) & (x <= side - 0.5) & (y >= -0.5) & (y <= side - 0.5)
    x, y = x.clip(0, side - 1), y.clip(0, side - 1)
    left, top = (np.minimum(value.astype(np.int32), side - 2) for value in (x, y))
    x -= left
    y -= top
    flat = images.reshape(-1)
    corner = np.arange(count, dtype=np.int64)[:, None] * side * side + top * side + left
    upper = flat[corner] * (1 - x) + flat[corner + 1] * x
    lower = flat[corner + side] * (1 - x) + flat[corner + side + 1] * x
    sampled = upper * (1 - y) + lower * y
    return sampled.reshape(images.shape), inside.reshape(images.shape).astype(np.float32)


def _grid(side: int) -> tuple[np.ndarray, np.ndarray]:
    """Return x and y (side, side) of the pixel centers, from -1 to 1."""
    line = (2 * np.arange(side) + 1) / side - 1
    x, y = np.meshgrid(line, line)
    return x, y


def _downscale(images: np.ndarray, scale: int) -> np.ndarray:
    side = images.shape[-1] // scale
    downscaled: np.ndarray = images.reshape(len(images), side, scale, side, scale).mean(axis=(2, 4))
    return downscaled
