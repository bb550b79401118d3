"""Batches of faces and ages, in an order that is a function of (seed, epoch)."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from agebench.data.faces.cache import FaceCache
from agebench.data.samples import Samples

DENSITY_STD_YEARS = 2.0  # of the kernel that smooths the density of the labels


@dataclass(frozen=True)
class FaceDataset:
    """N faces with their ages: `pixels[rows[i]]` is the face of `ages[i]`.

    Attributes:
        pixels: (M, S, S, C) uint8, usually memory-mapped; C is 3, or 6 if a body follows the face.
        rows: (N,) rows of `pixels`.
        ages: (N,) float32 years.
        labels: auxiliary target -> (N,) int64 class indices, `UNKNOWN` for a face without a label.
        mode: framing of the faces, as `FaceCache.mode`; empty if unknown.
    """

    pixels: np.ndarray
    rows: np.ndarray
    ages: np.ndarray
    labels: Mapping[str, np.ndarray] = field(default_factory=dict)
    mode: str = ""

    def __len__(self) -> int:
        return len(self.rows)


def make_face_dataset(
    faces: FaceCache, samples: Samples, classes: Mapping[str, Sequence[str]] | None = None
) -> FaceDataset:
    """Create the dataset of some samples.

    Args:
        faces: the prepared faces, or features of a frozen backbone.
        samples: the samples to select, with their ages and labels.
        classes: auxiliary target -> its classes; None: no auxiliary targets.
    """
    table = samples.table
    labels = {
        name: pd.Categorical(table[name].astype("str").where(table[name].notna()), categories=list(names)).codes
        for name, names in (classes or {}).items()
    }
    return FaceDataset(
        faces.pixels,
        faces.rows(samples),
        table["age"].to_numpy(dtype=np.float32),
        {name: codes.astype(np.int64) for name, codes in labels.items()},  # pandas' code of a missing label is -1, too
        faces.mode,
    )


def subsample_by_age(data: FaceDataset, count: int) -> FaceDataset:
    """Return a subset of a dataset, evenly spaced in the order of the ages.

    Args:
        data: the dataset.
        count: the largest number of faces of the subset.
    """
    order = np.argsort(data.ages, kind="stable")
    selected = order[np.linspace(0, len(data) - 1, min(count, len(data))).round().astype(int)]
    return FaceDataset(data.pixels, data.rows[selected], data.ages[selected])


def derive_seed(*parts: int | str) -> int:
    """Return a 63-bit seed that is a function of its arguments.

    Args:
        parts: what identifies one random decision, e.g. the run's seed, a purpose and a step.
    """
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8], "little") >> 1


def iter_batches(
    data: FaceDataset, order: np.ndarray, size: int, device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield batches of a dataset on a device.

    A thread gathers the next batch from the cache meanwhile.

    Args:
        data: the dataset.
        order: indices into the dataset.
        size: the size of a batch; the last one may be smaller.
        device: the device of the batches.

    Yields:
        (B, S, S, C) uint8 faces, or (B, views, D) features, and (B,) float32 ages.
    """
    index_batches = [order[start : start + size] for start in range(0, len(order), size)]
    with ThreadPoolExecutor(1) as executor:
        pending = executor.submit(_gather, data, index_batches[0], device) if index_batches else None
        for indices in [*index_batches[1:], None]:
            assert pending is not None
            faces, ages = pending.result()
            pending = executor.submit(_gather, data, indices, device) if indices is not None else None
            yield faces.to(device, non_blocking=True), ages.to(device, non_blocking=True)


def epoch_order(count: int, *, seed: int, epoch: int) -> np.ndarray:
    """Return a random order (count,) of the faces for one epoch.

    Args:
        count: the number of faces.
        seed: the run's seed.
        epoch: the epoch, from 1.
    """
    return np.random.default_rng(derive_seed(seed, "order", epoch)).permutation(count)


def balanced_order(ages: np.ndarray, balance: float, *, seed: int, epoch: int) -> np.ndarray:
    """Return a random order (N,) of the faces for one epoch, in which rare ages come more often.

    A face is drawn with a probability in proportion to density(age) ** -balance. The density is that of the labels, smoothed
    by a normal kernel (Yang, Zha, Chen, Wang, Katabi: Delving into Deep Imbalanced Regression. ICML 2021). Draws are systematic:
    each face comes as often as expected, rounded up or down.

    Args:
        ages: (N,) labels, years.
        balance: 0: each face once; 1: all ages equally often.
        seed: the run's seed.
        epoch: the epoch, from 1.
    """
    rng = np.random.default_rng(derive_seed(seed, "balanced order", epoch))
    years = np.floor(ages).astype(int)
    years -= years.min()
    counts = np.bincount(years)
    distance = np.arange(len(counts))[:, None] - np.arange(len(counts))
    kernel = np.exp(-(distance**2) / (2 * DENSITY_STD_YEARS**2))
    density = (kernel / kernel.sum(axis=1, keepdims=True)) @ counts
    # Shuffled first, so that rounding favors no face.
    order = rng.permutation(len(ages))
    weights = density[years[order]] ** -balance
    expected = np.cumsum(weights / weights.sum()) * len(ages)
    drawn = np.searchsorted(expected, np.arange(len(ages)) + rng.random(), side="right").clip(max=len(ages) - 1)
    return rng.permutation(order[drawn])


def _gather(data: FaceDataset, indices: np.ndarray, device: torch.device) -> tuple[Tensor, Tensor]:
    faces, ages = torch.from_numpy(data.pixels[data.rows[indices]]), torch.from_numpy(data.ages[indices])
    return (faces.pin_memory(), ages.pin_memory()) if device.type == "cuda" else (faces, ages)
