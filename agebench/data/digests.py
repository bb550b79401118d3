"""Which images are readable, and which are the same: by their bytes and by their pixels."""

import hashlib
from collections.abc import Sequence
from functools import partial

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from agebench.data.image_io import open_image
from agebench.data.readers import Reader
from agebench.data.samples import PHOTOGRAPH, Samples
from agebench.errors import AgebenchError, ImageRejectedError, RejectReason
from agebench.utils.io import atomic_write
from agebench.utils.parallel import parallel_map
from agebench.utils.paths import cache_home
from agebench.utils.progress import progress

# Above this share of unreadable images something is wrong with the copy, not with the pictures.
UNREADABLE_LIMIT = 0.10
# Raise the number when an image is decoded to other pixels, or refused, where it was not before: the digests are remembered.
DECODER = 2
_FOUND = ["bytes_digest", "pixels_digest", "code", "problem"]


def add_digests(reader: Reader, samples: Samples, *, name: str, workers: int | None = None) -> Samples:
    """`samples` with columns `bytes_digest` and `pixels_digest` (hexadecimal); unreadable images go to quarantine.

    Digests are remembered in the cache by path and stamp (size and time of change), so an image is read again only when
    it changed.

    Raises:
        AgebenchError: more than a tenth of the images cannot be read.
    """
    paths = samples.table["path"]
    found = _digests(reader, list(paths.unique()), name, workers)  # several rows may name one image
    table = samples.table.assign(
        bytes_digest=paths.map(found["bytes_digest"]).to_numpy(),
        pixels_digest=paths.map(found["pixels_digest"]).to_numpy(),
    )
    problems, codes = paths.map(found["problem"]), paths.map(found["code"])
    unreadable = codes != ""
    if unreadable.mean() > UNREADABLE_LIMIT:
        first = samples.table[unreadable].iloc[0]
        raise AgebenchError(
            f"{name}: {unreadable.sum()} of {len(samples)} images cannot be read, the first is {first['path']}: "
            f"{problems[unreadable].iloc[0]}. The copy is probably damaged: get it again, then `agebench data add {name} PATH`."
        )
    return Samples(table, samples.groups, samples.rejected).reject(unreadable, problems, codes)


def leakage_groups(table: pd.DataFrame) -> "np.ndarray[tuple[int], np.dtype[np.int64]]":
    """(N,) a number for each row; rows with one number must never stand on both sides of a split.

    Rows belong together when their bytes, their pixels, their subject or the photograph that they are parts of are the
    same, directly or through others.
    """
    rows, keys, used = [], [], 0
    columns = ("bytes_digest", "pixels_digest", "subject", *([PHOTOGRAPH] if PHOTOGRAPH in table else []))
    for column in columns:
        codes, labels = pd.factorize(table[column])  # NA gets -1: unknown subjects are nobody's double
        known = np.flatnonzero(codes >= 0)
        rows.append(known)
        keys.append(codes[known] + used)
        used += len(labels)
    edges = (np.ones(sum(map(len, rows)), dtype=np.int8), (np.concatenate(rows), np.concatenate(keys) + len(table)))
    size = len(table) + used
    _, component = connected_components(coo_array(edges, shape=(size, size)), directed=False)
    return np.unique(component[: len(table)], return_inverse=True)[1].astype(np.int64)


def _digests(reader: Reader, paths: list[str], name: str, workers: int | None) -> pd.DataFrame:
    """Indexed by path: stamp, bytes_digest, pixels_digest, code and problem ("" for an image that can be used)."""
    where = hashlib.sha256(f"{type(reader).__name__} {reader.root}".encode()).hexdigest()[:12]
    store = cache_home() / "digests" / f"{name}-{where}-{DECODER}.parquet"
    wanted = pd.DataFrame({"stamp": [reader.version_token(path) for path in paths]}, index=pd.Index(paths, name="path"))
    known = _remembered(store)
    known = known[known["stamp"] == wanted["stamp"].reindex(known.index)]
    missing = wanted.index.difference(known.index, sort=False)
    if len(missing):
        rows: list[tuple[str, str, str, str]] = []
        with progress(total=len(missing), label=f"{name}: reading images", unit="img") as bar:
            for part in parallel_map(partial(_digest_all, reader), list(missing), workers=workers):
                rows += part
                bar.update(len(part))
        fresh = pd.DataFrame(rows, columns=_FOUND, index=missing)
        known = pd.concat([known, wanted.loc[missing].join(fresh)])
        with atomic_write(store) as temporary:
            known.to_parquet(temporary)
    return known


def _remembered(store: "object") -> pd.DataFrame:
    columns = ["stamp", *_FOUND]
    try:
        found = pd.read_parquet(store)  # type: ignore[call-overload]
        return found[columns]  # type: ignore[no-any-return]
    except (OSError, ValueError, KeyError):  # none yet, or one that a crash or another version left
        return pd.DataFrame(columns=columns, index=pd.Index([], name="path")).astype("str")


def _digest_all(reader: Reader, paths: Sequence[str]) -> list[tuple[str, str, str, str]]:
    return [_digest(reader, path) for path in paths]


def _digest(reader: Reader, path: str) -> tuple[str, str, str, str]:
    try:
        encoded = reader.image_bytes(path)
        image = open_image(encoded)
    except ImageRejectedError as refusal:
        return "", "", str(refusal.reason), str(refusal)
    except OSError as error:
        return "", "", str(RejectReason.UNREADABLE), f"cannot be read: {error.strerror or error}"
    pixels = hashlib.sha256(f"{image.size}".encode() + image.tobytes())
    return hashlib.sha256(encoded).hexdigest(), pixels.hexdigest(), "", ""
