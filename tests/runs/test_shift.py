"""Why the error on another dataset differs: in a run's metrics and in its report."""

import json
from pathlib import Path

import pytest

from agebench.cli import main
from agebench.metrics.schema import MetricsFile, MetricValue, ShiftParts, ShiftResult, TestResult
from agebench.reports.sections.shift import shift_parts


@pytest.mark.slow
def test_other_light_is_found_in_faces_of_the_same_ages(tmp_path: Path) -> None:
    """The ages of both generated sets are drawn alike; blur, light and palette differ."""
    words = ["run", "--train", "synth", "--test", "synth", "--test", "synth-shift", "--model", "tiny", "--epochs", "2"]
    assert main([*words, "--out", str(tmp_path / "run")]) == 0
    content = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert "shift" not in content["tests"]["synth"]
    shift = MetricsFile.from_json(content).tests["synth-shift"].shift
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
