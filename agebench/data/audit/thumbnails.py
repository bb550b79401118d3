"""What an audit remembers of each image: a small grey picture to compare, and what says whether a face can be seen."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
from PIL import Image
from scipy.ndimage import gaussian_filter

from agebench.data.image_io import open_image
from agebench.data.readers import Reader
from agebench.errors import ImageRejectedError
from agebench.utils.io import atomic_write
from agebench.utils.parallel import parallel_map
from agebench.utils.paths import cache_home
from agebench.utils.progress import progress

THUMBNAIL_SIDE = 64
# Raise it when the same image gives other numbers than before.
VERSION = 1
_MEASURES = ("width", "height", "contrast", "sharpness", "chroma")


@dataclass(frozen=True)
class Thumbnails:
    """Signatures of a dataset's images, row by row.

    Attributes:
        small: (N, SIDE, SIDE) uint8 grey, each whole image squeezed into a square.
        measures: (N) width and height in pixels; contrast: standard deviation of `small`; sharpness: finest detail over
            coarser detail, low where an image was enlarged or is out of focus; chroma: how much the colour varies from place
            to place, about 0 for a grey or evenly tinted image.
    """

    thumbnails: np.ndarray
    quality: pd.DataFrame


def compute_thumbnails(reader: Reader, paths: Sequence[str], *, name: str, workers: int | None = None) -> Thumbnails:
    """The signatures of readable images, remembered in the cache by path and stamp as digests are."""
    where = hashlib.sha256(f"{type(reader).__name__} {reader.root} {VERSION}".encode()).hexdigest()[:12]
    store = cache_home() / "signatures" / f"{name}-{where}.parquet"
    wanted = pd.DataFrame({"stamp": [reader.version_token(path) for path in paths]}, index=pd.Index(paths, name="path"))
    known = _remembered(store)
    known = known[known["stamp"] == wanted["stamp"].reindex(known.index)]
    missing = wanted.index.difference(known.index, sort=False)
    if len(missing):
        rows: list[tuple[bytes, float, float, float, float, float]] = []
        with progress(total=len(missing), label=f"{name}: looking at images", unit="img") as bar:
            for part in parallel_map(partial(_all_of, reader), list(missing), workers=workers):
                rows += part
                bar.update(len(part))
        fresh = pd.DataFrame(rows, columns=["small", *_MEASURES], index=missing)
        known = pd.concat([known, wanted.loc[missing].join(fresh)]) if len(known) else wanted.loc[missing].join(fresh)
        with atomic_write(store) as temporary:
            known.to_parquet(temporary)
    found = known.loc[list(paths)]
    small = np.frombuffer(b"".join(found["small"]), dtype=np.uint8).reshape(-1, THUMBNAIL_SIDE, THUMBNAIL_SIDE)
    return Thumbnails(small, found[list(_MEASURES)].astype("float64").reset_index(drop=True))


def to_gray_square(image: Image.Image, side: int) -> np.ndarray:
    """(side, side) uint8: the whole image, grey, squeezed into a square."""
    # Enlarged bilinearly, reduced by areas: a copy in another size then gives the same picture.
    way = Image.Resampling.BOX if min(image.size) >= side else Image.Resampling.BILINEAR
    return np.asarray(image.convert("L").resize((side, side), way))


def _all_of(reader: Reader, paths: Sequence[str]) -> list[tuple[bytes, float, float, float, float, float]]:
    return [_signature(reader, path) for path in paths]


def _signature(reader: Reader, path: str) -> tuple[bytes, float, float, float, float, float]:
    try:
        image = open_image(reader.image_bytes(path))
    except (ImageRejectedError, OSError):  # gone since the audit of digests read it: nothing to compare
        return bytes(THUMBNAIL_SIDE * THUMBNAIL_SIDE), 0.0, 0.0, 0.0, 0.0, 0.0
    small = to_gray_square(image, THUMBNAIL_SIDE)
    width, height = image.size
    image.thumbnail((2 * THUMBNAIL_SIDE, 2 * THUMBNAIL_SIDE), Image.Resampling.BILINEAR)
    pixels = np.asarray(image, dtype=np.float32)
    light = pixels.mean(axis=2)
    fine, coarse = gaussian_filter(light, 0.8), gaussian_filter(light, 3.0)
    sharpness = float((light - fine).std() / ((fine - coarse).std() + 1e-3))
    chroma = float(max((pixels[..., 0] - pixels[..., 1]).std(), (pixels[..., 1] - pixels[..., 2]).std()))
    return small.tobytes(), float(width), float(height), float(small.std()), sharpness, chroma


def _remembered(store: "object") -> pd.DataFrame:
    columns = ["stamp", "small", *_MEASURES]
    try:
        return pd.read_parquet(store)[columns]  # type: ignore[call-overload, no-any-return]
    except (OSError, ValueError, KeyError):  # none yet, or one that a crash or another version left
        return pd.DataFrame(columns=columns, index=pd.Index([], name="path"))
