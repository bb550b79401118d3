"""Image statistics of a random sample of a dataset."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image, ImageOps

from agebench.analysis.eda.schema import ImageSummary, StatisticRange
from agebench.config.cards.dataset import DatasetCard
from agebench.data.faces.alignment import AlignmentSpec, align_or_crop
from agebench.data.image_io import open_image
from agebench.data.readers import Reader
from agebench.data.samples import Samples
from agebench.errors import ImageRejectedError
from agebench.utils.parallel import available_cores
from agebench.utils.progress import progress

SAMPLE_SIZE, N_THUMBNAILS = 800, 40
THUMBNAIL_PIXELS, FACE_PIXELS = 120, 96
# Titles of the statistics, with their unit.
IMAGE_STATS = {
    "brightness": "brightness (mean gray level, 0 to 255)",
    "contrast": "contrast (standard deviation of gray levels)",
    "sharpness": "sharpness (mean difference of neighboring pixels, gray levels)",
    "colour": "colorfulness (mean distance from gray, levels)",
}


@dataclass(frozen=True)
class ImageSample:
    """A random sample of a dataset's images.

    Attributes:
        table: one row per readable image: the labels, width and height in pixels, the `IMAGE_STATS` at 120 pixels, and
            `grey` for images without color.
        thumbnails: (k, 120, 120, 3) uint8, the first k images, padded to a square.
        faces: (n, 96, 96, 3) uint8, the aligned faces, or None if faces must be detected first.
        face_rows: (n,) the row of `table` of each face; images without landmarks or a box have none.
    """

    table: pd.DataFrame
    thumbnails: np.ndarray
    faces: np.ndarray | None
    face_rows: np.ndarray

    def summary(self) -> ImageSummary:
        """Return the median, 5 % and 95 % quantiles of each statistic."""
        table = self.table
        if not len(table):
            return ImageSummary(n=0)
        statistics = {}
        for column in ("width", "height", *IMAGE_STATS):
            quantiles = np.quantile(table[column].to_numpy(float), (0.05, 0.5, 0.95))
            low, middle, high = (round(float(value), 2) for value in quantiles)
            statistics[column] = StatisticRange(p5=low, median=middle, p95=high)
        return ImageSummary(n=len(table), grey=float(table["grey"].mean()), **statistics)


def sample_images(
    reader: Reader, samples: Samples, card: DatasetCard, *, seed: int, count: int = SAMPLE_SIZE
) -> ImageSample:
    """Measure random images of a dataset; unreadable images are omitted, because the audit reports them.

    Args:
        reader: the dataset's reader.
        samples: the images to sample from.
        card: the dataset's card, which specifies the face alignment.
        seed: the seed of the sample.
        count: the maximum number of images.

    Returns:
        The statistics, thumbnails and aligned faces.
    """
    chosen = np.random.default_rng([seed, 0x100C]).permutation(len(samples))[:count]
    table = samples.table.iloc[chosen]
    spec = None if card.faces == "detect" else AlignmentSpec(card.faces, FACE_PIXELS, 1.0, card.landmark_points)
    landmarks = table["landmarks"] if "landmarks" in table else pd.Series([None] * len(table), index=table.index)

    def measure(path: str, points: Sequence[float] | None) -> _Measurement | None:
        try:
            image = open_image(reader.image_bytes(path))
        except (ImageRejectedError, OSError):
            return None
        face = None
        with suppress(ImageRejectedError):
            face = align_or_crop(image, spec, points) if spec else None
        return _measure(image, face)

    rows: list[Any] = []
    stats: list[dict[str, float]] = []
    thumbnails: list[np.ndarray] = []
    faces: list[np.ndarray] = []
    face_rows: list[int] = []
    with ThreadPoolExecutor(available_cores()) as pool:  # threads, because decoding and resizing release the GIL
        results = pool.map(measure, table["path"], landmarks)
        bar = progress(results, total=len(table), label=f"{card.name}: image statistics", unit="img")
        for row, measurement in zip(table.index, bar, strict=True):
            if measurement is None:
                continue
            rows.append(row)
            stats.append(measurement.stats)
            if len(thumbnails) < N_THUMBNAILS:
                size = (THUMBNAIL_PIXELS, THUMBNAIL_PIXELS)
                thumbnails.append(np.asarray(ImageOps.pad(measurement.thumbnail, size, color="white")))
            if measurement.face is not None:
                faces.append(measurement.face)
                face_rows.append(len(rows) - 1)
    columns = ["width", "height", *IMAGE_STATS, "grey"]
    measured = table.loc[rows].reset_index(drop=True).join(pd.DataFrame(stats, columns=columns))
    stacked = np.array(faces, np.uint8) if faces else None
    return ImageSample(measured, np.array(thumbnails, np.uint8), stacked, np.array(face_rows, np.int64))


def mean_face_by_group(faces: np.ndarray, codes: np.ndarray, *, min_faces: int = 8) -> dict[int, np.ndarray]:
    """Compute the mean face of each group.

    Args:
        faces: (n, S, S, 3) uint8.
        codes: (n,) group codes, -1 for no group.
        min_faces: groups with fewer faces are omitted.

    Returns:
        The mean faces (S, S, 3) uint8 by code.
    """
    means = {}
    for code in np.unique(codes[codes >= 0]):
        members = faces[codes == code]
        if len(members) >= min_faces:
            means[int(code)] = members.mean(axis=0).astype(np.uint8)
    return means


@dataclass(frozen=True)
class _Measurement:
    """The data that are kept of one image; the memory does not suffice for 800 whole photographs."""

    thumbnail: Image.Image
    stats: dict[str, float]
    face: np.ndarray | None


def _measure(image: Image.Image, face: np.ndarray | None) -> _Measurement:
    scale = min(1.0, THUMBNAIL_PIXELS / max(image.size))
    width, height = (max(1, round(side * scale)) for side in image.size)
    thumbnail = image.resize((width, height), Image.Resampling.BOX)
    return _Measurement(thumbnail, {"width": image.width, "height": image.height, **_image_stats(thumbnail)}, face)


def _image_stats(image: Image.Image) -> dict[str, float]:
    pixels = np.asarray(image, np.float32)
    gray = pixels @ np.array([0.299, 0.587, 0.114], np.float32)
    differences = [np.abs(np.diff(gray, axis=axis)).mean() for axis in (0, 1) if gray.shape[axis] > 1]
    colorfulness = np.abs(pixels - pixels.mean(axis=2, keepdims=True)).mean()
    return {
        "brightness": float(gray.mean()),
        "contrast": float(gray.std()),
        "sharpness": float(np.mean(differences)) if differences else 0.0,
        "colour": float(colorfulness),
        "grey": float(colorfulness < 0.5),
    }
