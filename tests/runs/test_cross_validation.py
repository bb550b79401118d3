"""Runs by a protocol, through the real command: many folds, leaks, and what is left when one is stopped."""

import json
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from agebench.cli import main
from agebench.leaderboard.markdown import group_into_systems, leaderboard
from agebench.leaderboard.records import make_record
from agebench.leaderboard.schema import parse_record
from agebench.leaderboard.verify import check_record
from agebench.runs import remote_dir
from agebench.runs import run as pipeline

pytestmark = pytest.mark.slow  # each trains several folds

CARD = """
name = "{name}"
title = "A few generated faces"
reader = "synth"
licence = "CC0-1.0"
faces = "none"
groups = ["gender"]
[options]
count = {count}
seed = {seed}
[[protocols]]
name = "three-fold"
kind = "folds"
k = 3
[[protocols]]
name = "leaky"
kind = "holdout"
strict = false
ages_below = 70
[[protocols]]
name = "twice"
kind = "folds"
column = "gender"
splits = [{{ train = ["male"], test = ["female"] }}, {{ train = ["male"], test = ["female"] }}]
"""


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cards")
    (folder / "datasets").mkdir()
    for name, count, seed in (("few", 90, 11), ("other", 40, 12)):
        (folder / "datasets" / f"{name}.toml").write_text(CARD.format(name=name, count=count, seed=seed))
    return folder


def command(registry: Path, out: Path, protocol: str, *more: str) -> list[str]:
    words = ["run", "--train", "few", "--test", "few", "--protocol", protocol, "--model", "tiny", "--epochs", "1"]
    small = ["--set", "model.size=32", "--set", "evaluate.resamples=100", "--set", "train.batch_size=16"]
    return [*words, *small, "--registry", str(registry), "--out", str(out), *more]


def content(run: Path, name: str) -> Any:
    return json.loads((run / name).read_text())


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(autouse=True)
def one_cache(own_homes: None, cache: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Generated faces are drawn once for all tests here."""
    monkeypatch.setenv("AGEBENCH_CACHE", cache)


@pytest.fixture(scope="module")
def done(registry: Path, cache: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three folds of few, each also asked about other."""
    home = tmp_path_factory.mktemp("folds")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("AGEBENCH_CACHE", cache)
        assert main(command(registry, home / "run", "three-fold", "--test", "other")) == 0
    return home / "run"


def test_the_folds_are_one_test_of_all_images(done: Path) -> None:
    figures = content(done, "metrics.json")["tests"]["few"]
    table = pd.read_parquet(done / "predictions" / "few.parquet")
    assert (figures["n"], figures["subjects"], table["sample_id"].nunique()) == (90, 45, 90)
    assert figures["method"]["resampled"] == "subjects"
    assert figures["overall"]["mae"]["value"] == pytest.approx((table["age_pred"] - table["age"]).abs().mean())
    assert figures["folds"]["names"] == ["1", "2", "3"]
    assert sum(figures["folds"]["n"]) == 90
    assert table.groupby("subject")["tested_in"].nunique().max() == 1


def test_another_set_is_asked_by_every_fold_like_by_several_seeds(done: Path) -> None:
    figures = content(done, "metrics.json")["tests"]["other"]
    assert figures["n"] == 40
    assert figures["seeds"]["count"] == 3
    assert figures["overall"]["mae"]["value"] == pytest.approx(figures["folds"]["mean"])
    assert len(pd.read_parquet(done / "predictions" / "other.parquet")) == 120


def test_what_a_run_of_folds_leaves(done: Path) -> None:
    manifest, metrics = content(done, "manifest.json"), content(done, "metrics.json")
    assert manifest["finished"]
    assert manifest["protocol"] == metrics["protocol"]
    assert metrics["protocol"] == {
        "name": "three-fold",
        "folds": 3,
        "leaks": {"duplicates": 0, "subjects": 0},
        "split_scheme": 2,
    }
    assert "leaks" not in metrics["tests"]["few"]
    parts = pd.read_csv(done / "lists" / "folds.csv", dtype=str)
    assert (parts[["fold 1", "fold 2", "fold 3"]] == "test").sum(axis=1).eq(1).all()
    assert sorted(path.name for path in (done / "folds").iterdir()) == ["1", "2", "3"]
    assert not list(done.rglob("last.safetensors"))
    report = (done / "report.md").read_text()
    assert "few was divided by its protocol three-fold into 3 folds, each with a model of its own." in report
    assert "in each of 3 folds" in report


def test_its_record_holds_and_names_the_protocol(done: Path) -> None:
    record = make_record(done)
    assert list(check_record(record, done)) == []
    assert record["id"].startswith("few-three-fold-tiny")
    assert "protocol three-fold" in leaderboard(group_into_systems([parse_record(record)]), [])


def test_folds_that_are_done_are_not_done_again(
    registry: Path, done: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    train, calls = pipeline.fit, []

    def twice(*arguments: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return train(*arguments, **options)

    cut = tmp_path / "cut"
    monkeypatch.setattr(pipeline, "fit", twice)
    words = command(registry, cut, "three-fold", "--test", "other")
    assert main(words) == 130
    assert main(words) == 2
    assert "add --resume" in capsys.readouterr().err
    assert main([*words, "--resume"]) == 0
    assert len(calls) == 4
    assert (cut / "metrics.json").read_text() == (done / "metrics.json").read_text()
    timings = json.loads((cut / "manifest.json").read_text())["timings"]
    seconds = [
        epoch["seconds"] for path in cut.glob("folds/*/fold.json") for epoch in json.loads(path.read_text())["history"]
    ]
    assert len(seconds) >= 3
    assert timings["train_s"] >= sum(seconds) - 0.02
    assert "predict_s" not in timings


def test_another_host_continues_at_the_next_fold(
    registry: Path, done: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train, calls = pipeline.fit, []
    there = tmp_path / "far" / "run"

    def killed(*arguments: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            while not (there / "folds" / "1" / "fold.json").exists():  # sent while the run works
                time.sleep(0.01)
            raise KeyboardInterrupt
        return train(*arguments, **options)

    monkeypatch.setattr(pipeline, "fit", killed)
    monkeypatch.setattr(remote_dir, "LOOK_EVERY_S", 0.02)
    words = command(registry, tmp_path, "three-fold", "--test", "other", "--out", f"file://{there}")
    with monkeypatch.context() as patched:
        patched.setattr(remote_dir, "_send_all", lambda *arguments, **options: None)  # a killed host sends nothing more
        assert main(words) == 130
    assert main([*words, "--resume", "--json"]) == 0
    assert len(calls) == 4
    assert content(there, "metrics.json") == content(done, "metrics.json")
    assert content(there, "manifest.json")["finished"]
    assert not list(there.rglob("last.safetensors"))


def test_a_leaky_protocol_is_flagged_in_every_table(
    registry: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(registry, tmp_path / "run", "leaky")) == 0
    shown = capsys.readouterr().out
    metrics = content(tmp_path / "run", "metrics.json")
    leaks = metrics["protocol"]["leaks"]
    assert leaks["subjects"] > 0
    assert metrics["tests"]["few"]["leaks"] == leaks == content(tmp_path / "run", "manifest.json")["protocol"]["leaks"]
    for text in (shown, (tmp_path / "run" / "report.md").read_text()):
        assert "| few (leaky)‡ |" in text
        assert f"This protocol leaks: {leaks['subjects']} people of the test are also trained on" in text
    table = leaderboard(group_into_systems([parse_record(make_record(tmp_path / "run"))]), [])
    assert "°‡" in table
    assert "leaky protocol" in table
    assert (tmp_path / "run" / "figures" / "ages-of-parts.png").exists()
    lists = {part: pd.read_csv(tmp_path / "run" / "lists" / f"{part}.csv") for part in ("train", "valid", "test")}
    assert len(lists["test"]) == metrics["tests"]["few"]["n"]
    assert max(part["age"].max() for part in lists.values()) < 70


def test_images_that_several_folds_test_count_each_time(registry: Path, tmp_path: Path) -> None:
    assert main(command(registry, tmp_path / "run", "twice")) == 0
    figures = content(tmp_path / "run", "metrics.json")["tests"]["few"]
    assert figures["seeds"]["count"] == 2
    assert list(check_record(make_record(tmp_path / "run"), tmp_path / "run")) == []


def test_a_protocol_that_is_not_there(registry: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command(registry, tmp_path / "run", "three-flod")) == 2
    assert "dataset 'few' has no protocol 'three-flod'; did you mean 'three-fold'?" in capsys.readouterr().err
    assert main(["info", "few", "--registry", str(registry)]) == 0
    assert 'name = "three-fold"\nkind = "folds"\nk = 3' in capsys.readouterr().out


@pytest.mark.slow
def test_a_few_folds_of_the_real_fgnet(test_data: Path, tmp_path: Path) -> None:
    first, second = (", ".join(f"'{who:03d}'" for who in range(*ends)) for ends in ((4, 40), (40, 60)))
    card = (
        'name = "three"\nextends = "fgnet"\n[[protocols]]\nname = "two"\nkind = "folds"\ncolumn = "subject"\n'
        f"splits = [{{train = [{first}], test = ['001', '002']}}, {{train = [{second}], test = ['003']}}]"
    )
    (tmp_path / "datasets").mkdir()
    (tmp_path / "datasets" / "three.toml").write_text(card)
    assert main(["data", "add", "three", "--registry", str(tmp_path), str(test_data / "FGNET.zip")]) == 0
    words = command(tmp_path, tmp_path / "run", "two")
    assert main(["three" if word == "few" else word for word in words]) == 0
    figures = content(tmp_path / "run", "metrics.json")["tests"]["three"]
    assert (figures["subjects"], len(figures["folds"]["mae"])) == (3, 2)
