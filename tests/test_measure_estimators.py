"""`benchmarks/estimators/measure.py` tests each pair once, records it, names failures, and continues where it stopped."""

import importlib.util
import sys
from pathlib import Path

import pytest
from factories import few_card

FILE = Path(__file__).parents[1] / "benchmarks" / "estimators" / "measure.py"
CARD = """\
name = "always-{age}"
kind = "external"
title = "Always {age}"
format = "callable"
source = "code.py:{function}"
licence = "for tests only"
training_data = "nothing"
input = {{size = 16}}
"""


@pytest.mark.slow
def test_measure_continues_after_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    models = tmp_path / "registry" / "models"
    models.mkdir(parents=True)
    (models.parent / "datasets").mkdir()
    (models.parent / "datasets" / "few.toml").write_text(few_card(60, size=64))
    (models / "good.toml").write_text(CARD.format(age=30, function="thirty"))
    (models / "bad.toml").write_text(CARD.format(age=40, function="missing"))
    (models / "code.py").write_text("def thirty(faces):\n    return [30.0] * len(faces)\n")
    monkeypatch.setenv("AGEBENCH_REGISTRY", str(models.parent))
    spec = importlib.util.spec_from_file_location("measure", FILE)
    assert spec is not None
    assert spec.loader is not None
    measure = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(measure)
    words = ["--models", "always-40", "always-30", "--datasets", "few", "--runs", str(tmp_path / "runs")]
    monkeypatch.setattr(sys, "argv", ["measure.py", *words, "--results", str(tmp_path / "records")])
    with pytest.raises(SystemExit) as end:
        measure.main()
    assert end.value.code == 1
    printed = capsys.readouterr().out
    assert "always-40-on-few: FAILED" in printed
    assert "always-30-on-few: MAE" in printed
    assert "1 pairs failed: always-40 on few" in printed
    assert len(list((tmp_path / "records").glob("*.json"))) == 1
    (models / "code.py").write_text("def thirty(faces):\n    raise SystemExit\n\n\nmissing = thirty\n")
    with pytest.raises(SystemExit):
        measure.main()
    assert "always-30-on-few: recorded before, MAE" in capsys.readouterr().out
