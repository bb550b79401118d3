"""Measure what the frame of the faces is worth: ridge regression on frozen MobileFaceNet features, in several frames.

Run `python benchmarks/framing/probe.py UTKFACE_FOLDER FGNET_FOLDER`, after `agebench weights get mobilefacenet` and
`pip install 'agebench[detect]'`. The folders contain UTKFace's crops and FG-NET's photographs with their points. Writes one row
a frame: MAE on held-out UTKFace, and MAE, bias and correlation on FG-NET. docs/explanation/released-model.md shows the result.
"""

import argparse
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from scipy.linalg import solve

from agebench.data.faces.alignment import AlignmentSpec, align_or_crop
from agebench.data.faces.detectors.base import Detector
from agebench.data.faces.detectors.yunet import YuNetDetector
from agebench.data.readers.fgnet import read_points
from agebench.errors import ImageRejectedError
from agebench.models.architectures.mobilefacenet import MobileFaceNet
from agebench.utils.paths import cache_home

SIZE = 112
RIDGE = 1000.0  # penalty
CROPS = AlignmentSpec("none", SIZE, detector="yunet")
NOSE_TIP, NOSE_BASE = (
    AlignmentSpec("landmarks", SIZE, landmark_points=(31, 36, nose), detector="yunet") for nose in (67, 41)
)


def in_arcface_frame(spec: AlignmentSpec, visible: float = 1.0) -> AlignmentSpec:
    """Return the alignment in the frame of ArcFace's template: eyes 35.24 of 112 pixels apart, at 51.6.

    Args:
        spec: the alignment in UTKFace's frame.
        visible: the visible region, as `AlignmentSpec.visible`.
    """
    return replace(spec, crop_scale=1.2237, offset=0.121, visible=visible)


DETECTED = replace(CROPS, mode="detect")
# Name -> alignment of UTKFace's crops, and of FG-NET's photographs.
FRAMES = {
    "own crops; annotated points, nose tip": (CROPS, NOSE_TIP),
    "own crops; annotated points, nose base": (CROPS, NOSE_BASE),
    "ArcFace's frame, all shown": (in_arcface_frame(CROPS, 0.0), in_arcface_frame(NOSE_BASE, 0.0)),
    "ArcFace's frame": (in_arcface_frame(CROPS), in_arcface_frame(NOSE_BASE)),
    "ArcFace's frame, YuNet's points on both": (in_arcface_frame(DETECTED), in_arcface_frame(DETECTED)),
}


def main() -> None:
    """Measure all frames and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("utkface", type=Path)
    parser.add_argument("fgnet", type=Path)
    parser.add_argument("--images", type=int, default=3600, help="of UTKFace; five sixths are trained on")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    crops, crop_ages = read_crops(arguments.utkface, arguments.images)
    photographs, points, photograph_ages = read_photographs(arguments.fgnet)
    network = MobileFaceNet()
    (weights,) = (cache_home() / "weights").glob("mobilefacenet-*.safetensors")
    network.load_state_dict(load_file(weights))
    network.eval()
    detector = YuNetDetector()
    print("| training faces; FG-NET's faces | UTKFace | FG-NET (bias, r) | faces |\n|---|---|---|---|")
    for name, (train_spec, test_spec) in FRAMES.items():
        train, train_ages = align(crops, [None] * len(crops), crop_ages, train_spec, detector)
        test, test_ages = align(photographs, points, photograph_ages, test_spec, detector)
        row = probe_row(name, network, train, train_ages, test, test_ages)
        print(f"{row} {len(train):,}; {len(test):,} |", flush=True)


def read_crops(folder: Path, count: int) -> tuple[list[Image.Image], np.ndarray]:
    """Return random crops of UTKFace and their ages, years."""
    paths = sorted(path for path in folder.rglob("*.jpg") if path.name.split("_")[0].isdigit())
    paths = random.Random(0).sample(paths, min(count, len(paths)))
    return [Image.open(path).convert("RGB") for path in paths], np.array(
        [int(path.name.split("_")[0]) for path in paths]
    )


def read_photographs(folder: Path) -> tuple[list[Image.Image], list[list[float]], np.ndarray]:
    """Return FG-NET's photographs, their annotated points and ages, years."""
    points = {path.stem.lower(): path for path in folder.rglob("*.pts")}
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() == ".jpg")
    return (
        [Image.open(path).convert("RGB") for path in paths],
        [read_points(points[path.stem.lower()]) for path in paths],
        np.array([int("".join(filter(str.isdigit, path.stem[4:6]))) for path in paths]),
    )


def align(
    images: Sequence[Image.Image],
    points: Sequence[list[float] | None],
    ages: np.ndarray,
    spec: AlignmentSpec,
    detector: Detector,
) -> tuple[list[np.ndarray], np.ndarray]:
    """Return the faces of the images in which one is detected, and their ages."""
    faces, kept = [], []
    for index, image in enumerate(images):
        try:
            faces.append(align_or_crop(image, spec, points[index], detector))
            kept.append(index)
        except ImageRejectedError:
            continue
    return faces, ages[kept]


def probe_row(
    name: str,
    network: MobileFaceNet,
    train: Sequence[np.ndarray],
    train_ages: np.ndarray,
    test: Sequence[np.ndarray],
    test_ages: np.ndarray,
) -> str:
    """Fit the ridge regression on five sixths of the training faces, and return the row of its errors."""
    features = extract(network, train)
    center, spread = features.mean(axis=0), features.std(axis=0) + 1e-6
    features, fitted = (features - center) / spread, len(train) * 5 // 6
    known = features[:fitted]
    offset = train_ages[:fitted].mean()
    gram = known.T @ known + RIDGE * np.eye(known.shape[1])
    weights = solve(gram, known.T @ (train_ages[:fitted] - offset), assume_a="pos")
    home = features[fitted:] @ weights + offset - train_ages[fitted:]
    estimates = (extract(network, test) - center) / spread @ weights + offset
    errors, r = estimates - test_ages, np.corrcoef(estimates, test_ages)[0, 1]
    return f"| {name} | {np.abs(home).mean():.2f} | {np.abs(errors).mean():.2f} ({errors.mean():+.1f}, {r:.3f}) |"


@torch.inference_mode()
def extract(network: MobileFaceNet, faces: Sequence[np.ndarray]) -> np.ndarray:
    """Return the features (N, D) of faces (SIZE, SIZE, 3)."""
    batches = []
    for start in range(0, len(faces), 64):
        pixels = torch.from_numpy(np.stack(faces[start : start + 64])).permute(0, 3, 1, 2)
        batches.append(network((pixels.float() - 127.5) / 128).flatten(1).numpy())
    return np.concatenate(batches)


if __name__ == "__main__":
    main()
