"""Estimators that get whole photographs, or boxes, through the real command."""

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from agebench.cli import main

DATASET = """
name = "photos"
title = "Photographs of two discs each"
reader = "csv"
licence = "CC0-1.0"
faces = "landmarks"
landmark_points = [0, 1, 2]
groups = ["gender"]
[options]
table = "labels.csv"
"""
MODEL = """
name = "theirs"
kind = "external"
title = "Their pipeline"
format = "{format}"
source = {source!r}
licence = "ours"
[input]
{input}
[output]
name = "age"
gender = {{ name = "gender" }}
"""
CODE = """
import csv
import sys
import numpy as np
from PIL import Image

def faces(photo, box=None, points=None):
    # Each person is a column of one gray value, which is the age; even ages are women. Black pixels show nobody.
    found = []
    for left in (0, 40):
        value = int(photo[30, left + 20, 0])
        if value:
            found.append((value, [left, 0, left + 40, 60], [1.0, 0.0] if value % 2 == 0 else [0.0, 1.0]))
    return {"age": [f[0] for f in found], "box": [f[1] for f in found], "gender": [f[2] for f in found]}

def boxed(images):
    age = images[:, :, :, 0].mean(axis=(1, 2))
    return {"age": age, "gender": np.tile([0.3, 0.7], (len(images), 1))}

if __name__ == "__main__":
    source, target = sys.argv[1:]
    with open(source) as given, open(target, "w", newline="") as answer:
        rows = csv.writer(answer)
        rows.writerow(["path", "age", "gender", "left", "top", "right", "bottom"])
        for row in csv.DictReader(given):
            assert len(row["points"].split()) == 6
            found = faces(np.asarray(Image.open(row["path"]).convert("RGB")))
            for age, box, gender in zip(found["age"], found["box"], found["gender"]):
                rows.writerow([row["path"], age, "female" if gender[0] else "male", *box])
"""


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AGEBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("AGEBENCH_DATA", str(tmp_path / "data"))
    folder, rows = tmp_path / "data" / "photos", []
    folder.mkdir(parents=True)
    for number in range(40):
        pixels = np.zeros((60, 80, 3), np.uint8)
        age, left = 20 + number, 40 * (number % 2)
        pixels[:, left : left + 40] = age if number % 10 else 0  # nobody is visible in every tenth photograph
        if number % 10:
            pixels[:, 40 - left : 80 - left] = 77  # somebody else
        Image.fromarray(pixels).save(folder / f"{number}.png")
        points = f"{left + 10} 20 {left + 30} 20 {left + 20} 40"
        rows.append([f"{number}.png", age, "female" if number % 2 == 0 else "male", points, f"{left} 0 {left + 40} 60"])
    table = pd.DataFrame(rows, columns=["path", "age", "gender", "landmarks", "face_bbox"])
    table.to_csv(folder / "labels.csv", index=False)
    for kind in ("datasets", "models"):
        (tmp_path / "cards" / kind).mkdir(parents=True)
    (tmp_path / "cards" / "datasets" / "photos.toml").write_text(DATASET)
    (tmp_path / "cards" / "models" / "theirs.py").write_text(CODE)
    return tmp_path / "cards"


def run(registry: Path, out: Path, **card: str) -> int:
    (registry / "models" / "theirs.toml").write_text(MODEL.format(**card))
    words = ["test", "--model", "theirs", "--test", "photos", "--set", "evaluate.resamples=100"]
    return main([*words, "--registry", str(registry), "--out", str(out)])


@pytest.mark.parametrize("kind", ["callable", "command"])
def test_annotated_face_of_a_photograph_is_scored(registry: Path, tmp_path: Path, kind: str) -> None:
    source = "theirs.py:faces" if kind == "callable" else f"{sys.executable} {{here}}/theirs.py {{input}} {{output}}"
    out = tmp_path / "run"
    assert run(registry, out, format=kind, source=source, input='kind = "photo"') == 0
    table = pd.read_parquet(out / "predictions" / "photos.parquet")
    assert len(table) == 36
    assert (table["age_pred"] == table["age"]).all()
    assert (table["gender_pred"] == table["gender"]).all()
    metrics = json.loads((out / "metrics.json").read_text())["tests"]["photos"]
    assert metrics["failure_to_process"]["failed"] == 4
    assert metrics["failure_to_process"]["n"] == 40
    assert metrics["tasks"]["gender"]["accuracy"]["value"] == 1
    counts = json.loads((out / "manifest.json").read_text())["samples"]["photos"]
    assert (counts["read"], counts["test"], counts["rejected"]) == (40, 36, {"no-estimate": 4})
    rejected = pd.read_parquet(out / "samples" / "quarantined.parquet")
    assert set(rejected["reason"]) == {"the model returned no estimate"}
    report = (out / "report.md").read_text()
    assert "The faces were not aligned" in report
    assert "given to the system as whole photographs" in report


def test_pipeline_that_detects_nobody_at_all_is_an_error(
    registry: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (registry / "models" / "theirs.py").write_text("def faces(photo, box, points):\n    return None\n")
    assert run(registry, tmp_path / "run", format="callable", source="theirs.py:faces", input='kind = "photo"') == 2
    assert "returned no estimate for any of the 40 images of photos" in capsys.readouterr().err


def test_several_faces_without_boxes_are_an_error(
    registry: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = "def faces(photo, box, points):\n    return {'age': [3, 4], 'gender': [[1, 0], [0, 1]]}\n"
    (registry / "models" / "theirs.py").write_text(code)
    assert run(registry, tmp_path / "run", format="callable", source="theirs.py:faces", input='kind = "photo"') == 1
    assert "gives 2 ages and 0 boxes" in capsys.readouterr().err


def test_annotated_boxes_are_cut_out(registry: Path, tmp_path: Path) -> None:
    frame = 'kind = "box"\nfit = "stretch"\nsize = 32\nlayout = "nhwc"\ndtype = "uint8"'
    out = tmp_path / "run"
    assert run(registry, out, format="callable", source="theirs.py:boxed", input=frame) == 0
    table = pd.read_parquet(out / "predictions" / "photos.parquet")
    shown = table[table["age"] % 10 != 0]
    assert len(table) == 40
    np.testing.assert_allclose(shown["age_pred"], shown["age"], atol=0.6)
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["faces"]["datasets"] == {"photos": "box"}
