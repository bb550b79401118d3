"""`run --grid`, `--limit` and `--dry-run`, end to end on a few generated faces."""

import json
import shlex
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from factories import few_card

from agebench.cli import main
from agebench.config.run import RunConfig
from agebench.registry.catalog import Catalog
from agebench.runs.run_dir import RunDir
from agebench.suites import scheduler

CARD = few_card(90, seed=11, size=64)
EXTERNAL = """
name = "constant"
kind = "external"
title = "Constant"
format = "callable"
source = "constant.py:predict"
licence = "CC0-1.0"
"""


@pytest.fixture
def cards(tmp_path: Path) -> Path:
    for folder in ("datasets", "models"):
        (tmp_path / "cards" / folder).mkdir(parents=True)
    (tmp_path / "cards/datasets/few.toml").write_text(CARD)
    (tmp_path / "cards/models/constant.toml").write_text(EXTERNAL)
    (tmp_path / "cards/models/constant.py").write_text("def predict(images):\n    return [30.0] * len(images)\n")
    return tmp_path / "cards"


def run_args(cards: Path, *more: str) -> list[str]:
    settings = ["--epochs", "1", "--set", "model.size=32", "--set", "evaluate.resamples=100", "--device", "cpu"]
    return ["run", "--train", "few", "--model", "tiny", *settings, "--registry", str(cards), *more]


def test_grid_leaves_a_folder_for_each_value(cards: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = cards.parent / "grid"
    words = run_args(cards, "--limit", "60", "--grid", "train.lr=1e-3,1e-4", "--out", str(out), "--json")
    assert main(words) == 0
    rows = json.loads(capsys.readouterr().out)["runs"]
    assert [row["values"] for row in rows] == [{"train.lr": "1e-3"}, {"train.lr": "1e-4"}]
    assert sorted(row["run"] for row in rows) == sorted(str(path) for path in out.iterdir())
    for row in rows:
        manifest = json.loads((Path(row["run"]) / "manifest.json").read_text())
        assert manifest["finished"]
        assert manifest["limit"] == 60
        counts = manifest["samples"]["few"]
        assert sum(counts[split] for split in ("train", "val", "test")) == 60
        assert counts["rejected"] == {"excluded": 30}
        assert "never ranked" in (Path(row["run"]) / "report.md").read_text()
    assert main(words) == 0  # finished runs are not repeated
    assert "finished; nothing is repeated" in capsys.readouterr().err


def test_a_failed_value_stops_no_other(cards: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = cards.parent / "grid"
    words = run_args(cards, "--grid", "pretrained=nosuch.pt,other.pt", "--out", str(out), "--json")
    assert main(words) == 1
    rows = json.loads(capsys.readouterr().out)["runs"]
    assert [row["error"] for row in rows] == [
        f"{name}.pt: the weights file does not exist" for name in ("nosuch", "other")
    ]
    assert [row["metrics"] for row in rows] == [None, None]


def test_dry_run_writes_nothing(cards: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = cards.parent / "run"
    assert main(run_args(cards, "--limit", "50", "--out", str(out), "--dry-run")) == 0
    shown = capsys.readouterr().out
    assert f"folder: {out} (pending)" in shown
    assert "train and test" in shown
    assert "limit = 50" in shown
    assert not out.exists()


def test_an_external_model_is_tested_on_a_subset(cards: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = cards.parent / "test"
    words = [
        "test",
        "--model",
        "constant",
        "--test",
        "few",
        "--limit",
        "40",
        "--registry",
        str(cards),
        "--out",
        str(out),
    ]
    assert main([*words, "--dry-run", "--json"]) == 0
    (plan,) = json.loads(capsys.readouterr().out)["runs"]
    assert plan["datasets"] == [{"name": "few", "role": "test", "n_images": 40, "n_rejected": 0}]
    assert main([*words, "--set", "evaluate.resamples=100"]) == 0
    manifest = json.loads((out / "manifest.json").read_text())
    assert (manifest["limit"], manifest["samples"]["few"]["test"]) == (40, 40)


def test_a_suite_is_planned_over_a_grid(cards: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "suite",
        "run",
        "smoke",
        "--runs",
        str(cards.parent / "runs"),
        "--grid",
        "train.epochs=1,2",
        "--limit",
        "40",
    ]
    assert main([*words, "--dry-run", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["runs"]
    assert {row["state"] for row in rows} == {"pending"}
    assert all("limit40" in row["run"] for row in rows)
    assert {row["variant"].split()[-1] for row in rows} == {"train.epochs=1", "train.epochs=2"}
    assert not (cards.parent / "runs").exists()


def stop(*arguments: Any, **options: Any) -> None:
    raise KeyboardInterrupt


def test_an_interrupted_suite_prints_its_whole_command(
    cards: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(scheduler, "run_jobs", stop)
    words = ["suite", "run", "smoke", "--runs", str(cards.parent / "my runs"), "--set", "train.epochs=1"]
    words += ["--limit", "40", "--registry", str(cards), "--budget", "3"]
    assert main(words) == 130
    printed = capsys.readouterr().err.splitlines()[-1]
    start = "interrupted; the same command continues: "
    assert printed.startswith(start)
    assert shlex.split(printed.removeprefix(start)) == ["agebench", *words]


def test_an_interrupted_run_prints_a_command_that_finds_its_cards(
    cards: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def begin(config: RunConfig, catalog: Catalog, folder: RunDir, **options: Any) -> None:
        folder.begin(config)
        raise KeyboardInterrupt

    monkeypatch.setattr("agebench.runs.run.run", begin)
    monkeypatch.setattr(RunDir, "started", lambda folder: (folder.path / "config.toml").exists())
    out = cards.parent / "my run"
    assert main(run_args(cards, "--out", str(out), "--tracker", "tensorboard", "--tracker", "mlflow")) == 130
    command = shlex.split(capsys.readouterr().err.splitlines()[-1])
    assert command[:2] == ["agebench", "run"]
    assert main(command[1:]) == 130
    assert {*pairwise(command)} >= {
        ("--config", str(out / "config.toml")),
        ("--out", str(out)),
        ("--registry", str(cards)),
        ("--tracker", "mlflow"),
    }
