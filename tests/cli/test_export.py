import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from agebench.cli import main
from agebench.config.run import FacesConfig
from agebench.errors import UserError
from agebench.estimators.exported.adapter import ExportedEstimator
from agebench.estimators.exported.card import AccuracyComparison
from agebench.estimators.exported.loading import open_exported
from agebench.export import accuracy_check
from agebench.export.accuracy_check import AccuracyCheckFailed, CheckSubset, check_accuracy
from agebench.export.schema import SpeedSummary
from agebench.metrics.schema import MetricValue
from agebench.runs import export as exports
from agebench.runs.estimators import AnalysisSubject
from agebench.runs.export import plan_exports
from agebench.runs.run_dir import RunDir

pytestmark = pytest.mark.slow  # each asks a run that is trained for it

CARD = """
name = "few"
title = "Few"
reader = "synth"
licence = "made up"
citation = "nobody"
[options]
count = 120
seed = 11
"""


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of a tiny model; its dataset's card stands in `cards` beside it."""
    home = tmp_path_factory.mktemp("done")
    (home / "cards" / "datasets").mkdir(parents=True)
    (home / "cards" / "datasets" / "few.toml").write_text(CARD)
    words = ["run", "--train", "few", "--test", "few", "--model", "tiny", "--epochs", "1", "--set", "model.size=32"]
    words += ["--set", "evaluate.resamples=100", "--registry", str(home / "cards"), "--out", str(home / "run")]
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("AGEBENCH_CACHE", str(home / "cache"))
        assert main(words) == 0
    return home / "run"


@pytest.fixture
def export(done: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("AGEBENCH_CACHE", str(done.parent / "cache"))
    monkeypatch.setattr(exports, "measure_speed", lambda *_: {"batch_1": _SPEED, "batch_64": _SPEED})
    return lambda *words, run=done: main(["export", str(run), "--registry", str(done.parent / "cards"), *words])


_SPEED = SpeedSummary(median_ms=2.0, images_per_s=500.0)


def test_a_run_leaves_a_card_in_its_own_export(done: Path) -> None:
    card = open_exported(done / "export" / "model.ts", trusted=True).card
    assert (card.training.dataset, card.training.licence) == ("few", "made up")
    assert (card.training.train or 0) > 50
    assert card.to_json()["figures"] == json.loads((done / "metrics.json").read_text())
    assert "made up" in card.licence


def test_the_command_end_to_end(export: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert export("--format", "torchscript", "--precision", "fp32,int8", "--out", str(tmp_path)) == 0
    shown = capfd.readouterr()
    assert "model.ts" in shown.out
    assert "largest difference" in shown.out
    assert "not written: model.int8.ts" in shown.err
    assert "arning" not in shown.err
    beside = json.loads((tmp_path / "model.ts.json").read_text())
    assert beside["speed"]["batch_1"] == _SPEED.to_json()
    assert beside["checked"]["faces"] > 10
    assert beside["bytes"] == (tmp_path / "model.ts").stat().st_size


MANUAL = (Path(__file__).parents[2] / "docs" / "how-to" / "export.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^agebench export RUN(.*?)(?:  #.*)?$", MANUAL, re.MULTILINE)


@pytest.mark.slow
@pytest.mark.parametrize("options", COMMANDS)
def test_the_manuals_commands(options: str, export: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A tiny model after one epoch may be refused in int8; nothing else may go wrong, and nothing may be said beside it."""
    code = export(*options.split(), "--out", str(tmp_path))
    shown = capfd.readouterr()
    refused = shown.err.count("refused: ")
    assert code == bool(refused)
    assert "arning" not in shown.err
    assert len(shown.err.splitlines()) == 1 + refused
    files = [file for file in tmp_path.iterdir() if file.suffix != ".json"]
    assert files
    for file in files:
        card = open_exported(file, trusted=True).card
        assert (card.precision == "fp32") == (not card.accuracy)
        assert json.loads((tmp_path / f"{file.name}.json").read_text())["checked"] == card.to_json()["checked"]


def test_a_file_that_answers_too_differently_is_refused(
    export: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(accuracy_check, "compare_accuracy", _far_off)
    (tmp_path / "model.bf16.ts").write_bytes(b"an earlier one")
    words = ["--format", "torchscript", "--precision", "bf16", "--images", "10", "--out", str(tmp_path), "--json"]
    assert export(*words) == 1
    shown = capsys.readouterr()
    assert json.loads(shown.out)["refused"][0]["file"] == "model.bf16.ts"
    assert "refused: model.bf16.ts: MAE on few changes by +3.000 years [+2.500, +3.500]" in shown.err
    assert list(tmp_path.iterdir()) == []


def _far_off(*_: Any, **options: Any) -> AccuracyComparison:
    mae, change = MetricValue(value=4.0), MetricValue(value=3.0, ci_low=2.5, ci_high=3.5)
    return AccuracyComparison(n=10, subjects=None, model=mae, file=mae, change=change, allowed=[-1.0, 1.0])


class Off:
    """Answers `years` too high."""

    def __init__(self, ages: np.ndarray, years: float) -> None:
        self.ages, self.years = ages, years

    def estimate(self, faces: np.ndarray) -> Any:
        return type("Said", (), {"age": (self.ages + self.years).astype(np.float32)})


@pytest.mark.parametrize(("years", "kept"), [(0.0, True), (0.2, True), (1.0, False), (-1.0, False)])
def test_the_rule(years: float, kept: bool) -> None:
    """The model is 4 years too high everywhere, so MAE moves by what the file adds."""
    ages = np.linspace(10, 80, 60)
    table = pd.DataFrame({"sample_id": [f"{n}" for n in range(60)], "age": ages, "age_pred": ages + 4})
    tests = {
        "few": CheckSubset(np.zeros((60, 32, 32, 3), np.uint8), table, MetricValue(value=4.0, ci_low=3.5, ci_high=4.5))
    }
    file: Any = Off(ages + 4, years)
    if kept:
        found = check_accuracy(file, tests, resamples=100)["few"]
        assert found.change.value == pytest.approx(years, abs=1e-5)
        assert found.allowed == [-0.5, 0.5]
    else:
        with pytest.raises(AccuracyCheckFailed, match=r"MAE on few changes by .*allows -0\.500 to \+0\.500"):
            check_accuracy(file, tests, resamples=100)


def test_images_of_one_person_decide_nothing() -> None:
    table = pd.DataFrame({"sample_id": [f"{n}" for n in range(9)], "age": 30.0 + np.arange(9), "age_pred": 31.0})
    mae = MetricValue(value=4.0, ci_low=3.5, ci_high=4.5)
    subset = CheckSubset(np.zeros((9, 32, 32, 3), np.uint8), table.assign(subject="one"), mae)
    file: Any = Off(np.full(9, 31.0), 0)
    with pytest.raises(
        AccuracyCheckFailed, match="on few has no interval: the 9 images that were compared are of one person"
    ):
        check_accuracy(file, {"few": subset}, resamples=100)


def test_a_file_whose_ages_are_no_numbers_is_refused() -> None:
    table = pd.DataFrame({"sample_id": [f"{n}" for n in range(9)], "age": 30.0 + np.arange(9), "age_pred": 31.0})
    subset = CheckSubset(np.zeros((9, 32, 32, 3), np.uint8), table, MetricValue(value=4.0, ci_low=3.5, ci_high=4.5))
    file: Any = Off(np.where(np.arange(9) == 4, np.inf, 31.0), 0)
    with pytest.raises(AccuracyCheckFailed, match="returns ages that are no numbers, on few"):
        check_accuracy(file, {"few": subset}, resamples=100)


@pytest.mark.parametrize(
    ("formats", "precisions", "words"),
    [
        (["coreml"], ["fp32"], "--format coreml: there are torchscript, onnx, pt2"),
        (["onnx"], ["fp8"], "--precision fp8: there are fp32, bf16, fp16, int8"),
        ([], ["fp32"], "names nothing"),
        (["onnx"], ["bf16"], "no convolutions in bf16"),
        (["torchscript"], ["int8"], "int8 is written as onnx"),
    ],
)
def test_orders_that_cannot_be_met(formats: list[str], precisions: list[str], words: str) -> None:
    with pytest.raises(UserError, match=words):
        plan_exports(formats, precisions)


@pytest.mark.parametrize(
    ("options", "words"), [(["--images", "1"], "--images 1"), (["--resamples", "5"], "--resamples 5")]
)
def test_bad_options(export: Any, options: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert export(*options) == 2
    assert words in capsys.readouterr().err


def test_what_is_no_finished_run_of_one_model(
    export: Any, done: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export("--format", "torchscript", run=tmp_path) == 2
    assert "contains no run" in capsys.readouterr().err
    (tmp_path / "checkpoints").symlink_to(done / "checkpoints")
    (tmp_path / "config.toml").write_text((done / "config.toml").read_text())
    (tmp_path / "manifest.json").write_text('{"finished": false}')
    assert export("--format", "torchscript", run=tmp_path) == 2
    assert "is not finished" in capsys.readouterr().err
    (tmp_path / "folds").mkdir()
    assert export("--format", "torchscript", run=tmp_path) == 2
    assert "a model a fold" in capsys.readouterr().err


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnxscript", None)
    with pytest.raises(UserError, match=r"agebench\[export\]"):
        plan_exports(["onnx"], ["fp32"])


def test_verify_compares_any_estimator_with_the_run(
    export: Any, done: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = str(done / "export" / "model.ts")
    assert export("--verify", file, "--allow-code-execution", "--device", "cpu", "--json") == 0
    check = json.loads(capsys.readouterr().out)
    few = check["tests"]["few"]
    assert check["passed"]
    assert few["passed"]
    assert few["max_difference"] < 0.01
    assert few["n"] == json.loads((done / "metrics.json").read_text())["tests"]["few"]["n"]
    assert check["training_overlap"] == {"few": "known"}
    assert export("--verify", file, "--allow-code-execution", "--device", "cpu", "--images", "5") == 0
    shown = capsys.readouterr().out
    assert "| few" in shown
    assert "within" in shown


def test_verify_fails_outside_of_the_runs_interval(
    export: Any, done: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    estimate = ExportedEstimator.estimate

    def shifted(self: ExportedEstimator, images: np.ndarray) -> Any:
        return replace(estimate(self, images), age=estimate(self, images).age + 60)

    monkeypatch.setattr(ExportedEstimator, "estimate", shifted)
    words = ["--verify", str(done / "export" / "model.ts"), "--allow-code-execution", "--device", "cpu"]
    assert export(*words) == 1
    assert "OUTSIDE" in capsys.readouterr().out


def test_verify_leaves_out_and_counts_images_without_an_estimate(
    export: Any, done: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    estimate = ExportedEstimator.estimate
    first = {"failed": 1}

    def failing(self: ExportedEstimator, images: np.ndarray) -> Any:
        ages = estimate(self, images).age.copy()
        ages[: first["failed"]] = np.nan
        return replace(estimate(self, images), age=ages, failed=np.isnan(ages))

    monkeypatch.setattr(ExportedEstimator, "estimate", failing)
    words = ["--verify", str(done / "export" / "model.ts"), "--allow-code-execution", "--device", "cpu"]
    assert export(*words, "--json") == 0
    check = json.loads(capsys.readouterr().out)
    n = json.loads((done / "metrics.json").read_text())["tests"]["few"]["n"]
    assert check["failed"] == {"few": 1}
    assert check["tests"]["few"]["n"] == n - 1
    assert export(*words) == 0
    assert "Images without an estimate, which are left out: few: 1." in capsys.readouterr().out
    first["failed"] = n
    assert export(*words) == 2
    assert "no estimate for" in capsys.readouterr().err


def test_verify_prepares_the_faces_of_a_file_as_the_run_did(
    export: Any, done: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings: list[FacesConfig | None] = []
    load = AnalysisSubject.load

    def watched(self: AnalysisSubject, name: str, faces: FacesConfig | None = None) -> Any:
        settings.append(faces)
        return load(self, name, faces)

    monkeypatch.setattr(AnalysisSubject, "load", watched)
    words = ["--verify", str(done / "export" / "model.ts"), "--allow-code-execution", "--device", "cpu"]
    assert export(*words) == 0
    assert settings == [RunDir(done).config().faces]
