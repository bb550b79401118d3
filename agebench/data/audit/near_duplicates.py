"""Near duplicates among many images: candidates by a perceptual hash of all pairs, then each pair laid over the other.

The hash is the low spatial frequencies of a small grey picture, whitened over the collection: whitening takes out what all
aligned faces have in common, so that two people are about as far apart as chance has it. It is kept in real numbers rather than
in bits, because one matrix product then compares all pairs, mirrored and cropped ones too.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.fft import dct
from threadpoolctl import threadpool_limits

from agebench.data.audit.registration import AffineTransform, register_pairs
from agebench.data.audit.thumbnails import THUMBNAIL_SIDE
from agebench.utils.parallel import available_cores
from agebench.utils.progress import progress

Floats = np.ndarray[Any, np.dtype[np.float32]]

N_FREQUENCIES = 10
# Cosine of two hashes from which a pair is looked at; of planted copies with up to a tenth cut off each side 99 % are above.
MIN_COSINE = 0.62
# A small collection does not know what its images have in common: so many images' weight has the general spectrum.
SPECTRUM_PRIOR_WEIGHT = 200
_BLOCK = 1024
# What may have been cut off (top, bottom, left, right), as shares of the side.
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
        first, second: (P,) rows of the images; first < second.
        likeness: (P,) correlation of fine detail once the one lies over the other; 1: the same.
        mirrored: (P,) whether one is the other's mirror image.
    """

    first: np.ndarray
    second: np.ndarray
    similarity: np.ndarray
    mirrored: np.ndarray

    def __len__(self) -> int:
        return len(self.first)


def near_duplicates(small: np.ndarray, *, border: int | None = None) -> tuple[DuplicatePairs, list[AffineTransform]]:
    """The pairs among `small` (N, SIDE, SIDE) uint8 whose detail coincides, and how the second lies over the first.

    `border`: only pairs with the first image before this row are asked for (a second dataset stands behind it).
    Images without contrast are nobody's double here.
    """
    found = _candidates(small, len(small) if border is None else border)
    order = sorted(found)
    first, second = (np.array([pair[side] for pair in order], dtype=np.int64) for side in (0, 1))
    starts = [found[pair][1] for pair in order]
    placements, likeness = register_pairs(small, first, second, starts)
    return DuplicatePairs(
        first, second, likeness, np.array([start.mirrored for start in starts], dtype=bool)
    ), placements


def _candidates(small: np.ndarray, border: int) -> dict[tuple[int, int], tuple[float, AffineTransform]]:
    """(first, second) -> the best cosine, and the crop and mirroring that gave it."""
    basis, keep, odd = _frequencies()
    plain = _coefficients(small, basis, keep, _CROPS[0])
    flat = small.reshape(len(small), -1).std(axis=1) < 2.0
    mean, whiten = _whitening(plain[~flat])
    base = _hash(plain, mean, whiten, flat)
    sign = np.where(odd, -1, 1).astype(np.float32)
    best: dict[tuple[int, int], tuple[float, AffineTransform]] = {}
    with progress(total=2 * len(_CROPS), label="comparing all pairs", unit="pass") as bar:
        for crop in _CROPS:
            cut = plain if crop == _CROPS[0] else _coefficients(small, basis, keep, crop)
            for mirrored in (False, True):
                other = _hash(cut * sign if mirrored else cut, mean, whiten, flat)
                for row, column, cosine in _above(other, base, border, symmetric=crop == _CROPS[0]):
                    # `row` was cut, so it shows more: it is the moving image, laid over `column`.
                    _keep(best, row, column, cosine, crop, mirrored)
                bar.update(1)
    return best


def _keep(
    best: dict[tuple[int, int], tuple[float, AffineTransform]],
    row: int,
    column: int,
    cosine: float,
    crop: tuple[float, float, float, float],
    mirrored: bool,
) -> None:
    pair = (min(row, column), max(row, column))
    if pair not in best or best[pair][0] < cosine:
        placement = AffineTransform.of_crop(crop, mirrored)
        best[pair] = (cosine, placement if row == pair[1] else placement.inverse())


def _above(other: Floats, base: Floats, border: int, *, symmetric: bool) -> "list[tuple[int, int, float]]":
    """Pairs whose cosine is at least CANDIDATE: a row of `other`, a row of `base`, the cosine."""
    found: list[tuple[int, int, float]] = []
    # Two buffers for all blocks: giving 100 MB back and asking for them again takes longer than filling them.
    scores, high = (np.empty(_BLOCK * len(base), dtype=kind) for kind in (np.float32, np.bool_))
    with threadpool_limits(available_cores()):
        for start in range(0, len(other), _BLOCK):
            block = other[start : start + _BLOCK]
            first = start if symmetric else 0  # uncropped hashes compare alike from either side: half of them will do
            width, size = len(base) - first, len(block) * (len(base) - first)
            np.matmul(block, base[first:].T, out=scores[:size].reshape(len(block), width))
            np.greater_equal(scores[:size], MIN_COSINE, out=high[:size])
            places = np.flatnonzero(high[:size])
            rows, columns = places // width + start, places % width + first
            wanted = (rows < columns) if symmetric else (rows != columns)
            wanted &= np.minimum(rows, columns) < border
            values = scores[places[wanted]]
            found += zip(rows[wanted].tolist(), columns[wanted].tolist(), values.tolist(), strict=True)
    return found


def _frequencies() -> "tuple[Floats, np.ndarray, np.ndarray]":
    """The cosine basis (FREQUENCIES, SIDE), which products of two of its rows are used, which of those mirroring negates."""
    basis = dct(np.eye(THUMBNAIL_SIDE), norm="ortho", axis=0)[:N_FREQUENCIES].astype(np.float32)
    vertical, horizontal = np.indices((N_FREQUENCIES, N_FREQUENCIES))
    keep = (vertical + horizontal > 0) & (np.hypot(vertical, horizontal) < N_FREQUENCIES)
    return basis, keep, horizontal[keep] % 2 == 1


def _coefficients(small: np.ndarray, basis: Floats, keep: np.ndarray, crop: tuple[float, ...]) -> Floats:
    """(N, D) the low frequencies of the images with `crop` cut off, each scaled to length 1."""
    top, bottom, left, right = crop
    rows, columns = basis @ _resample(top, 1 - bottom), basis @ _resample(left, 1 - right)
    made = np.empty((len(small), int(keep.sum())), dtype=np.float32)
    for start in range(0, len(small), _BLOCK):  # in blocks: floats of all images at once would take 400 MB
        part = small[start : start + _BLOCK].astype(np.float32)
        made[start : start + _BLOCK] = (rows @ part @ columns.T)[:, keep]
    length: Floats = np.linalg.norm(made, axis=1, keepdims=True)
    made /= length + 1e-3
    return made


def _resample(low: float, high: float) -> Floats:
    """(SIDE, SIDE) what samples the part from `low` to `high` of a side linearly."""
    place = ((low + (high - low) * (np.arange(THUMBNAIL_SIDE) + 0.5) / THUMBNAIL_SIDE) * THUMBNAIL_SIDE - 0.5).clip(
        0, THUMBNAIL_SIDE - 1
    )
    before = np.floor(place).astype(int).clip(0, THUMBNAIL_SIDE - 2)
    made = np.zeros((THUMBNAIL_SIDE, THUMBNAIL_SIDE), dtype=np.float32)
    made[np.arange(THUMBNAIL_SIDE), before] = 1 - (place - before)
    made[np.arange(THUMBNAIL_SIDE), before + 1] += place - before
    return made


def _whitening(coefficients: Floats) -> tuple[Floats, Floats]:
    """Mean (D,) and (D, D) matrix after which coefficients are uncorrelated, both drawn to a general spectrum."""
    count, width = coefficients.shape
    _, keep, _ = _frequencies()
    power = (
        1.0 / np.hypot(*np.indices(keep.shape))[keep] ** 2
    )  # what natural images have: power falls with frequency squared
    spectrum = np.diag(power / power.sum())
    weight = count / (count + SPECTRUM_PRIOR_WEIGHT)
    mean = weight * coefficients.mean(axis=0) if count else np.zeros(width)
    spread = (coefficients - mean).T @ (coefficients - mean) / max(count, 1)
    values, vectors = np.linalg.eigh(weight * spread + (1 - weight) * spectrum)
    return mean.astype(np.float32), (vectors / np.sqrt(values + 0.02 * values.mean())).astype(np.float32)


def _hash(coefficients: Floats, mean: Floats, whiten: Floats, flat: np.ndarray) -> Floats:
    hashes = (coefficients - mean) @ whiten
    hashes /= np.linalg.norm(hashes, axis=1, keepdims=True) + 1e-6
    hashes[flat] = 0
    whitened: Floats = hashes.astype(np.float32, copy=False)
    return whitened
