"""Why the error on another dataset differs: in a run's metrics and in its report."""

import json
from pathlib import Path

import numpy as np
import pytest

from agebench.cli import main
from agebench.data.readers.synth import SynthReader
from agebench.metrics.schema import MetricsFile, MetricValue, ShiftParts, ShiftResult, TestResult
from agebench.reports.sections.shift import shift_parts

# The shipped sets `synth` and `synth-shift` as images of 64 pixels: to draw and to read larger ones takes most of the time.
CARD = """
name = "{name}"
title = "Generated faces"
reader = "synth"
licence = "CC0-1.0"
faces = "none"
groups = ["gender", "race"]
[options]
size = 64
{options}
"""
OPTIONS = {
    "few": "count = 1500\nseed = 1",
    "few-shift": "count = 600\nseed = 2\nblur = 1.5\nlighting = 0.5\npalette = 0.5",
}


def is_above_zero(part: MetricValue) -> bool:
    return part.ci_low is not None and part.ci_low > 0


def write_older(folder: Path, **conditions: float) -> None:
    """Write generated faces of which few are younger than 50, as files with a table."""
    reader = SynthReader(None, count=900, seed=3, size=64, **conditions)
    table = reader.read().table
    kept = table[(table["age"] >= 50) | (np.arange(len(table)) % 8 == 0)]
    folder.mkdir(parents=True)
    for name, path in zip(kept["sample_id"], kept["path"], strict=True):
        (folder / f"{name}.png").write_bytes(reader.image_bytes(path))
    rows = kept.assign(path=[f"{name}.png" for name in kept["sample_id"]])
    rows[["path", "age", "gender", "race"]].to_csv(folder / "labels.csv", index=False)


@pytest.mark.slow
def test_planted_shifts_are_found_where_they_were_planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other light (blur, light, palette; ages are drawn alike), other ages, or both."""
    (tmp_path / "cards" / "datasets").mkdir(parents=True)
    for name, options in OPTIONS.items():
        (tmp_path / "cards" / "datasets" / f"{name}.toml").write_text(CARD.format(name=name, options=options))
    monkeypatch.setenv("AGEBENCH_DATA", str(tmp_path / "data"))
    for name, conditions in (("older", {}), ("older-shift", {"blur": 1.5, "lighting": 0.5, "palette": 0.5})):
        write_older(tmp_path / "data" / name, **conditions)
        card = (
            CARD.format(name=name, options='table = "labels.csv"').replace('"synth"', '"csv"').replace("size = 64", "")
        )
        (tmp_path / "cards" / "datasets" / f"{name}.toml").write_text(card)
    words = ["run", "--train", "few", *(f"--test={name}" for name in ("few", "few-shift", "older", "older-shift"))]
    words += [
        "--model",
        "tiny",
        "--epochs",
        "2",
        "--set",
        "evaluate.resamples=300",
        "--registry",
        str(tmp_path / "cards"),
        "--out",
        str(tmp_path / "run"),
    ]
    assert main(words) == 0
    content = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert "shift" not in content["tests"]["few"]
    tests = MetricsFile.from_json(content).tests
    shown = {}
    for name in ("few-shift", "older", "older-shift"):
        found = tests[name].shift
        assert found is not None
        shown[name] = [is_above_zero(part) for part in (found.parts.mix, found.parts.same)]
    assert shown == {"few-shift": [False, True], "older": [True, False], "older-shift": [True, True]}
    shift = MetricsFile.from_json(content).tests["few-shift"].shift
    assert shift is not None
    assert shift.parts.same.ci_low is not None
    assert shift.parts.same.ci_low > 0
    mix = shift.parts.mix
    assert (mix.ci_low or 0) < 0 < (mix.ci_high or 0)  # not shown to be lower either
    assert [row.n for row in shift.recalibration] == [50, 100, 200]
    for name in ("report.md", "report.html"):
        assert "Why the error differs between datasets" in (tmp_path / "run" / name).read_text()


def test_a_report_names_the_parts_that_are_shown() -> None:
    shown, unclear = MetricValue(value=2.0, ci_low=1.0, ci_high=3.0), MetricValue(value=0.1, ci_low=-1.0, ci_high=1.0)
    parts = ShiftParts(mix=unclear, same=shown, outside=unclear, n_outside=0, ages=[[0, 4]])
    shift = ShiftResult(source="home", difference=shown, parts=parts)
    metrics = MetricsFile(train="home", tests={"home": TestResult(n=1), "away": TestResult(n=1, shift=shift)})
    text = "\n".join(shift_parts(metrics))
    assert "It is raised by other faces of the same ages (+2.00 [+1.00, +3.00])." in text
    assert "lowered" not in text
    assert shift_parts(MetricsFile(train="home", tests={"home": TestResult(n=1)})) == []
