"""Batches of faces and ages, in an order that only (seed, epoch) decides."""

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


@dataclass(frozen=True)
class FaceDataset:
    """Faces with their ages: `pixels[rows[i]]` belongs to `ages[i]`.

    Attributes:
        pixels: (M, S, S, C) uint8, usually memory-mapped; C is 3, or 6 where a body follows the face.
        rows: (N,) rows of `pixels`.
        ages: (N,) float32 years.
        labels: target beside age -> (N,) int64 places among its classes, `UNKNOWN` where there is no label.
    """

    pixels: np.ndarray
    rows: np.ndarray
    ages: np.ndarray
    labels: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.rows)


def make_face_dataset(
    faces: FaceCache, samples: Samples, classes: Mapping[str, Sequence[str]] | None = None
) -> FaceDataset:
    """The faces and ages of `samples`, and their labels of the targets whose `classes` are given."""
    table = samples.table
    labels = {
        name: pd.Categorical(table[name].astype("str").where(table[name].notna()), categories=list(known)).codes
        for name, known in (classes or {}).items()
    }
    return FaceDataset(
        faces.pixels,
        faces.rows(samples),
        table["age"].to_numpy(dtype=np.float32),
        {name: codes.astype(np.int64) for name, codes in labels.items()},  # pandas too says -1 where there is none
    )


def subsample_by_age(data: FaceDataset, count: int) -> FaceDataset:
    """`count` faces of `data`, evenly over its ages in their order."""
    order = np.argsort(data.ages, kind="stable")
    chosen = order[np.linspace(0, len(data) - 1, min(count, len(data))).round().astype(int)]
    return FaceDataset(data.pixels, data.rows[chosen], data.ages[chosen])


def derive_seed(*parts: int | str) -> int:
    """A 63-bit seed from anything that tells one random decision from another."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8], "little") >> 1


def iter_batches(
    data: FaceDataset, order: np.ndarray, size: int, device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    """(B, S, S, 3) uint8 faces and (B,) float32 ages of `data` in `order`, on the device; the last batch may be smaller.

    The next batch is gathered from the cache while this one is worked on.
    """
    pieces = [order[start : start + size] for start in range(0, len(order), size)]
    with ThreadPoolExecutor(1) as gatherer:
        ahead = gatherer.submit(_gather, data, pieces[0], device) if pieces else None
        for following in [*pieces[1:], None]:
            assert ahead is not None
            faces, ages = ahead.result()
            ahead = gatherer.submit(_gather, data, following, device) if following is not None else None
            yield faces.to(device, non_blocking=True), ages.to(device, non_blocking=True)


def epoch_order(count: int, *, seed: int, epoch: int) -> np.ndarray:
    """(count,) the order of one epoch."""
    return np.random.default_rng(derive_seed(seed, "order", epoch)).permutation(count)


def _gather(data: FaceDataset, chosen: np.ndarray, device: torch.device) -> tuple[Tensor, Tensor]:
    faces, ages = torch.from_numpy(data.pixels[data.rows[chosen]]), torch.from_numpy(data.ages[chosen])
    return (faces.pin_memory(), ages.pin_memory()) if device.type == "cuda" else (faces, ages)
