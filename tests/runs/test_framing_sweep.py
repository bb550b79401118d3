"""A sweep of crop scales, margins, channel orders and offsets states what the card of an external model should have."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from agebench.cli import main

DATASET = """
name = "squares"
title = "Red squares whose shade is the age"
reader = "csv"
licence = "CC0-1.0"
faces = "none"
[options]
table = "labels.csv"
"""
MODEL = """
name = "theirs"
kind = "external"
title = "Their model"
format = "callable"
source = "theirs.py:age"
licence = "ours"
[input]
size = 32
layout = "nhwc"
dtype = "uint8"
{input}
"""
# The squares fill a quarter of the image; the model was made for a crop scale of 1.8 and red first.
CODE = """
import numpy as np
def age(faces):
    return faces[..., 0].mean(axis=(1, 2)) * (2 * 1.8) ** 2
"""


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AGEBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("AGEBENCH_DATA", str(tmp_path / "data"))
    folder, rows = tmp_path / "data" / "squares", []
    folder.mkdir(parents=True)
    for number in range(40):
        pixels = np.zeros((64, 64, 3), np.uint8)
        pixels[16:48, 16:48] = (10 + 2 * number, 3, 20)
        Image.fromarray(pixels).save(folder / f"{number}.png")
        rows.append([f"{number}.png", 10 + 2 * number])
    pd.DataFrame(rows, columns=["path", "age"]).to_csv(folder / "labels.csv", index=False)
    for kind in ("datasets", "models"):
        (tmp_path / "cards" / kind).mkdir(parents=True)
    (tmp_path / "cards" / "datasets" / "squares.toml").write_text(DATASET)
    (tmp_path / "cards" / "models" / "theirs.py").write_text(CODE)
    return tmp_path / "cards"


def sweep(registry: Path, lines: str, *more: str) -> int:
    (registry / "models" / "theirs.toml").write_text(MODEL.format(input=lines))
    return main(["check", "theirs", "--sweep", "--test", "squares", "--registry", str(registry), *more])


def test_wrong_scale_and_channels_are_corrected(registry: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sweep(registry, 'channels = "bgr"', "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert result["best"]["channels"] == "rgb"
    assert result["best"]["coverage"] == 1.8
    assert result["is_better"]
    assert result["interval"][0] > 1
    own = next(row for row in result["rows"] if row["is_card"])
    assert own["settings"] == {"channels": "bgr", "coverage": 1.0, "offset": 0.0}
    assert own["mae"] - min(row["mae"] for row in result["rows"]) == pytest.approx(result["difference"])


def test_right_card_is_left_alone(registry: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sweep(registry, "coverage = 1.8") == 0
    text = capsys.readouterr().out
    assert "No setting that was tried is shown to be better than the card's" in text
    assert "the card's" in text


def test_sweep_of_a_trained_model_or_without_a_name_is_refused(
    registry: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", "tiny", "--sweep"]) == 2
    assert "--sweep is for external models" in capsys.readouterr().err
    assert main(["check", "--sweep"]) == 2
    assert "--sweep takes the name of one external model" in capsys.readouterr().err
    assert sweep(registry, "", "--limit", "3") == 2
    assert "needs 30 faces or more" in capsys.readouterr().err


def test_contract_check_names_the_sweep_and_calls_photograph_models(
    registry: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (registry / "models" / "theirs.toml").write_text(MODEL.format(input=""))
    assert main(["check", "theirs", "--registry", str(registry)]) == 1  # ages above 150 at this scale
    (registry / "models" / "theirs.py").write_text("def age(photo, box, points):\n    return photo.mean() / 5\n")
    (registry / "models" / "theirs.toml").write_text(MODEL.format(input='kind = "photo"'))
    capsys.readouterr()
    assert main(["check", "theirs", "--registry", str(registry)]) == 0
    assert "called with 6 generated photographs" in capsys.readouterr().out
