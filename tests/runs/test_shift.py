"""Why the error on another dataset differs: in a run's metrics and in its report."""

import json
from pathlib import Path

import pytest

from agebench.cli import main
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


@pytest.mark.slow
def test_other_light_is_found_in_faces_of_the_same_ages(tmp_path: Path) -> None:
    """The ages of both generated sets are drawn alike; blur, light and palette differ."""
    (tmp_path / "cards" / "datasets").mkdir(parents=True)
    for name, options in OPTIONS.items():
        (tmp_path / "cards" / "datasets" / f"{name}.toml").write_text(CARD.format(name=name, options=options))
    words = ["run", "--train", "few", "--test", "few", "--test", "few-shift", "--model", "tiny", "--epochs", "2"]
    assert main([*words, "--registry", str(tmp_path / "cards"), "--out", str(tmp_path / "run")]) == 0
    content = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert "shift" not in content["tests"]["few"]
    shift = MetricsFile.from_json(content).tests["few-shift"].shift
    assert shift is not None
    assert shift.parts.same.ci_low is not None
    assert shift.parts.same.ci_low > 0
    mix = shift.parts.mix
    assert (mix.ci_low or 0) < 0 < (mix.ci_high or 0)
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
