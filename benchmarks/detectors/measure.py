"""Measure the face detectors: failures by group, accuracy of the points, time; write docs/explanation/detectors.md.

    OMP_NUM_THREADS=1 python benchmarks/detectors/measure.py [--detectors yunet dlib] [--datasets utk fgnet]

The detections of each detector on each dataset are kept in `--runs`; a further call adds what is missing. Detectors
that are not installed are named and left out. `--limit N` takes a random sample of N images, the same for every detector,
except for those that `--whole` names.
"""

import argparse
import platform
import time
from collections.abc import Hashable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from agebench.data.dataset import Dataset, open_dataset
from agebench.data.faces.detectors.base import Detection, Detector, detect_faces, detectors, open_detector
from agebench.data.image_io import open_image
from agebench.errors import AgebenchError
from agebench.metrics.confidence_intervals import clopper_pearson
from agebench.metrics.groups import MIN_GROUP, Grouping, age_bands, grouping
from agebench.registry.catalog import load_catalog
from agebench.utils.marked_text import write_marked

DETECTORS = ("yunet", "libfacedetection", "blazeface", "mtcnn", "dlib")
DATASETS = ("utk", "fgnet", "fairface-val", "all-age-faces")
ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "explanation" / "detectors.md"
# FG-NET's annotated pupils and the middle of the nose's lower edge, of its 68 points.
FGNET_POINTS = [31, 36, 41]
# A face whose eyes lie further than this share of the eye distance from the annotated ones counts as another face.
WRONG_FACE = 0.5
TIMED_SIDE, N_TIMED = 640, 40


def main() -> None:
    """Parse the options, measure what is missing, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--detectors", nargs="+", default=list(DETECTORS))
    parser.add_argument("--datasets", nargs="+", default=list(DATASETS))
    parser.add_argument("--limit", type=int, default=3000, help="images of a dataset (default: 3000)")
    parser.add_argument("--whole", nargs="*", default=["yunet"], help="detectors that see every image")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "detectors")
    parser.add_argument("--page", type=Path, default=PAGE)
    parser.add_argument("--report", action="store_true", help="measure nothing; write what has been measured")
    arguments = parser.parse_args()
    arguments.runs.mkdir(parents=True, exist_ok=True)
    if arguments.report:
        write_page(arguments.page, arguments.runs, arguments.detectors, known_times(arguments.runs))
        return
    use_one_thread()
    usable = [name for name in arguments.detectors if is_usable(name)]
    catalog = load_catalog([]).datasets
    for dataset_name in arguments.datasets:
        dataset = None
        for name in usable:
            path = result_path(arguments.runs, name, dataset_name)
            if path.exists():
                continue
            dataset = dataset or open_dataset(catalog.get(dataset_name))
            limit = len(dataset.frame) if name in arguments.whole else arguments.limit
            measure(name, dataset, limit).to_csv(path, index=False)
            print(f"{path}: {len(pd.read_csv(path)):,} images", flush=True)
    measure_times(arguments.runs, usable, catalog.get("fgnet").name)
    write_page(arguments.page, arguments.runs, usable, known_times(arguments.runs))


def is_usable(name: str) -> bool:
    """Return whether a detector is installed; name it if it is not."""
    try:
        open_detector(name).key()
    except AgebenchError as error:
        print(f"{name} is left out: {error}", flush=True)
        return False
    return True


def use_one_thread() -> None:
    """Let every library compute in one thread."""
    import torch

    torch.set_num_threads(1)
    try:
        import cv2
    except ImportError:
        return
    cv2.setNumThreads(1)


def result_path(runs: Path, detector: str, dataset: str) -> Path:
    """Return the file of a detector's results on a dataset, of this version of the detector."""
    return runs / f"{detector}-v{detectors.get(detector).version}-{dataset}.csv"


def measure(name: str, dataset: Dataset, limit: int) -> pd.DataFrame:
    """Return one row per image: its groups, the number of detected faces, and the errors of the points."""
    table = dataset.samples.table
    table = table.sample(min(limit, len(table)), random_state=0)
    columns = [column for column in ("sample_id", "age", "gender", "race") if column in table]
    detector = open_detector(name)
    rows = [describe(detector, name, dataset, row) for row in table.to_dict("records")]
    return pd.concat([table[columns].reset_index(drop=True), pd.DataFrame(rows)], axis=1)


def describe(detector: Detector, name: str, dataset: Dataset, row: Mapping[Hashable, object]) -> dict[str, float]:
    """Return the number of faces in an image, and the errors of the largest face's points in eye distances."""
    image = open_image(dataset.reader.image_bytes(str(row["path"])))
    faces = detect_faces(detector, image, name=name)
    result: dict[str, float] = {"faces": len(faces)}
    points = annotated_points(dataset, row)
    if faces and points is not None:
        errors = point_errors(faces[0], points)
        result |= {"eye_left": errors[0], "eye_right": errors[1], "nose": errors[2]}
    return result


def annotated_points(dataset: Dataset, row: Mapping[Hashable, object]) -> np.ndarray | None:
    """Return (3, 2) annotated eyes and nose base; None where each image has none of its own."""
    landmarks = row.get("landmarks")
    if landmarks is None or dataset.name not in ("fgnet", "all-age-faces"):
        return None
    indices = FGNET_POINTS if dataset.name == "fgnet" else list(dataset.card.landmark_points)
    return np.asarray(landmarks, dtype=np.float64).reshape(-1, 2)[indices]


def point_errors(face: Detection, points: np.ndarray) -> np.ndarray:
    """Return (3,) distances of the landmarks from the annotated ones, as shares of the distance of the eyes."""
    errors: np.ndarray = np.linalg.norm(face.landmarks - points, axis=1) / np.linalg.norm(points[0] - points[1])
    return errors


def known_times(runs: Path) -> pd.Series:
    """Return detector and version -> median milliseconds of processor time for one FG-NET photograph of 640 px."""
    path = runs / "times.csv"
    return pd.read_csv(path, index_col=0)["ms"] if path.exists() else pd.Series(dtype=float)


def measure_times(runs: Path, names: Sequence[str], dataset_name: str) -> None:
    """Time the detectors whose times are not known."""
    known = known_times(runs)
    missing = [name for name in names if key_of(name) not in known.index]
    if missing:
        images = timed_images(dataset_name)
        for name in missing:
            known.loc[key_of(name)] = median_ms(name, images)
        known.rename("ms").to_csv(runs / "times.csv")


def key_of(name: str) -> str:
    """Return a detector's name with its version."""
    return f"{name}-v{detectors.get(name).version}"


def timed_images(dataset_name: str) -> list[Image.Image]:
    """Return photographs whose longest side is 640 px."""
    dataset = open_dataset(load_catalog([]).datasets.get(dataset_name))
    paths = dataset.samples.table["path"].sample(N_TIMED, random_state=1)
    images = [open_image(dataset.reader.image_bytes(path)) for path in paths]
    scales = [TIMED_SIDE / max(image.size) for image in images]
    return [
        image.resize((round(image.width * scale), round(image.height * scale)))
        for image, scale in zip(images, scales, strict=True)
    ]


def median_ms(name: str, images: Sequence[Image.Image]) -> float:
    """Return the median processor time of a detection, milliseconds."""
    detector = open_detector(name)
    detector.detect(images[0])
    seconds = []
    for image in images:
        start = time.process_time()
        detector.detect(image)
        seconds.append(time.process_time() - start)
    return float(np.median(seconds)) * 1000


def group_failures(table: pd.DataFrame) -> Iterator[tuple[Grouping, np.ndarray, np.ndarray]]:
    """Yield each grouping with its groups' numbers of failures and of images."""
    failed = table["faces"].to_numpy() == 0
    ages = table["age"].to_numpy(np.float64)
    groupings = [age_bands(ages)] if np.isfinite(ages).any() else []
    groupings += [grouping(table, name) for name in ("gender", "race") if name in table]
    for each in groupings:
        known = each.codes >= 0
        yield each, np.bincount(each.codes[known], failed[known], len(each.names)).astype(int), each.counts


def percent(failures: int, n: int) -> str:
    """Return a share in per cent with its 95 % interval."""
    low, high = clopper_pearson(np.array([failures]), np.array([n]))
    return f"{100 * failures / n:.2f} [{100 * low[0]:.2f}, {100 * high[0]:.2f}]"


def write_page(page: Path, runs: Path, names: Sequence[str], times: pd.Series) -> None:
    """Write the measured tables between the page's two comments."""
    names = [name for name in names if any(result_path(runs, name, dataset).exists() for dataset in DATASETS)]
    blocks = [*overview(runs, names, times), *point_table(runs, names)]
    for dataset in DATASETS:
        blocks += group_table(runs, names, dataset)
    write_marked(page, "measured", "\n".join(blocks))
    print(f"{page} is written")


def load(runs: Path, detector: str, dataset: str) -> pd.DataFrame | None:
    """Return a detector's results on a dataset, or None."""
    path = result_path(runs, detector, dataset)
    return pd.read_csv(path) if path.exists() else None


def overview(runs: Path, names: Sequence[str], times: pd.Series) -> list[str]:
    """Return the table of failures and time."""
    lines = [
        f"Failures to detect a face, per cent of the images, with 95 % intervals (Clopper-Pearson), and the median processor "
        f"time for an FG-NET photograph of {TIMED_SIDE} px in one thread, milliseconds ({machine()}).",
        "",
        "| detector | " + " | ".join(DATASETS) + f" | ms at {TIMED_SIDE} px |",
        "|---|" + "---:|" * (len(DATASETS) + 1),
    ]
    for name in names:
        cells = []
        for dataset in DATASETS:
            table = load(runs, name, dataset)
            failures = 0 if table is None else int((table["faces"] == 0).sum())
            cells.append("" if table is None else f"{percent(failures, len(table))} of {len(table):,}")
        lines.append(f"| `{name}` | " + " | ".join(cells) + f" | {times.get(key_of(name), np.nan):.1f} |")
    return [*lines, ""]


def point_table(runs: Path, names: Sequence[str]) -> list[str]:
    """Return the table of the points' errors."""
    lines = [
        "Distance of the points of the largest face from the annotated ones, per cent of the distance between the eyes: "
        "median and 90th percentile. *Another face*: eyes further than half that distance away, per cent of the images.",
        "",
        "| detector | dataset | eyes | nose base | another face |",
        "|---|---|---:|---:|---:|",
    ]
    for dataset in ("fgnet", "all-age-faces"):
        for name in names:
            table = load(runs, name, dataset)
            if table is None or "nose" not in table:
                continue
            points = table[["eye_left", "eye_right", "nose"]].dropna().to_numpy()
            eyes = points[:, :2].mean(axis=1)
            cells = [
                f"{100 * np.median(each):.1f}, {100 * np.quantile(each, 0.9):.1f}" for each in (eyes, points[:, 2])
            ]
            wrong = percent(int((eyes > WRONG_FACE).sum()), len(eyes))
            lines.append(f"| `{name}` | {dataset} | {' | '.join(cells)} | {wrong} |")
    return [*lines, ""]


def group_table(runs: Path, names: Sequence[str], dataset: str) -> list[str]:
    """Return the table of failures by group on one dataset; groups of fewer than 30 images are left out."""
    tables = {name: table for name in names if (table := load(runs, name, dataset)) is not None}
    cells: dict[tuple[str, str], dict[str, str]] = {}
    for name, table in tables.items():
        for groups, failures, counts in group_failures(table):
            for group, failed, n in zip(groups.names, failures, counts, strict=True):
                if n >= MIN_GROUP:
                    cells.setdefault((groups.name, str(group)), {})[name] = f"{percent(int(failed), int(n))} of {n:,}"
    lines = [
        f"### {dataset}",
        "",
        "| | | " + " | ".join(f"`{name}`" for name in tables) + " |",
        "|---|---|" + "---:|" * len(tables),
    ]
    lines += [
        f"| {column.replace('_', ' ')} | {group} | " + " | ".join(row.get(name, "") for name in tables) + " |"
        for (column, group), row in cells.items()
    ]
    return [*lines, ""] if cells else []


def machine() -> str:
    """Return the processor's name and the versions that matter."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    return f"{model}, Python {platform.python_version()}"


if __name__ == "__main__":
    main()
