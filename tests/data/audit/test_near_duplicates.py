"""Near duplicates: planted copies are found, and different faces are not called copies."""

import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from agebench.data.audit.near_duplicates import near_duplicates
from agebench.data.audit.registration import AffineTransform, register_pairs
from agebench.data.audit.run import MIN_SIMILARITY
from agebench.data.audit.thumbnails import THUMBNAIL_SIDE, to_gray_square
from agebench.data.readers.synth import SynthReader


def jpeg(image: Image.Image, quality: int) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(io.BytesIO(file.getvalue())).convert("RGB")


def crop(image: Image.Image, shares: tuple[float, float, float, float]) -> Image.Image:
    width, height = image.size
    left, top, right, bottom = shares
    box = (round(left * width), round(top * height), round((1 - right) * width), round((1 - bottom) * height))
    return image.crop(box)


CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "re-encoded": lambda image: jpeg(image, 30),
    "half the size": lambda image: image.resize((image.width // 2, image.height // 2), Image.Resampling.BICUBIC),
    "enlarged": lambda image: image.resize((300, 320), Image.Resampling.BICUBIC),
    "mirrored": lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    "cropped": lambda image: crop(image, (0.05, 0.01, 0.0, 0.06)),
    "brighter": lambda image: image.point(lambda value: min(255, int(1.2 * value + 10))),
    "all of it": lambda image: jpeg(
        crop(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT), (0.03, 0.06, 0.05, 0.0)).resize((120, 120)), 60
    ),
}


def planted(images: list[Image.Image], copied: int) -> np.ndarray:
    """The images, then each change of the first `copied`, change by change."""
    changed = [change(image) for change in CHANGES.values() for image in images[:copied]]
    return np.stack([to_gray_square(image, THUMBNAIL_SIDE) for image in [*images, *changed]])


def verdict(small: np.ndarray, count: int, copied: int) -> tuple[dict[str, float], int]:
    """The share of each change's copies that is found, and how many pairs of different originals are called copies."""
    pairs, _ = near_duplicates(small)
    good = pairs.similarity >= MIN_SIMILARITY
    found = set(zip(pairs.first[good].tolist(), pairs.second[good].tolist(), strict=True))
    original = [row if row < count else (row - count) % copied for row in range(len(small))]
    wrong = len({(original[first], original[second]) for first, second in found if original[first] != original[second]})
    shares = {
        name: float(np.mean([(row, count + place * copied + row) in found for row in range(copied)]))
        for place, name in enumerate(CHANGES)
    }
    return shares, wrong


def test_planted_copies_of_drawn_faces_are_found() -> None:
    """Drawn faces share a layout, colours and few details: photographs are far easier to tell apart (see the slow test)."""
    reader = SynthReader(None, count=60, seed=5)
    images = [Image.open(io.BytesIO(reader.image_bytes(path))).convert("RGB") for path in reader.read().table["path"]]
    shares, wrong = verdict(planted(images, 12), 60, 12)
    assert min(shares.values()) >= 0.9, shares
    assert wrong <= 0.03 * 60 * 59 / 2  # drawn by one template: people of like hair hardly differ but in colour


def test_two_images_are_enough_and_blank_ones_are_nobodys_copy() -> None:
    reader = SynthReader(None, count=2, seed=6)
    image = Image.open(io.BytesIO(reader.image_bytes("synth-000000.png"))).convert("RGB")
    blank = np.full((THUMBNAIL_SIDE, THUMBNAIL_SIDE), 128, dtype=np.uint8)
    pairs, _ = near_duplicates(
        np.stack(
            [
                to_gray_square(image, THUMBNAIL_SIDE),
                to_gray_square(CHANGES["mirrored"](image), THUMBNAIL_SIDE),
                blank,
                blank,
            ]
        )
    )
    assert (pairs.first.tolist(), pairs.second.tolist(), pairs.mirrored.tolist()) == ([0], [1], [True])
    assert pairs.similarity[0] > 0.95
    assert len(near_duplicates(np.stack([blank]))[0]) == 0


def test_only_pairs_with_the_first_dataset_are_asked_for() -> None:
    reader = SynthReader(None, count=4, seed=6)
    images = [
        to_gray_square(Image.open(io.BytesIO(reader.image_bytes(f"synth-00000{row}.png"))), THUMBNAIL_SIDE)
        for row in (0, 1, 2, 2, 0)
    ]
    pairs, _ = near_duplicates(np.stack(images), query_rows=2)
    assert (0, 4) in set(zip(pairs.first.tolist(), pairs.second.tolist(), strict=True))
    assert (pairs.first < 2).all()


@pytest.mark.slow
def test_planted_copies_of_real_faces_are_found_and_people_told_apart(test_data: Path) -> None:
    images = []
    with tarfile.open(test_data / "UTKFace.tar.gz") as archive:
        for number, member in enumerate(archive):
            if number % 3 == 1 and member.isfile():
                content = archive.extractfile(member)
                assert content is not None
                images.append(Image.open(io.BytesIO(content.read())).convert("RGB"))
            if len(images) == 400:
                break
    shares, wrong = verdict(planted(images, 40), 400, 40)
    assert min(shares.values()) >= 0.97, shares
    assert (
        wrong <= 10
    )  # these are no mistakes: UTKFace has those eight photographs twice (looked at), two of them crosswise here


def test_pairs_of_which_all_are_false_are_discarded() -> None:
    """Of a large collection, all candidates of a whole chunk can be."""
    images = np.random.default_rng(0).integers(0, 256, (6, THUMBNAIL_SIDE, THUMBNAIL_SIDE)).astype(np.uint8)
    first, second = np.array([0, 1, 2]), np.array([3, 4, 5])
    transforms, similarity = register_pairs(images, first, second, [AffineTransform.of_crop((0, 0, 0, 0), False)] * 3)
    assert len(transforms) == 3
    assert similarity.tolist() == [0.0, 0.0, 0.0]
