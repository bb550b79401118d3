"""Image quality checks of an audit: images in which a face is hard to see, or a detector finds none or several."""

from collections.abc import Sequence
from functools import partial

import numpy as np
import pandas as pd

from agebench.data.dataset import Dataset
from agebench.data.faces.detectors.base import Detector, detect_faces, open_detector
from agebench.data.image_io import open_image
from agebench.data.readers import Reader
from agebench.utils.parallel import parallel_map
from agebench.utils.progress import progress

# Thresholds on the measures of `agebench.data.audit.thumbnails`.
MIN_SIDE_PX, MIN_CONTRAST, MIN_SHARPNESS, MIN_CHROMA = 50.0, 8.0, 0.15, 2.0


def find_quality_problems(dataset: Dataset, measures: pd.DataFrame) -> pd.DataFrame:
    """Find images with low contrast, few pixels, little fine detail or no color.

    Args:
        dataset: the audited dataset.
        measures: quality measures of its samples, row by row, from `compute_thumbnails`.

    Returns:
        sample_id, problem (`empty`, `tiny`, `blurred`, `grey`) and value (the measure), the worst first within a problem.
    """
    shorter_side = measures[["width", "height"]].min(axis=1)
    is_empty = measures["contrast"] < MIN_CONTRAST
    problems = {
        "empty": (is_empty, measures["contrast"]),
        "tiny": (shorter_side < MIN_SIDE_PX, shorter_side),
        "blurred": (~is_empty & (measures["sharpness"] < MIN_SHARPNESS), measures["sharpness"]),
        "grey": (~is_empty & (measures["chroma"] < MIN_CHROMA), measures["chroma"]),
    }
    tables = []
    for problem, (applies, value) in problems.items():
        table = pd.DataFrame({"sample_id": dataset.frame["sample_id"], "problem": problem, "value": value.round(3)})
        tables.append(table[applies.to_numpy()].sort_values("value", kind="stable"))
    return pd.concat(tables, ignore_index=True)


def find_face_count_problems(dataset: Dataset, rows: np.ndarray, detector: str, workers: int | None) -> pd.DataFrame:
    """Find images in which a detector finds no face, or several.

    Args:
        dataset: the audited dataset.
        rows: rows of its frame to examine.
        detector: name of the detector.
        workers: processes; None for one per core.

    Returns:
        sample_id, problem (no face, several faces) and value (number of faces), the most faces first.

    Raises:
        AgebenchError: the detector fails.
    """
    table = dataset.frame.iloc[rows]
    counts: list[int] = []
    if len(rows):
        count_faces = partial(_count_faces, dataset.reader, open_detector(detector), detector)
        with progress(total=len(rows), label=f"{dataset.name}: looking for faces", unit="img") as bar:
            for chunk in parallel_map(count_faces, table["path"].tolist(), workers=workers):
                counts += chunk
                bar.update(len(chunk))
    value = np.array(counts, dtype=np.float64)
    problem = np.where(value == 0, "no face", "several faces")
    problems = pd.DataFrame({"sample_id": table["sample_id"].to_numpy(), "problem": problem, "value": value})
    return problems[problems["value"] != 1].sort_values("value", ascending=False, kind="stable")


def _count_faces(reader: Reader, detector: Detector, name: str, paths: Sequence[str]) -> list[int]:
    return [len(detect_faces(detector, open_image(reader.image_bytes(path)), name=name)) for path in paths]
