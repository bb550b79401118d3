"""An audit from files to findings, and its command."""

import io
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from agebench.cli import main
from agebench.data.audit.label_checks import find_implausible_ages
from agebench.data.readers.synth import SynthReader

CARD = """
name = "{name}"
title = "Copies"
reader = "csv"
licence = "generated"
labels = ["age", "gender", "subject"]
groups = ["gender"]
faces = "none"
"""


def write(folder: Path, name: str, pictures: dict[str, Image.Image], rows: list[str], home: Path) -> None:
    for file, image in pictures.items():
        (home / name).mkdir(parents=True, exist_ok=True)
        image.save(home / name / file, quality=90)
    (home / name / "labels.csv").write_text("path,age,gender,subject,split\n" + "\n".join(rows) + "\n")
    (folder / "datasets").mkdir(parents=True, exist_ok=True)
    (folder / "datasets" / f"{name}.toml").write_text(CARD.format(name=name))


@pytest.fixture
def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`first`: six faces, a copy, a mirrored one of another age, a blank one; `second` has one of them, smaller."""
    monkeypatch.setenv("AGEBENCH_DATA", str(tmp_path / "data"))
    reader = SynthReader(None, count=40, seed=9)
    faces = [Image.open(io.BytesIO(reader.image_bytes(f"synth-{row:06d}.png"))) for row in range(0, 40, 6)]
    faces = [face.convert("RGB") for face in faces]
    noise = np.random.default_rng(1)
    faces = [  # texture that no other picture has, as photographs do
        Image.fromarray(
            np.clip(
                np.asarray(face, dtype=float)
                + np.asarray(
                    Image.fromarray(noise.integers(0, 90, (14, 14, 3), dtype=np.uint8)).resize(face.size), dtype=float
                ),
                0,
                255,
            ).astype(np.uint8)
        )
        for face in faces
    ]
    pictures = {f"{row}.png": face for row, face in enumerate(faces[:6])}
    pictures |= {"same.bmp": faces[0], "flip.jpg": faces[1].transpose(Image.Transpose.FLIP_LEFT_RIGHT)}
    pictures |= {"blank.png": Image.new("RGB", (100, 100), (90, 90, 90))}
    rows = [f"{row}.png,{20 + row},f,p{row},train" for row in range(6)]
    rows += ["same.bmp,20,f,p0,test", "flip.jpg,60,m,p1,test", "blank.png,30,f,,test"]
    write(tmp_path / "cards", "first", pictures, rows, tmp_path / "data")
    write(tmp_path / "cards", "second", {"a.png": faces[2].resize((80, 80))}, ["a.png,22,f,q,train"], tmp_path / "data")
    return tmp_path / "cards"


def audit(*words: object) -> int:
    return main(["data", "audit", *map(str, words)])


def test_what_was_planted_is_found(planted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert audit("first", "--against", "second", "--registry", planted, "--out", out, "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert said["copies"] == {"within": 1, "across": 0}
    assert said["near"] == {"within": 1, "across": 1}
    assert said["conflicts"] == {"age": 1, "gender": 1}
    assert said["quality"]["empty"] == 1
    near = pd.read_csv(out / "near.csv")
    assert {("1.png", "flip.jpg", True), ("2.png", "a.png", False)} == set(
        zip(near["sample_id"], near["other_id"], near["mirrored"], strict=True)
    )
    assert set(pd.read_csv(out / "exclude-conflicts.csv")["sample_id"]) == {"1.png", "flip.jpg"}
    assert pd.read_csv(out / "exclude-against.csv")["sample_id"].tolist() == ["2.png"]
    assert set(pd.read_csv(out / "exclude-copies.csv")["sample_id"]) == {"same.bmp", "flip.jpg"}
    subjects = pd.read_csv(out / "subjects.csv")
    assert subjects["problem"].tolist().count("is in several splits") == 2
    report = (out / "report.md").read_text()
    assert "figures/near.png" in report
    assert f"--exclude {out}/exclude-copies.csv" in report
    assert (out / "figures" / "conflicts.png").exists()


def test_every_exact_copy_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGEBENCH_DATA", str(tmp_path / "data"))
    noise = np.random.default_rng(2)
    face, other = (Image.fromarray(noise.integers(0, 255, (40, 40, 3), dtype=np.uint8)) for _ in range(2))
    names = ["a.png", "b.png", "c.bmp", "d.png", "e.png"]
    rows = ["a.png,20,f,p,train", "b.png,20,f,p,train", "c.bmp,30,m,p,train", "d.png,,f,p,train", "e.png,50,f,q,train"]
    pictures = dict.fromkeys(names, face) | {"e.png": other}
    write(tmp_path / "cards", "first", pictures, rows, tmp_path / "data")
    write(
        tmp_path / "cards",
        "second",
        {"x.png": face, "y.png": face},
        ["x.png,30,m,q,train", "y.png,31,f,q,train"],
        tmp_path / "data",
    )
    assert audit("first", "--against", "second", "--registry", tmp_path / "cards", "--out", tmp_path / "out") == 0
    conflicts = pd.read_csv(tmp_path / "out" / "conflicts.csv")
    ages, genders = (conflicts[conflicts["label"] == label] for label in ("age", "gender"))
    assert set(zip(ages["sample_id"], ages["other_id"], strict=True)) == {
        ("a.png", "c.bmp"),
        ("b.png", "c.bmp"),
        ("a.png", "x.png"),
        ("a.png", "y.png"),
    }
    assert set(zip(genders["sample_id"], genders["other_id"], strict=True)) == {("a.png", "c.bmp"), ("b.png", "c.bmp")}
    excluded = {
        kind: set(pd.read_csv(tmp_path / "out" / f"exclude-{kind}.csv")["sample_id"])
        for kind in ("conflicts", "against")
    }
    assert excluded["conflicts"] == excluded["against"] == {"a.png", "b.png", "c.bmp"}
    copies = pd.read_csv(tmp_path / "out" / "copies.csv")
    assert set(copies["sample_id"]) == {"a.png"}  # each with the first of its set


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("utk",), "agebench data import utk PATH"),
        (("synth", "--against", "synth"), "always compared with itself"),
        (("synth", "--against", "nosuch"), "no dataset called 'nosuch'"),
        (("synth", "--faces", "9", "--detector", "dlb"), "did you mean 'dlib'?"),
    ],
)
def test_mistakes_leave_nothing_behind(
    words: tuple[str, ...], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert audit(*words, "--out", tmp_path / "out") == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_age_far_from_all_others_of_its_subject_is_doubted() -> None:
    ages = {"a": [20, 23, 25, 71], "b": [2, 10, 20, 30], "c": [1, 60], "d": [112]}
    rows = [(f"{who}{age}", float(age), who) for who, each in ages.items() for age in each]
    found = find_implausible_ages(pd.DataFrame(rows, columns=["sample_id", "age", "subject"]))
    assert found["sample_id"].tolist() == ["a71", "d112"]
    ranged = pd.DataFrame({"sample_id": ["x"], "age": [30.0], "subject": [None], "age_low": [40.0], "age_high": [50.0]})
    assert "outside its own range, 40 to 50" in find_implausible_ages(ranged)["reason"].iloc[0]
