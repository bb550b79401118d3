"""Pairs of images laid over one another: the affine placement that makes them most alike, and how alike they then are."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter1d

# Copies share their fine detail; two people's faces share their layout only.
DETAIL_SIGMA = 0.05  # standard deviation of the blur that layout survives, as a share of the side
MIN_OVERLAP = 0.6
# How many times smaller the images are, how many steps are made, and the squared error (of images of variance 1) from which a
# pair is given up: most candidates are two people, and need not be looked at closely.
_STAGES = ((4, 6, 0.3), (2, 6, 0.2), (1, 3, 0.2))
_CHUNK = 256


@dataclass(frozen=True)
class AffineTransform:
    """Where the first image's points lie in the second: (x, y) from -1 to 1 -> `matrix` (2 x 3, row by row) @ (x, y, 1)."""

    matrix: tuple[float, ...]
    mirrored: bool

    @classmethod
    def of_crop(cls, crop: tuple[float, float, float, float], mirrored: bool) -> "AffineTransform":
        """The first image is the second with `crop` (top, bottom, left, right, shares of the side) cut off, then mirrored."""
        top, bottom, left, right = crop
        width = (1 - left - right) * (-1 if mirrored else 1)
        return cls((width, 0.0, left - right, 0.0, 1 - top - bottom, top - bottom), mirrored)

    def inverse(self) -> "AffineTransform":
        """The other way round."""
        a, b, x, c, d, y = self.matrix
        inverse = np.linalg.inv(np.array([[a, b, x], [c, d, y], [0.0, 0.0, 1.0]]))[:2].ravel().tolist()
        return AffineTransform(tuple(inverse), self.mirrored)


def register_pairs(
    images: np.ndarray, first: np.ndarray, second: np.ndarray, starts: Sequence[AffineTransform]
) -> tuple[list[AffineTransform], np.ndarray]:
    """Lay `images[second]` over `images[first]`, from `starts`; the placements found, and (P,) the likeness of detail.

    Args:
        images: (N, S, S) uint8 grey.
        first: (P,) rows of `images`.
        second: (P,) rows of `images`, to be laid over those.
        starts: P placements, about right already.
    """
    placements: list[AffineTransform] = []
    likeness = np.zeros(len(first))
    for low in range(0, len(first), _CHUNK):
        part = slice(low, low + _CHUNK)
        still, moving = (images[rows[part]].astype(np.float32) for rows in (first, second))
        matrices = np.array([start.matrix for start in starts[part]], dtype=np.float64).reshape(-1, 2, 3)
        alive = np.arange(len(still))
        for scale, steps, limit in _STAGES:
            matrices[alive], error = _improve(
                _reduced(still[alive], scale), _reduced(moving[alive], scale), matrices[alive], steps
            )
            alive = alive[error < limit]
        likeness[low + alive] = _likeness(still[alive], moving[alive], matrices[alive])
        placements += [
            AffineTransform(tuple(matrix.ravel().tolist()), start.mirrored)
            for matrix, start in zip(matrices, starts[part], strict=True)
        ]
    return placements, likeness


def _improve(still: np.ndarray, moving: np.ndarray, matrices: np.ndarray, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Gauss-Newton, inverse compositional (Baker and Matthews, IJCV 2004): matrices (P, 2, 3) and errors (P,) after `steps`.

    A pair gets another matrix only where that makes its images more alike.
    """
    side = still.shape[-1]
    grid = _grid(side)
    target = _standardised(still, np.ones_like(still))
    slope_y, slope_x = (gradient * side / 2 for gradient in np.gradient(target, axis=(1, 2)))
    points = np.stack([*grid, np.ones_like(grid[0])]).reshape(3, -1).astype(np.float32)
    slopes = np.stack([slope_x, slope_y], axis=1).reshape(len(still), 2, 1, -1)
    steepest = (slopes * points).reshape(len(still), 6, -1)
    best, best_error = matrices, np.full(len(matrices), np.inf)
    for step in range(steps + 1):
        warped, inside = _warp(moving, matrices)
        difference = (_standardised(warped, inside) - target) * inside
        error = (difference**2).sum(axis=(1, 2)) / np.maximum(inside.sum(axis=(1, 2)), 1)
        error[inside.mean(axis=(1, 2)) < MIN_OVERLAP] = np.inf
        better = error < best_error
        best, best_error = np.where(better[:, None, None], matrices, best), np.where(better, error, best_error)
        if step == steps:
            break
        weighted = steepest * inside.reshape(len(still), 1, -1)
        hessian = (weighted @ steepest.transpose(0, 2, 1)).astype(np.float64)
        hessian += np.eye(6) * (1e-3 * np.trace(hessian, axis1=1, axis2=2)[:, None, None] / 6 + 1e-6)
        gradient = (steepest @ difference.reshape(len(still), -1, 1)).astype(np.float64)
        change = np.linalg.solve(hessian, gradient)[..., 0].clip(-0.1, 0.1).reshape(-1, 2, 3)
        matrices = _compose(matrices, change)
    return best, best_error


def _compose(matrices: np.ndarray, change: np.ndarray) -> np.ndarray:
    """`matrices` after the inverse of the small movement `change` of the still image."""
    bottom = np.broadcast_to([[[0.0, 0.0, 1.0]]], (len(matrices), 1, 3))
    moved = np.concatenate([np.array([[1.0, 0, 0], [0, 1, 0]]) + change, bottom], axis=1)
    made: np.ndarray = (np.concatenate([matrices, bottom], axis=1) @ np.linalg.inv(moved))[:, :2]
    return made


def _likeness(still: np.ndarray, moving: np.ndarray, matrices: np.ndarray) -> np.ndarray:
    """(P,) correlation of the fine detail where the images overlap; 0 where they hardly do."""
    warped, inside = _warp(moving, matrices)
    sigma = DETAIL_SIGMA * still.shape[-1]
    mass = _blur(inside, sigma) + 1e-6
    parts = [(image - _blur(image * inside, sigma) / mass) * inside for image in (still, warped)]
    left, right = (_standardised(part, inside) * inside for part in parts)
    found: np.ndarray = (left * right).sum(axis=(1, 2)) / np.maximum(inside.sum(axis=(1, 2)), 1)
    found[inside.mean(axis=(1, 2)) < MIN_OVERLAP] = 0
    return found


def _blur(images: np.ndarray, sigma: float) -> np.ndarray:
    blurred: np.ndarray = gaussian_filter1d(gaussian_filter1d(images, sigma, axis=1), sigma, axis=2)
    return blurred


def _standardised(images: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Mean 0 and standard deviation 1 where `inside`."""
    weight = np.maximum(inside.sum(axis=(1, 2), keepdims=True), 1)
    centred = images - (images * inside).sum(axis=(1, 2), keepdims=True) / weight
    made: np.ndarray = centred / (np.sqrt((centred**2 * inside).sum(axis=(1, 2), keepdims=True) / weight) + 1e-3)
    return made


def _warp(images: np.ndarray, matrices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(P, S, S) the images at the places that the matrices say, bilinear; and 1 where those lie inside, else 0."""
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
    made = upper * (1 - y) + lower * y
    return made.reshape(images.shape), inside.reshape(images.shape).astype(np.float32)


def _grid(side: int) -> tuple[np.ndarray, np.ndarray]:
    """The x and y (side, side) of the pixels' centres, from -1 to 1."""
    line = (2 * np.arange(side) + 1) / side - 1
    x, y = np.meshgrid(line, line)
    return x, y


def _reduced(images: np.ndarray, scale: int) -> np.ndarray:
    side = images.shape[-1] // scale
    made: np.ndarray = images.reshape(len(images), side, scale, side, scale).mean(axis=(2, 4))
    return made
