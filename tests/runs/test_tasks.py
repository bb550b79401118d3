"""Targets beside age, through the real command."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from agebench.cli import main
from agebench.errors import UserError
from agebench.models.auxiliary_heads import UNKNOWN, cross_entropy
from agebench.registry.catalog import load_catalog
from agebench.runs.resolve import resolve_config
from agebench.runs.run import initial_model

pytestmark = pytest.mark.slow  # each asks a run that is trained for it

CARD = """
name = "{name}"
title = "A few generated faces"
reader = "{reader}"
licence = "CC0-1.0"
faces = "none"
groups = {groups}
[options]
"""


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cards")
    (folder / "datasets").mkdir()
    for name, groups, options in (
        ("few", '["gender", "race"]', "count = 160\nseed = 11\n"),
        ("other", '["gender"]', "count = 40\nseed = 12\n"),
    ):
        text = CARD.format(name=name, reader="synth", groups=groups) + options
        (folder / "datasets" / f"{name}.toml").write_text(text)
    return folder


@pytest.fixture(autouse=True)
def one_cache(registry: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The generated faces are made once."""
    monkeypatch.setenv("AGEBENCH_CACHE", str(registry / "cache"))


def command(registry: Path, out: Path, *more: str) -> list[str]:
    words = ["run", "--train", "few", "--test", "few", "--test", "other", "--model", "tiny", "--epochs", "2"]
    return [
        *words,
        *("--set", "model.size=32", "--set", "evaluate.resamples=100"),
        *("--registry", str(registry), "--out", str(out), *more),
    ]


@pytest.fixture(scope="module")
def done(registry: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("done")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("AGEBENCH_CACHE", str(registry / "cache"))
        assert main(command(registry, home / "run", "--task", "gender", "--task", "race=0.5")) == 0
    return home / "run"


def test_predictions_carry_the_class_and_its_probability(done: Path) -> None:
    table = pd.read_parquet(done / "predictions" / "few.parquet")
    assert set(table["gender_pred"]) <= {"female", "male"}
    assert set(table["race_pred"]) <= {"light", "medium", "dark"}
    assert table["gender_prob"].between(0.5, 1).all()
    assert table["race_prob"].between(1 / 3, 1).all()


def test_figures_are_those_of_the_predictions(done: Path) -> None:
    metrics = json.loads((done / "metrics.json").read_text())
    for test in ("few", "other"):
        table = pd.read_parquet(done / "predictions" / f"{test}.parquet")
        found = metrics["tests"][test]["tasks"]["gender"]
        hits = table["gender"] == table["gender_pred"]
        assert found["n"] == len(table)
        assert found["accuracy"]["value"] == pytest.approx(hits.mean())
        recalls = hits.groupby(table["gender"].astype(str)).mean()
        assert found["balanced_accuracy"]["value"] == pytest.approx(recalls.mean())
        assert found["classes"]["female"]["recall"]["value"] == pytest.approx(recalls["female"])
        assert found["majority"] == pytest.approx(table["gender"].value_counts(normalize=True).max())
        assert 0 <= found["accuracy"]["ci_low"] <= found["accuracy"]["value"] <= found["accuracy"]["ci_high"] <= 1
    groups = metrics["tests"]["few"]["tasks"]["gender"]["groups"]
    assert set(groups) == {"age_band", "race"}
    by_race = pd.read_parquet(done / "predictions" / "few.parquet").groupby("race", observed=True)
    light = by_race.get_group("light")
    assert groups["race"]["light"]["accuracy"]["value"] == pytest.approx((light.gender == light.gender_pred).mean())


def test_the_report_says_it_and_the_manifest_keeps_it(done: Path) -> None:
    report = (done / "report.md").read_text()
    assert "## Other attributes" in report
    assert "balanced accuracy" in report
    assert "| gender: female" in report
    manifest = json.loads((done / "manifest.json").read_text())
    assert manifest["model"]["tasks"] == {"gender": 1.0, "race": 0.5}
    assert "loss_gender" in json.loads((done / "history.json").read_text())[0]


def test_age_is_as_good_as_without(done: Path) -> None:
    tests = json.loads((done / "metrics.json").read_text())["tests"]
    assert tests["few"]["overall"]["mae"]["value"] < tests["few"]["baseline_mae"] + 1


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--task", "smile"], "--task smile: the training set 'few' has no labels of it; it can learn: gender, race"),
        (["--task", "gender=-1"], "tasks.gender = '-1'"),
        (["--task", "gender=much"], "tasks.gender = 'much'"),
    ],
)
def test_a_task_that_cannot_be_learned(
    registry: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], message: str
) -> None:
    assert main(command(registry, tmp_path / "run", *more)) == 2
    assert message in capsys.readouterr().err


def test_a_task_of_no_weight_is_not_learned(registry: Path, tmp_path: Path) -> None:
    assert main(command(registry, tmp_path / "run", "--task", "gender=0", "--epochs", "1")) == 0
    assert "tasks" not in json.loads((tmp_path / "run" / "metrics.json").read_text())["tests"]["few"]


def test_a_task_is_learned_on_frozen_features(registry: Path, tmp_path: Path) -> None:
    more = ["--task", "gender", "--epochs", "1", "--set", "train.freeze=backbone"]
    assert main(command(registry, tmp_path / "run", *more)) == 0
    tests = json.loads((tmp_path / "run" / "metrics.json").read_text())["tests"]
    assert tests["few"]["tasks"]["gender"]["n"] == tests["few"]["n"]


def test_what_a_frozen_architecture_answers_is_not_learned(
    registry: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    swinface = ["--model", "swinface", "--set", "model.size=112", "--set", "train.freeze=backbone"]
    assert main(command(registry, tmp_path / "run", *swinface)) == 2
    assert "answers gender within its backbone, which would not be learned" in capsys.readouterr().err


def test_an_architecture_that_answers_the_age_itself_has_no_head_to_train_first(registry: Path) -> None:
    layers = [{"data": {"train": "few", "test": ["few"]}, "model": {"name": "volo-d1"}, "pretrained": ""}]
    config = resolve_config(load_catalog([registry]), [*layers, {"train": {"head_epochs": 1}}])
    with pytest.raises(UserError, match="answers age within its backbone, so that there is no head to train alone"):
        initial_model(config)


def test_faces_without_a_label_do_not_count() -> None:
    logits = torch.tensor([[2.0, 0.0], [0.0, 5.0], [1.0, 1.0]], requires_grad=True)
    loss = cross_entropy(logits, torch.tensor([0, UNKNOWN, 1]))
    expected = -np.log([np.exp(2) / (np.exp(2) + 1), 0.5]).mean()
    assert loss.item() == pytest.approx(expected)
    loss.backward()
    assert logits.grad is not None
    assert (logits.grad[1] == 0).all()
    assert cross_entropy(logits, torch.full((3,), UNKNOWN)).item() == 0
