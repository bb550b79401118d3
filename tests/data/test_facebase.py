"""The CVPR 2024 benchmark's lists, and faces cut out by their boxes."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from agebench.data.faces.alignment import AlignmentSpec, align_or_crop
from agebench.data.readers.paplham import FacebaseReader
from agebench.errors import ImageRejectedError, UserError


def entry(path: str, **more: Any) -> dict[str, Any]:
    return {"img_path": path, "id_num": 9, "age": 16, "database": "X", "folder": 3, **more}


def write(root: Path, entries: Any, *images: str) -> Path:
    for image in images:
        (root / image).parent.mkdir(parents=True, exist_ok=True)
        (root / image).touch()
    (root / "list.json").write_text(json.dumps(entries))
    return root


BOX = [21, 69, 569, 103, 535, 652, -13, 617]


def test_images_are_found_by_the_end_of_their_path(tmp_path: Path) -> None:
    entries = [
        entry("FG-NET/images/009A16b.jpg", aligned_bbox=BOX, gender="M"),
        entry("FG-NET/images/gone.jpg"),
        entry("FG-NET/images/twice.jpg"),
        entry("FG-NET/images/bad.jpg", aligned_bbox=[1, 2, 3, None]),
        entry("FG-NET/images/ageless.jpg", age={"years": 3}),
    ]
    images = ["images/009A16B.JPG", "a/twice.jpg", "b/twice.jpg", "bad.jpg", "ageless.jpg"]
    samples = FacebaseReader(write(tmp_path, entries, *images)).read()
    row = samples.table.iloc[0]
    assert (row["sample_id"], row["path"]) == ("FG-NET/images/009A16b.jpg", "images/009A16B.JPG")
    assert (row["age"], row["subject"], row["folder"], row["gender"]) == (16, "9", "3", "male")
    assert row["landmarks"] == BOX
    assert samples.rejected["reason"].tolist() == [
        "no image of this name, or several",
        "no image of this name, or several",
        "its aligned_bbox is not eight numbers",
        "its age is missing",
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "holds no list of images"),
        ([entry("a.jpg"), {"img_path": "b.jpg"}], "entry 1 has no img_path and age"),
        ([entry("nowhere.jpg")], "no image of this name"),
    ],
)
def test_another_format_is_refused(content: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        FacebaseReader(write(tmp_path, content, "a.jpg")).read()
    (tmp_path / "list.json").write_text("{")
    with pytest.raises(UserError, match="not a readable JSON file"):
        FacebaseReader(tmp_path).read()
    with pytest.raises(UserError, match=r"0 files are its list 'other\.json'"):
        FacebaseReader(tmp_path, list="other.json").read()


def test_a_box_is_cut_out_upright() -> None:
    """A square that stands on its side: its upper left corner is the image's upper right."""
    pixels = np.zeros((80, 100, 3), np.uint8)
    pixels[20:40, 30:50], pixels[20:40, 50:70] = 60, 120
    pixels[40:60, 30:50], pixels[40:60, 50:70] = 180, 240
    image = Image.fromarray(pixels)
    cut = align_or_crop(image, AlignmentSpec("boxes", 40), [70, 20, 70, 60, 30, 60, 30, 20])[:, :, 0].astype(int)
    for place, value in (((10, 10), 120), ((10, 30), 240), ((30, 10), 60), ((30, 30), 180)):
        assert cut[place] == pytest.approx(value, abs=3)
    wide = align_or_crop(image, AlignmentSpec("boxes", 40, crop_scale=2.0), [30, 20, 70, 20, 70, 60, 30, 60])[:, :, 0]
    assert wide[15, 15] == pytest.approx(60, abs=3)
    assert wide[3, 20] == 0
    with pytest.raises(ImageRejectedError, match="no box is annotated"):
        align_or_crop(image, AlignmentSpec("boxes", 40), None)


def test_the_benchmarks_own_list_of_fgnet(test_data: Path, tmp_path: Path) -> None:
    file = test_data / "facebase" / "FG-Net_aligned.json"
    entries = json.loads(file.read_text())
    samples = FacebaseReader(write(tmp_path, entries, *(row["img_path"].upper() for row in entries))).read()
    assert (len(samples), len(samples.rejected)) == (1002, 0)
    assert (samples.table["folder"] == samples.table["subject"]).all()
    assert samples.table["subject"].nunique() == 82
