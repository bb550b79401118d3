"""A model that reads the age off a mark in a corner: both commands must find it out. Through the real commands."""

import contextlib
import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from agebench.cli import main
from agebench.data.readers import readers
from agebench.data.readers.synth import SynthReader

CARD = """
name = "{name}"
title = "Faces with their age in a corner"
reader = "{reader}"
licence = "CC0-1.0"
faces = "{faces}"
groups = ["gender"]
[options]
count = {count}
seed = {seed}
size = 64
"""
pytestmark = pytest.mark.slow

PLAIN = ("rotate", "scale", "shift", "flip", "brightness", "saturation", "grey")


class Marked(SynthReader):
    """The top left corner's grey is the age."""

    def image_bytes(self, path: str) -> bytes:
        image = Image.open(io.BytesIO(super().image_bytes(path)))
        age = float(self._table["age"][int(path[6:12])])
        side = self.size // 5
        image.paste((round(255 * age / 90),) * 3, (0, 0, side, side))
        file = io.BytesIO()
        image.save(file, "PNG")
        return file.getvalue()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a registry, a cache and a finished run."""
    folder = tmp_path_factory.mktemp("marked")
    if "synth-marked" not in readers.names():
        readers.register("synth-marked", Marked)
    (folder / "cards" / "datasets").mkdir(parents=True)
    for name, count, seed, faces in (
        ("marked", 320, 5, "none"),
        ("others", 40, 6, "none"),
        ("pointless", 20, 7, "landmarks"),
    ):
        card = CARD.format(name=name, reader="synth-marked", count=count, seed=seed, faces=faces)
        if faces == "landmarks":
            card = card.replace("[options]", "landmark_points = [0, 1, 2]\n[options]")
        (folder / "cards" / "datasets" / f"{name}.toml").write_text(card)
    words = [
        "run",
        "--train",
        "marked",
        "--test",
        "marked",
        "--model",
        "tiny",
        "--epochs",
        "20",
        "--out",
        str(folder / "run"),
    ]
    words += ["--set", "model.size=32", "--set", "evaluate.resamples=100", "--registry", str(folder / "cards")]
    for name in PLAIN:
        words += ["--set", f"train.augment.{name}=0"]
    with pytest.MonkeyPatch.context() as patched, contextlib.redirect_stdout(io.StringIO()):
        patched.setenv("AGEBENCH_CACHE", str(folder / "cache"))
        assert main(words) == 0
    return folder


def call(home: Path, command: str, *more: str, test: str = "marked") -> int:
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("AGEBENCH_CACHE", str(home / "cache"))
        return main([command, str(home / "run"), "--test", test, "--registry", str(home / "cards"), *more])


@pytest.fixture(scope="module")
def stressed(home: Path) -> dict[str, Any]:
    with contextlib.redirect_stdout(io.StringIO()) as shown:
        assert call(home, "stress", "--occlude", "0.8,0.8,1,1", "--resamples", "200", "--json") == 0
    found: dict[str, Any] = json.loads(shown.getvalue())
    return found


@pytest.fixture(scope="module")
def explained(home: Path) -> dict[str, Any]:
    with contextlib.redirect_stdout(io.StringIO()) as shown:
        assert call(home, "explain", "--images", "40", "--json") == 0
    found: dict[str, Any] = json.loads(shown.getvalue())
    return found


def test_stress_breaks_the_model_where_the_mark_is_covered(stressed: dict[str, Any]) -> None:
    relative = {name: entry["relative"] for name, entry in stressed["corruptions"].items()}
    assert relative["corners"]["low"] > 1.5
    assert relative["corners"]["value"] > 1.3 * max(relative[name]["value"] for name in ("eyes", "mouth", "forehead"))
    assert relative["box-1"]["value"] < 1.2  # another corner


def test_stress_says_what_the_run_says(home: Path, stressed: dict[str, Any]) -> None:
    metrics = json.loads((home / "run" / "metrics.json").read_text())["tests"]["marked"]
    assert stressed["n"] == metrics["n"]
    assert stressed["clean"]["mae"]["value"] == pytest.approx(metrics["overall"]["mae"]["value"], abs=1e-4)
    assert json.loads((home / "run" / "stress" / "marked.json").read_text()) == stressed


def test_relative_error_follows_from_the_answers(home: Path, stressed: dict[str, Any]) -> None:
    table = pd.read_parquet(home / "run" / "stress" / "marked.parquet")
    error = {name: float((table[name] - table["age"]).abs().mean()) for name in table.columns[2:]}
    means = []
    for name, entry in stressed["corruptions"].items():
        assert [figure["value"] for figure in entry["mae"]] == pytest.approx(
            [error[f"{name}-{k}"] for k in range(1, 6)], rel=1e-4
        )
        means.append(np.mean([error[f"{name}-{k}"] for k in range(1, 6)]) / error["clean"])
        assert entry["relative"]["low"] <= entry["relative"]["value"] <= entry["relative"]["high"]
    assert stressed["summary"]["relative_error"]["value"] == pytest.approx(np.mean(means), rel=1e-4)
    mirror = (table["mirror-1"] - table["clean"]).abs().mean()
    assert stressed["consistency"]["mirror"]["change"]["value"] == pytest.approx(mirror, rel=1e-4)
    groups = stressed["groups"]["gender"]
    assert sum(entry["n"] for entry in groups.values()) == stressed["n"]
    assert set(groups["female"]["corruptions"]) == set(stressed["corruptions"])


def test_explain_points_at_the_mark(explained: dict[str, Any]) -> None:
    for name in ("integrated-gradients", "occlusion"):
        regions = explained["methods"][name]["regions"]
        assert regions["corners"]["times"] == max(of["times"] for of in regions.values()), name
        assert regions["corners"]["times"] > 1.3, name
    assert explained["methods"]["occlusion"]["sanity"]["deletion"]["passed"]
    assert explained["methods"]["occlusion"]["sanity"]["randomised"]["passed"]


def test_explain_leaves_its_pictures_and_says_which_groups_are_small(home: Path, explained: dict[str, Any]) -> None:
    figures = {file.name for file in (home / "run" / "explain" / "figures").iterdir()}
    assert {"marked-faces.png", "marked-mean-0.png", "marked-sanity.png"} <= figures
    text = (home / "run" / "explain" / "marked.md").read_text()
    assert "too few faces for a mean map" in text
    assert not list((home / "run").rglob("*.tmp*"))


def test_any_dataset_can_be_asked_less_what_was_trained_on(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(home, "stress", "--corruption", "grey", "--resamples", "0", "--json", test="others") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["n"] == 40
    assert found["summary"]["relative_error"]["low"] is None


@pytest.mark.parametrize(
    ("command", "more", "test", "says"),
    [
        ("stress", (), "nowhere", "This run's test sets: marked"),
        ("stress", ("--corruption", "blurr"), "marked", "did you mean 'blur'"),
        ("stress", ("--occlude", "0,0,2,1"), "marked", "shares of the image's side"),
        ("stress", (), "pointless", "no face could be prepared|has a face"),
        ("explain", ("--image", "who"), "marked", "no such image"),
        ("explain", ("--images", "1"), "marked", "give 2 or more"),
    ],
)
def test_bad_input(
    home: Path, command: str, more: tuple[str, ...], test: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(home, command, *more, test=test) == 2
    said = capsys.readouterr().err
    assert any(part in said for part in says.split("|")), said
    assert not (home / "run" / command / f"{test}.json").exists() or test == "marked"


def test_without_captum(home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    monkeypatch.setitem(sys.modules, "captum", None)
    assert call(home, "explain") == 2
    assert "pip install 'agebench[explain]'" in capsys.readouterr().err


def test_without_a_checkpoint(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    best = home / "run" / "checkpoints" / "best.safetensors"
    best.rename(best.with_suffix(".away"))
    try:
        for command in ("stress", "explain"):
            assert call(home, command) == 2
            assert "no such checkpoint" in capsys.readouterr().err
    finally:
        best.with_suffix(".away").rename(best)
    assert main(["stress", str(home), "--test", "marked"]) == 2
    assert "contains no run" in capsys.readouterr().err
