"""What a dataset's images are like, by a random sample of them."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image, ImageOps

from agebench.config.cards.base import DatasetCard
from agebench.data.faces.alignment import AlignmentSpec, align_or_crop
from agebench.data.image_io import open_image
from agebench.data.readers import Reader
from agebench.data.samples import Samples
from agebench.errors import ImageRejectedError
from agebench.utils.parallel import available_cores
from agebench.utils.progress import progress

SAMPLE, SHOWN = 800, 40
THUMB, FACE = 120, 96
# Measures of one image -> what they are called, with their unit.
IMAGE_STATS = {
    "brightness": "brightness (mean grey level, 0 to 255)",
    "contrast": "contrast (standard deviation of grey levels)",
    "sharpness": "sharpness (mean step between neighbouring pixels, grey levels)",
    "colour": "colourfulness (mean distance from grey, levels)",
}


@dataclass(frozen=True)
class ImageSample:
    """A random sample of a dataset's images.

    Attributes:
        table: one row an image that could be opened: age, gender, race and further labels, width and height in pixels, the
            `MEASURES`, and `grey` for images without colour. Measures are taken at 120 pixels.
        thumbs: (k, 120, 120, 3) uint8: the first of them, whole, padded to a square.
        faces: (n, 96, 96, 3) uint8 on the template, or None where faces would have to be detected first.
    """

    table: pd.DataFrame
    thumbnails: np.ndarray
    faces: np.ndarray | None

    def summary(self) -> dict[str, Any]:
        """Medians and ranges of what was measured."""
        table = self.table
        if not len(table):
            return {"n": 0}
        found: dict[str, Any] = {"n": len(table), "grey": float(table["grey"].mean())}
        for column in ("width", "height", *IMAGE_STATS):
            low, middle, high = np.quantile(table[column].to_numpy(float), (0.05, 0.5, 0.95))
            found[column] = {
                "p5": round(float(low), 2),
                "median": round(float(middle), 2),
                "p95": round(float(high), 2),
            }
        return found


def sample_images(
    reader: Reader, samples: Samples, card: DatasetCard, *, seed: int, count: int = SAMPLE
) -> ImageSample:
    """Open up to `count` random images. Those that cannot be opened are the audit's to report."""
    chosen = np.random.default_rng([seed, 0x100C]).permutation(len(samples))[:count]
    table = samples.table.iloc[chosen]
    spec = None if card.faces == "detect" else AlignmentSpec(card.faces, FACE, 1.0, card.landmark_points)
    landmarks = table["landmarks"] if "landmarks" in table else pd.Series([None] * len(table), index=table.index)

    def seen(path: str, points: Sequence[float] | None) -> _Seen | None:
        try:
            image = open_image(reader.image_bytes(path))
            return _seen(image, align_or_crop(image, spec, points) if spec else None)
        except (ImageRejectedError, OSError):
            return None

    rows: list[Any] = []
    measured: list[dict[str, float]] = []
    thumbs: list[np.ndarray] = []
    faces: list[np.ndarray] = []
    with ThreadPoolExecutor(available_cores()) as pool:  # threads: decoding and resizing let go of the interpreter
        every = pool.map(seen, table["path"], landmarks)
        looking = progress(every, total=len(table), label=f"{card.name}: looking", unit="img")
        for row, one in zip(table.index, looking, strict=True):
            if one is None:
                continue
            rows.append(row)
            measured.append(one.measures)
            if len(thumbs) < SHOWN:
                thumbs.append(np.asarray(ImageOps.pad(one.small, (THUMB, THUMB), color="white")))
            if one.face is not None:
                faces.append(one.face)
    columns = ["width", "height", *IMAGE_STATS, "grey"]
    found = table.loc[rows].reset_index(drop=True).join(pd.DataFrame(measured, columns=columns))
    return ImageSample(found, np.array(thumbs, np.uint8), np.array(faces, np.uint8) if faces else None)


def mean_face_by_group(faces: np.ndarray, codes: np.ndarray, *, least: int = 8) -> dict[int, np.ndarray]:
    """Code -> the mean of its faces (S, S, 3) uint8; codes of fewer than `least` faces are left out.

    Args:
        faces: (n, S, S, 3) uint8.
        codes: (n,) integers, -1 for none.
        least: faces.
    """
    found = {}
    for code in np.unique(codes[codes >= 0]):
        members = faces[codes == code]
        if len(members) >= least:
            found[int(code)] = members.mean(axis=0).astype(np.uint8)
    return found


@dataclass(frozen=True)
class _Seen:
    """What is kept of one image: not the image, 800 photographs do not fit into memory."""

    small: Image.Image
    measures: dict[str, float]
    face: np.ndarray | None


def _seen(image: Image.Image, face: np.ndarray | None) -> _Seen:
    share = min(1.0, THUMB / max(image.size))
    width, height = (max(1, round(side * share)) for side in image.size)
    small = image.resize((width, height), Image.Resampling.BOX)
    return _Seen(small, {"width": image.width, "height": image.height, **_measures(small)}, face)


def _measures(image: Image.Image) -> dict[str, float]:
    pixels = np.asarray(image, np.float32)
    grey = pixels @ np.array([0.299, 0.587, 0.114], np.float32)
    steps = [np.abs(np.diff(grey, axis=axis)).mean() for axis in (0, 1) if grey.shape[axis] > 1]
    apart = np.abs(pixels - pixels.mean(axis=2, keepdims=True)).mean()
    return {
        "brightness": float(grey.mean()),
        "contrast": float(grey.std()),
        "sharpness": float(np.mean(steps)) if steps else 0.0,
        "colour": float(apart),
        "grey": float(apart < 0.5),
    }
