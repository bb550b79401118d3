"""Near duplicates among many images: candidates by a perceptual hash, then registration of each candidate pair.

The hash is the low spatial frequencies of a small gray image, whitened over the collection: whitening removes what all
aligned faces have in common, so that two people are about as far apart as chance has it. Hashes are real-valued rather than
binary, because one matrix product then compares all pairs, mirrored and cropped ones too. Collections of more than
`MAX_EXHAUSTIVE` images are compared through an index, whose cost grows more slowly than the number of pairs.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from scipy.fft import dct
from threadpoolctl import threadpool_limits

from agebench.data.audit.hash_index import HashIndex
from agebench.data.audit.registration import AffineTransform, register_pairs
from agebench.data.audit.thumbnails import THUMBNAIL_SIDE
from agebench.utils.parallel import available_cores
from agebench.utils.progress import progress

Floats = np.ndarray[Any, np.dtype[np.float32]]

N_FREQUENCIES = 10
# Cosine of two hashes from which a pair is a candidate; 99 % of planted copies with up to a tenth cropped from each side
# are above it.
MIN_COSINE = 0.62
# Number of images whose weight a general spectrum has in the whitening: a small collection does not determine its own.
SPECTRUM_PRIOR_WEIGHT = 200
# More images than this are compared through an index, which misses a few of the least similar pairs.
MAX_EXHAUSTIVE = 60_000
# Gray levels (standard deviation) below which a thumbnail has too little contrast to be compared.
_MIN_CONTRAST = 2.0
_BLOCK = 1024
# Crops that a copy may have (top, bottom, left, right), as shares of the side.
_CROPS = (
    (0.0, 0.0, 0.0, 0.0),
    (0.03, 0.03, 0.03, 0.03),
    (0.025, 0.075, 0.025, 0.075),
    (0.025, 0.075, 0.075, 0.025),
    (0.075, 0.025, 0.025, 0.075),
    (0.075, 0.025, 0.075, 0.025),
)


@dataclass(frozen=True)
class DuplicatePairs:
    """Pairs of near duplicates.

    Attributes:
        first: (P,) row of one image; smaller than `second`.
        second: (P,) row of the other image.
        similarity: (P,) correlation of fine detail after registration; 1 for equal images.
        mirrored: (P,) whether one image is the other's mirror image.
    """

    first: np.ndarray
    second: np.ndarray
    similarity: np.ndarray
    mirrored: np.ndarray

    def __len__(self) -> int:
        return len(self.first)


class _Candidate(NamedTuple):
    """Best cosine of a pair, and the crop and mirroring that gave it."""

    cosine: float
    transform: AffineTransform


def near_duplicates(
    thumbnails: np.ndarray, *, query_rows: int | None = None
) -> tuple[DuplicatePairs, list[AffineTransform]]:
    """Find the pairs of images that match after registration.

    Args:
        thumbnails: (N, THUMBNAIL_SIDE, THUMBNAIL_SIDE) uint8 gray. Images without contrast match no other image.
        query_rows: return only pairs with an image among the first `query_rows`; None for all pairs.

    Returns:
        The candidate pairs with their similarity, and the transforms that map the second image onto the first.
    """
    candidates = _find_candidates(thumbnails, len(thumbnails) if query_rows is None else query_rows)
    pairs = sorted(candidates)
    first, second = (np.array([pair[side] for pair in pairs], dtype=np.int64) for side in (0, 1))
    starts = [candidates[pair].transform for pair in pairs]
    transforms, similarity = register_pairs(thumbnails, first, second, starts)
    mirrored = np.array([start.mirrored for start in starts], dtype=bool)
    return DuplicatePairs(first, second, similarity, mirrored), transforms


def _find_candidates(thumbnails: np.ndarray, query_rows: int) -> dict[tuple[int, int], _Candidate]:
    """Map pairs of similar hashes (first row, second row) to their best match."""
    basis, is_used, is_odd_frequency = _frequency_basis()
    uncropped = _coefficients(thumbnails, basis, is_used, _CROPS[0])
    is_flat = _contrast(thumbnails) < _MIN_CONTRAST
    mean, whitening = _whitening(uncropped[~is_flat], is_used)
    reference_hashes = _hash(uncropped, mean, whitening, is_flat)
    mirror_sign = np.where(is_odd_frequency, -1, 1).astype(np.float32)
    candidates: dict[tuple[int, int], _Candidate] = {}
    index = HashIndex(reference_hashes) if len(thumbnails) > MAX_EXHAUSTIVE else None
    with progress(total=2 * len(_CROPS), label="comparing images", unit="pass") as bar:
        for crop in _CROPS:
            is_uncropped = crop == _CROPS[0]
            cropped = uncropped if is_uncropped else _coefficients(thumbnails, basis, is_used, crop)
            for mirrored in (False, True):
                query_hashes = _hash(cropped * mirror_sign if mirrored else cropped, mean, whitening, is_flat)
                if index is None:
                    matches = _similar_hashes(query_hashes, reference_hashes, query_rows, symmetric=is_uncropped)
                else:
                    matches = _indexed_hashes(query_hashes, index, query_rows)
                for row, column, cosine in matches:
                    # `row` was cropped to match, so it shows more: it is the moving image, mapped onto `column`.
                    pair = (min(row, column), max(row, column))
                    if pair not in candidates or candidates[pair].cosine < cosine:
                        transform = AffineTransform.of_crop(crop, mirrored)
                        candidates[pair] = _Candidate(cosine, transform if row == pair[1] else transform.inverse())
                bar.update(1)
    return candidates


def _similar_hashes(
    query_hashes: Floats, reference_hashes: Floats, query_rows: int, *, symmetric: bool
) -> list[tuple[int, int, float]]:
    """List pairs with a cosine of at least MIN_COSINE: row of the query, row of the reference, cosine."""
    matches: list[tuple[int, int, float]] = []
    # Two buffers are reused for all blocks, because allocating 100 MB each time takes longer than filling them.
    scores, is_similar = (np.empty(_BLOCK * len(reference_hashes), dtype=dtype) for dtype in (np.float32, np.bool_))
    with threadpool_limits(available_cores()):
        for start in range(0, len(query_hashes), _BLOCK):
            block = query_hashes[start : start + _BLOCK]
            offset = start if symmetric else 0  # uncropped hashes compare equally in both directions
            width, size = len(reference_hashes) - offset, len(block) * (len(reference_hashes) - offset)
            np.matmul(block, reference_hashes[offset:].T, out=scores[:size].reshape(len(block), width))
            np.greater_equal(scores[:size], MIN_COSINE, out=is_similar[:size])
            indices = np.flatnonzero(is_similar[:size])
            rows, columns = indices // width + start, indices % width + offset
            is_pair = (rows < columns) if symmetric else (rows != columns)
            is_pair &= np.minimum(rows, columns) < query_rows
            cosines = scores[indices[is_pair]]
            matches += zip(rows[is_pair].tolist(), columns[is_pair].tolist(), cosines.tolist(), strict=True)
    return matches


def _indexed_hashes(query_hashes: Floats, index: HashIndex, query_rows: int) -> list[tuple[int, int, float]]:
    """List pairs as `_similar_hashes` does, those that the index finds."""
    matches: list[tuple[int, int, float]] = []
    with threadpool_limits(available_cores()):
        for rows, columns, cosines in index.matches(query_hashes, MIN_COSINE):
            is_pair = (rows != columns) & (np.minimum(rows, columns) < query_rows)
            matches += zip(rows[is_pair].tolist(), columns[is_pair].tolist(), cosines[is_pair].tolist(), strict=True)
    return matches


def _frequency_basis() -> tuple[Floats, np.ndarray, np.ndarray]:
    """Return the cosine basis, which products of two rows are used, and which of those change sign when mirrored.

    Returns:
        (N_FREQUENCIES, THUMBNAIL_SIDE) basis, (N_FREQUENCIES, N_FREQUENCIES) mask of D used products, (D,) mask.
    """
    basis = dct(np.eye(THUMBNAIL_SIDE), norm="ortho", axis=0)[:N_FREQUENCIES].astype(np.float32)
    vertical, horizontal = np.indices((N_FREQUENCIES, N_FREQUENCIES))
    is_used = (vertical + horizontal > 0) & (np.hypot(vertical, horizontal) < N_FREQUENCIES)
    return basis, is_used, horizontal[is_used] % 2 == 1


def _coefficients(thumbnails: np.ndarray, basis: Floats, is_used: np.ndarray, crop: tuple[float, ...]) -> Floats:
    """Return the (N, D) low-frequency coefficients of the cropped images, each row scaled to length 1."""
    top, bottom, left, right = crop
    rows, columns = basis @ _resampling_matrix(top, 1 - bottom), basis @ _resampling_matrix(left, 1 - right)
    coefficients = np.empty((len(thumbnails), int(is_used.sum())), dtype=np.float32)
    for start in range(0, len(thumbnails), _BLOCK):  # in blocks: floats of all images at once would take 400 MB
        block = thumbnails[start : start + _BLOCK].astype(np.float32)
        coefficients[start : start + _BLOCK] = (rows @ block @ columns.T)[:, is_used]
    lengths: Floats = np.linalg.norm(coefficients, axis=1, keepdims=True)
    coefficients /= lengths + 1e-3
    return coefficients


def _contrast(thumbnails: np.ndarray) -> np.ndarray:
    """Return the (N,) standard deviations of thumbnails, gray levels."""
    contrast = np.empty(len(thumbnails))
    for start in range(0, len(thumbnails), _BLOCK):  # in blocks: numpy subtracts the mean in float64
        block = thumbnails[start : start + _BLOCK]
        contrast[start : start + _BLOCK] = block.reshape(len(block), -1).std(axis=1)
    return contrast


def _resampling_matrix(low: float, high: float) -> Floats:
    """Return the (SIDE, SIDE) matrix that linearly resamples the range from `low` to `high`, shares of a side."""
    side = THUMBNAIL_SIDE
    positions = ((low + (high - low) * (np.arange(side) + 0.5) / side) * side - 0.5).clip(0, side - 1)
    before = np.floor(positions).astype(int).clip(0, side - 2)
    matrix = np.zeros((side, side), dtype=np.float32)
    matrix[np.arange(side), before] = 1 - (positions - before)
    matrix[np.arange(side), before + 1] += positions - before
    return matrix


def _whitening(coefficients: Floats, is_used: np.ndarray) -> tuple[Floats, Floats]:
    """Return the mean (D,) and the whitening matrix (D, D) of coefficients, both shrunk to a general spectrum."""
    n_images, width = coefficients.shape
    # Natural images: power falls with the square of the frequency.
    power = 1.0 / np.hypot(*np.indices(is_used.shape))[is_used] ** 2
    spectrum = np.diag(power / power.sum())
    weight = n_images / (n_images + SPECTRUM_PRIOR_WEIGHT)
    mean = weight * coefficients.mean(axis=0) if n_images else np.zeros(width)
    covariance = (coefficients - mean).T @ (coefficients - mean) / max(n_images, 1)
    values, vectors = np.linalg.eigh(weight * covariance + (1 - weight) * spectrum)
    return mean.astype(np.float32), (vectors / np.sqrt(values + 0.02 * values.mean())).astype(np.float32)


def _hash(coefficients: Floats, mean: Floats, whitening: Floats, is_flat: np.ndarray) -> Floats:
    """Whiten coefficients and scale each row to length 1; rows of images without contrast become 0."""
    hashes = (coefficients - mean) @ whitening
    hashes /= np.linalg.norm(hashes, axis=1, keepdims=True) + 1e-6
    hashes[is_flat] = 0
    whitened: Floats = hashes.astype(np.float32, copy=False)
    return whitened
