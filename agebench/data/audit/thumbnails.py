"""Thumbnails of images for comparison, and measures of image quality; both are cached."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from PIL import Image
from scipy.ndimage import gaussian_filter

from agebench.data.image_io import open_image
from agebench.data.image_values import load_or_compute
from agebench.data.readers import Reader
from agebench.errors import ImageRejectedError
from agebench.utils.paths import cache_home

THUMBNAIL_SIDE = 64
# Version of the stored thumbnails. Raise it when the same image gives other values than before.
VERSION = 1
_MEASURES = ("width", "height", "contrast", "sharpness", "chroma")
# Bytes of the thumbnail, and the values of `_MEASURES`.
_Signature = tuple[bytes, float, float, float, float, float]


@dataclass(frozen=True)
class Thumbnails:
    """Thumbnails and quality measures of a dataset's images, row by row.

    Attributes:
        thumbnails: (N, THUMBNAIL_SIDE, THUMBNAIL_SIDE) uint8 gray, each whole image resized to a square.
        quality: N rows. width, height: pixels. contrast: standard deviation of the thumbnail, gray levels. sharpness: ratio
            of the finest to coarser detail, low for an enlarged or blurred image. chroma: spatial variation of color, about
            0 for a gray or evenly tinted image.
    """

    thumbnails: np.ndarray
    quality: pd.DataFrame


def compute_thumbnails(reader: Reader, paths: Sequence[str], *, name: str, workers: int | None = None) -> Thumbnails:
    """Compute or load the thumbnails and quality measures of readable images.

    They are cached by path and version token (size and modification time).

    Args:
        reader: reader of the dataset.
        paths: paths of the images, from the samples' column `path`.
        name: name of the dataset, for the cache.
        workers: processes; None for one per core.
    """
    source = hashlib.sha256(f"{type(reader).__name__} {reader.root} {VERSION}".encode()).hexdigest()[:12]
    file = cache_home() / "signatures" / f"{name}-{source}.parquet"
    signatures = load_or_compute(
        reader,
        list(dict.fromkeys(paths)),
        file,
        ["small", *_MEASURES],
        _compute_signature,
        _is_placeholder,
        label=f"{name}: looking at images",
        workers=workers,
    )
    signatures = signatures.loc[list(paths)]
    pixels = np.frombuffer(b"".join(signatures["small"]), dtype=np.uint8)
    quality = signatures[list(_MEASURES)].astype("float64").reset_index(drop=True)
    return Thumbnails(pixels.reshape(-1, THUMBNAIL_SIDE, THUMBNAIL_SIDE), quality)


def to_gray_square(image: Image.Image, side: int) -> np.ndarray:
    """Resize a whole image to a gray square.

    Args:
        image: an RGB image.
        side: side of the square, pixels.

    Returns:
        (side, side) uint8.
    """
    # Enlarging bilinearly and reducing by area averages give the same result for copies of different sizes.
    resampling = Image.Resampling.BOX if min(image.size) >= side else Image.Resampling.BILINEAR
    return np.asarray(image.convert("L").resize((side, side), resampling))


def _is_placeholder(signatures: pd.DataFrame) -> "pd.Series[bool]":
    """Find the black thumbnails of images that could not be read; only they have no width."""
    return signatures["width"] == 0


def _compute_signature(reader: Reader, path: str) -> _Signature:
    try:
        image = open_image(reader.image_bytes(path))
    except (ImageRejectedError, OSError):  # removed or changed after its digests were computed
        return bytes(THUMBNAIL_SIDE * THUMBNAIL_SIDE), 0.0, 0.0, 0.0, 0.0, 0.0
    thumbnail = to_gray_square(image, THUMBNAIL_SIDE)
    width, height = image.size
    image.thumbnail((2 * THUMBNAIL_SIDE, 2 * THUMBNAIL_SIDE), Image.Resampling.BILINEAR)
    pixels = np.asarray(image, dtype=np.float32)
    luminance = pixels.mean(axis=2)
    fine, coarse = gaussian_filter(luminance, 0.8), gaussian_filter(luminance, 3.0)
    sharpness = float((luminance - fine).std() / ((fine - coarse).std() + 1e-3))
    chroma = float(max((pixels[..., 0] - pixels[..., 1]).std(), (pixels[..., 1] - pixels[..., 2]).std()))
    return thumbnail.tobytes(), float(width), float(height), float(thumbnail.std()), sharpness, chroma
