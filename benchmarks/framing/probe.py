"""Measure what the frame of the faces is worth: ridge regression on frozen MobileFaceNet features, in several frames.

Run `python benchmarks/framing/probe.py UTKFACE_FOLDER FGNET_FOLDER`, after `agebench weights get mobilefacenet` and
`pip install 'agebench[detect]'`. The folders contain UTKFace's crops and FG-NET's photographs with their points. Writes one row
a frame: MAE on held-out UTKFace, and MAE, bias and correlation on FG-NET. docs/explanation/released-model.md shows the result.
"""

import argparse
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from scipy.linalg import solve

from agebench.data.faces.alignment import AlignmentSpec, align_or_crop
from agebench.data.faces.detectors.yunet import YuNetDetector
from agebench.data.readers.fgnet import read_points
from agebench.models.architectures.mobilefacenet import MobileFaceNet
from agebench.utils.paths import cache_home

CROP = 200  # side of UTKFace's crops, pixels
SIZE = 112
# The five points of ArcFace's template, pixels of 112: eyes, nose tip, corners of the mouth.
ARCFACE = np.array([[38.29, 51.70], [73.53, 51.50], [56.03, 71.74], [41.55, 92.37], [70.73, 92.20]])
MIRRORED = [1, 0, 2, 4, 3]
RIDGE = 1000.0  # penalty


def main() -> None:
    """Measure all frames and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("utkface", type=Path)
    parser.add_argument("fgnet", type=Path)
    parser.add_argument("--images", type=int, default=3600, help="of UTKFace; five sixths are trained on")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    detect = YuNetDetector().detect
    crops, crop_ages = read_crops(arguments.utkface, arguments.images)
    photographs, photograph_ages = read_photographs(arguments.fgnet)
    crop_points = [five_points(detect, image) for image in crops]
    photograph_points = [five_points(detect, image) for image in photographs]
    kept = [index for index, points in enumerate(crop_points) if points is not None]
    tested = [index for index, points in enumerate(photograph_points) if points is not None]
    mean = np.mean([crop_points[index] for index in kept], axis=0)
    mean[:, 0] = (mean[:, 0] + CROP - mean[MIRRORED, 0]) / 2
    mean[:, 1] = (mean[:, 1] + mean[MIRRORED, 1]) / 2

    def crops_in(frame: np.ndarray) -> list[np.ndarray]:
        return [warp(crops[index], crop_points[index], frame) for index in kept]

    def photographs_in(frame: np.ndarray) -> list[np.ndarray]:
        return [warp(photographs[index], photograph_points[index], frame) for index in tested]

    center = slice(CROP // 2, CROP // 2 + CROP)
    own_crops = [shrink(crops[index]) for index in kept]
    utk_frame = mean * SIZE / CROP
    cropped = [warp(photographs[index], photograph_points[index], mean, CROP) for index in tested]
    frames = {
        "own crops; annotated points": (own_crops, [shrink(photographs[index][center, center]) for index in tested]),
        "own crops; YuNet, UTKFace's mean frame": (own_crops, photographs_in(utk_frame)),
        "YuNet, UTKFace's mean frame; the same": (crops_in(utk_frame), photographs_in(utk_frame)),
        "YuNet, ArcFace's frame; cropped like UTKFace": (
            crops_in(ARCFACE),
            [warp(image, mean, ARCFACE) for image in cropped],
        ),
        "YuNet, ArcFace's frame; with the surroundings": (crops_in(ARCFACE), photographs_in(ARCFACE)),
    }
    network = MobileFaceNet()
    (weights,) = (cache_home() / "weights").glob("mobilefacenet-*.safetensors")
    network.load_state_dict(load_file(weights))
    network.eval()
    print(f"{len(kept)} of {len(crops)} crops, {len(tested)} of {len(photographs)} photographs")
    for name, found in (("UTKFace", crop_points), ("FG-NET", photograph_points)):
        points = np.mean([one for one in found if one is not None], axis=0) - (CROP // 2 if name == "FG-NET" else 0)
        distance, height = np.hypot(*(points[1] - points[0])), points[:2, 1].mean()
        print(f"{name}: eyes {distance / CROP:.3f} apart at {height / CROP:.3f} of the height")
    print("| training faces; FG-NET's faces | UTKFace | FG-NET (bias, r) |\n|---|---|---|")
    for name, (train, test) in frames.items():
        print(probe_row(name, network, train, crop_ages[kept], test, photograph_ages[tested]), flush=True)


def read_crops(folder: Path, count: int) -> tuple[list[np.ndarray], np.ndarray]:
    """Return random crops of UTKFace (CROP, CROP, 3) and their ages."""
    paths = sorted(path for path in folder.rglob("*.jpg") if path.name.split("_")[0].isdigit())
    paths = random.Random(0).sample(paths, min(count, len(paths)))
    images = [np.asarray(Image.open(path).convert("RGB").resize((CROP, CROP))) for path in paths]
    return images, np.array([int(path.name.split("_")[0]) for path in paths])


def read_photographs(folder: Path) -> tuple[list[np.ndarray], np.ndarray]:
    """Return FG-NET's faces by their annotated points, twice as wide as a crop of UTKFace, and their ages."""
    spec = AlignmentSpec("landmarks", 2 * CROP, crop_scale=2.0, landmark_points=(31, 36, 41))
    points = {path.stem.lower(): path for path in folder.rglob("*.pts")}
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() == ".jpg")
    images = [
        align_or_crop(Image.open(path).convert("RGB"), spec, read_points(points[path.stem.lower()])) for path in paths
    ]
    return images, np.array([int("".join(filter(str.isdigit, path.stem[4:6]))) for path in paths])


def five_points(detect: Callable[[Image.Image], Sequence], image: np.ndarray) -> np.ndarray | None:
    """Return the five points (5, 2) of the face nearest the middle, or None."""
    center = np.array(image.shape[1::-1]) / 2
    faces = [face.five_points for face in detect(Image.fromarray(image)) if face.five_points is not None]
    return min(faces, key=lambda points: float(np.abs(points.mean(axis=0) - center).sum()), default=None)


def warp(image: np.ndarray, points: np.ndarray, frame: np.ndarray, size: int = SIZE) -> np.ndarray:
    """Move the points to those of the frame by a similarity transform (Umeyama 1991); edges repeat."""
    source, target = points - points.mean(axis=0), frame - frame.mean(axis=0)
    u, singular, vt = np.linalg.svd(target.T @ source / len(source))
    signs = np.diag([1.0, np.sign(np.linalg.det(u @ vt))])
    scale = float((singular * np.diag(signs)).sum() / source.var(axis=0).sum())
    linear = scale * u @ signs @ vt
    if scale < 0.9:
        image = cv2.GaussianBlur(image, (0, 0), max(0.45 / scale, 0.3))
    matrix = np.column_stack([linear, frame.mean(axis=0) - linear @ points.mean(axis=0)])
    return cv2.warpAffine(image, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def shrink(image: np.ndarray) -> np.ndarray:
    """Return the image in the size of the network's input."""
    return cv2.resize(image, (SIZE, SIZE), interpolation=cv2.INTER_AREA)


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


@torch.no_grad()
def extract(network: MobileFaceNet, faces: Sequence[np.ndarray]) -> np.ndarray:
    """Return the features (N, D) of faces (SIZE, SIZE, 3)."""
    batches = []
    for start in range(0, len(faces), 64):
        pixels = torch.from_numpy(np.stack(faces[start : start + 64])).permute(0, 3, 1, 2)
        batches.append(network((pixels.float() - 127.5) / 128).flatten(1).numpy())
    return np.concatenate(batches)


if __name__ == "__main__":
    main()
