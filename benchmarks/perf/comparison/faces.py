"""Faces that are measured on: those of UTKFace where they are, else drawn ones."""

import io
import os
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image


def faces_of_people(count: int) -> tuple[list[Image.Image], str]:
    """Return faces of UTKFace where AGEBENCH_TEST_DATA holds it, else drawn ones, which look more alike; and their name."""
    archive = Path(os.environ.get("AGEBENCH_TEST_DATA", ""), "UTKFace.tar.gz")
    if not archive.is_file():
        return [Image.fromarray(face) for face in drawn_faces(count, 200)], "drawn faces"
    faces: list[Image.Image] = []
    with tarfile.open(archive) as members:
        for member in members:
            file = members.extractfile(member) if member.name.endswith(".jpg") else None
            if file is not None:
                faces.append(Image.open(io.BytesIO(file.read())).convert("RGB"))
            if len(faces) == count:
                break
    return faces, "faces of UTKFace"


def drawn_faces(count: int, size: int) -> np.ndarray:
    """Return (count, size, size, 3) uint8 drawn faces."""
    from agebench.data.readers.synth import SynthReader

    reader = SynthReader(None, count=count, size=size)
    return np.stack(
        [np.asarray(Image.open(io.BytesIO(reader.image_bytes(path)))) for path in reader.read().table["path"]]
    )


def resized(faces: list[Image.Image], side: int) -> np.ndarray:
    """Return (N, side, side, 3) uint8."""
    return np.stack([np.asarray(face.resize((side, side))) for face in faces])


def write_faces(faces: list[Image.Image], folder: Path) -> list[Path]:
    """Write JPEGs whose names sort in this order; return their paths."""
    paths = [folder / f"{row:06}.jpg" for row in range(len(faces))]
    for face, path in zip(faces, paths, strict=True):
        face.save(path, quality=95)
    return paths
