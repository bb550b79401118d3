"""Digests of images: which images are readable, and which have the same bytes or the same pixels."""

import hashlib
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from agebench.data.image_io import open_image
from agebench.data.image_values import load_or_compute
from agebench.data.readers import Reader
from agebench.data.reject_reasons import FAILURES_TO_READ
from agebench.data.samples import PHOTOGRAPH, Samples
from agebench.errors import AgebenchError, ImageRejectedError
from agebench.types import RejectReason
from agebench.utils.paths import cache_home

# Largest share of unreadable images; above it the copy of the dataset is damaged rather than single images.
UNREADABLE_LIMIT = 0.10
# Version of the stored digests. Raise it when an image is decoded to other pixels, or newly accepted or rejected.
DECODER = 2
_STORED = ["bytes_digest", "pixels_digest", "code", "problem"]


class _ImageDigests(NamedTuple):
    """Digests of one image, or the code and the description of why it cannot be read."""

    bytes_digest: str = ""
    pixels_digest: str = ""
    code: str = ""
    problem: str = ""


def add_digests(reader: Reader, samples: Samples, *, name: str, workers: int | None = None) -> Samples:
    """Add SHA-256 digests of bytes and pixels, and reject unreadable images.

    The new columns are `bytes_digest` and `pixels_digest`, hexadecimal.

    Digests are cached by path and version token (size and modification time), so an image is only read again after it
    changed, or if it could not be read at all (missing rights, a lost mount, an address without an answer).

    Args:
        reader: reader of the dataset.
        samples: samples of the dataset.
        name: name of the dataset, for the cache and error messages.
        workers: processes; None for one per core.

    Raises:
        AgebenchError: more than a tenth of the images cannot be read.
    """
    paths = samples.table["path"]
    digests = _load_or_compute(reader, list(paths.unique()), name, workers)  # several rows may name one image
    table = samples.table.assign(
        bytes_digest=paths.map(digests["bytes_digest"]).to_numpy(),
        pixels_digest=paths.map(digests["pixels_digest"]).to_numpy(),
    )
    problems, codes = paths.map(digests["problem"]), paths.map(digests["code"])
    is_unreadable = codes != ""
    if is_unreadable.mean() > UNREADABLE_LIMIT:
        first = samples.table[is_unreadable].iloc[0]
        advice = "The copy is probably damaged: get it again"
        if codes[is_unreadable].isin(FAILURES_TO_READ).all():
            advice = "The next call tries them again; if they still cannot be read, get the copy again"
        raise AgebenchError(
            f"{name}: {is_unreadable.sum()} of {len(samples)} images cannot be read, the first is {first['path']}: "
            f"{problems[is_unreadable].iloc[0]}. {advice}, then `agebench data import {name} PATH`."
        )
    return Samples(table, samples.groups, samples.rejected).reject(is_unreadable, problems, codes)


def leakage_groups(table: pd.DataFrame) -> "np.ndarray[tuple[int], np.dtype[np.int64]]":
    """Group the rows that must not be in different splits.

    Rows are in one group if they share their bytes, their pixels, their subject or the photograph that they are parts of,
    directly or through other rows.

    Args:
        table: samples with digests.

    Returns:
        (N,) group of each row, 0, 1, ….
    """
    rows, keys, n_keys = [], [], 0
    columns = ("bytes_digest", "pixels_digest", "subject", *([PHOTOGRAPH] if PHOTOGRAPH in table else []))
    for column in columns:
        codes, labels = pd.factorize(table[column])  # NA has the code -1: unknown subjects connect no rows
        known_rows = np.flatnonzero(codes >= 0)
        rows.append(known_rows)
        keys.append(codes[known_rows] + n_keys)
        n_keys += len(labels)
    edges = (np.ones(sum(map(len, rows)), dtype=np.int8), (np.concatenate(rows), np.concatenate(keys) + len(table)))
    size = len(table) + n_keys
    _, components = connected_components(coo_array(edges, shape=(size, size)), directed=False)
    return np.unique(components[: len(table)], return_inverse=True)[1].astype(np.int64)


def _load_or_compute(reader: Reader, paths: list[str], name: str, workers: int | None) -> pd.DataFrame:
    """Return stamp, bytes_digest, pixels_digest, code and problem ("" for a readable image) by path."""
    source = hashlib.sha256(f"{type(reader).__name__} {reader.root}".encode()).hexdigest()[:12]
    file = cache_home() / "digests" / f"{name}-{source}-{DECODER}.parquet"
    return load_or_compute(
        reader, paths, file, _STORED, _digest_image, _failed_to_read, label=f"{name}: reading images", workers=workers
    )


def _failed_to_read(digests: pd.DataFrame) -> "pd.Series[bool]":
    return digests["code"].isin(FAILURES_TO_READ)


def _digest_image(reader: Reader, path: str) -> _ImageDigests:
    try:
        encoded = reader.image_bytes(path)
        image = open_image(encoded)
    except ImageRejectedError as rejection:
        return _ImageDigests(code=str(rejection.reason), problem=str(rejection))
    except OSError as error:
        return _ImageDigests(code=str(RejectReason.UNREADABLE), problem=f"cannot be read: {error.strerror or error}")
    pixels = hashlib.sha256(f"{image.size}".encode() + image.tobytes())
    return _ImageDigests(hashlib.sha256(encoded).hexdigest(), pixels.hexdigest())
