"""The scripts in examples/ run, and their figures are those of agebench."""

import importlib.util
import math
import sys
from pathlib import Path
from types import ModuleType

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


def load_example(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    return module


def test_pytorch_example_judges_its_model(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torchmetrics")
    report = load_example("judge_pytorch", monkeypatch).train(epochs=2)
    assert "val/fpr_18_at_25" in capsys.readouterr().out
    assert report.overall["mae"].n == 600
    assert report.overall["mae"].ci_low < report.overall["mae"].value < 20
    assert report.verdict in ("shown", "not shown", "refuted")


def test_lightning_example_logs_the_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("lightning", reason="Lightning is not installed")
    pytest.importorskip("torchmetrics")
    values = load_example("judge_lightning", monkeypatch).train(epochs=2)
    assert set(values) == {"val/mae", "val/cs5", "val/fpr_18_at_25", "val/fnr_18_at_25"}
    assert all(math.isfinite(value) for value in values.values())
