"""The main job on small generated sets, through the real command."""

import contextlib
import io
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from agebench.cli import main

pytestmark = pytest.mark.slow
CARD = """
name = "{name}"
title = "A few generated faces"
reader = "synth"
licence = "CC0-1.0"
faces = "none"
groups = ["gender", "race"]
[options]
count = {count}
seed = {seed}
"""


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cards")
    (folder / "datasets").mkdir()
    for name, count, seed in (("few", 160, 11), ("other", 60, 12), ("same", 40, 11)):
        (folder / "datasets" / f"{name}.toml").write_text(CARD.format(name=name, count=count, seed=seed))
    return folder


def command(registry: Path, out: Path, *more: str) -> list[str]:
    words = [
        "run",
        "--train",
        "few",
        "--test",
        "few",
        "--test",
        "other",
        "--model",
        "tiny",
        "--epochs",
        "2",
        "--set",
        "model.size=32",
    ]
    return [*words, "--set", "evaluate.resamples=100", "--registry", str(registry), "--out", str(out), *more]


@pytest.fixture(scope="module")
def done(registry: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One finished run for all tests that only look at it; what it printed is in shown.txt beside it."""
    home = tmp_path_factory.mktemp("done")
    shown = io.StringIO()
    with pytest.MonkeyPatch.context() as patched, contextlib.redirect_stdout(shown):
        patched.setenv("AGEBENCH_CACHE", str(home / "cache"))
        assert main(command(registry, home / "run")) == 0
    (home / "shown.txt").write_text(shown.getvalue())
    return home / "run"


def test_a_run_leaves_everything_that_it_promises(done: Path) -> None:
    shown = (done.parent / "shown.txt").read_text()
    assert "few (held-out part)" in shown
    assert "other" in shown
    manifest = json.loads((done / "manifest.json").read_text())
    assert manifest["finished"] is True
    for name in (
        *(
            "config.toml",
            "metrics.json",
            "history.json",
            "report.md",
            "report.html",
            "export/model.ts",
            "samples/few-train.parquet",
        ),
        *(
            "samples/few-val.parquet",
            "samples/few-test.parquet",
            "samples/other-test.parquet",
            "samples/quarantined.parquet",
        ),
        *(
            "checkpoints/best.safetensors",
            "checkpoints/last.safetensors",
            "predictions/few.parquet",
            "predictions/other.parquet",
        ),
    ):
        assert (done / name).stat().st_size > 0, name
    assert any((done / "figures").iterdir())
    assert any((done / "tensorboard").iterdir())
    assert not list(done.rglob("*.tmp*"))


def test_figures_follow_from_predictions(done: Path) -> None:
    metrics = json.loads((done / "metrics.json").read_text())
    assert metrics["schema"] == 2
    assert metrics["train"] == "few"
    for name in ("few", "other"):
        table = pd.read_parquet(done / "predictions" / f"{name}.parquet")
        mae = metrics["tests"][name]["overall"]["mae"]
        assert mae["value"] == pytest.approx((table["age_pred"] - table["age"]).abs().mean())
        assert mae["ci_low"] < mae["value"] < mae["ci_high"]
        assert metrics["tests"][name]["n"] == len(table)
        assert {"gender", "race"} <= metrics["tests"][name]["groups"].keys()


def test_training_never_sees_a_test_image(done: Path) -> None:
    parts = {part: pd.read_parquet(done / "samples" / f"few-{part}.parquet") for part in ("train", "val", "test")}
    assert sum(map(len, parts.values())) == 160
    for column in ("pixels_digest", "subject"):
        seen = {*parts["train"][column].dropna(), *parts["val"][column].dropna()}
        assert not seen & set(parts["test"][column].dropna())


def test_the_export_says_what_the_predictions_say(done: Path) -> None:
    from agebench.data.image_io import open_image
    from agebench.data.readers import readers

    table = pd.read_parquet(done / "predictions" / "other.parquet").head(8)
    reader = readers.get("synth")(None, (), count=60, seed=12)
    samples = reader.read().table.set_index("sample_id")
    images = [open_image(reader.image_bytes(samples.loc[name, "path"])) for name in table["sample_id"]]
    batch = torch.from_numpy(np.stack([np.asarray(image) for image in images])).permute(0, 3, 1, 2)
    ages, _, _ = torch.jit.load(str(done / "export" / "model.ts"))(batch)
    # The export resizes by itself, a little differently than the cache: a fraction of a year, not another answer.
    assert ages.tolist() == pytest.approx(table["age_pred"].tolist(), abs=2.0)


def test_a_finished_run_is_not_done_again(done: Path, registry: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (done / "metrics.json").stat().st_mtime_ns
    assert main(command(registry, done)) == 0
    assert "finished" in capsys.readouterr().err
    assert (done / "metrics.json").stat().st_mtime_ns == before


def test_other_settings_do_not_overwrite(done: Path, registry: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command(registry, done, "--seed", "5")) == 2
    assert "another folder with --out" in capsys.readouterr().err


def test_the_config_repeats_the_run(done: Path, registry: Path, tmp_path: Path) -> None:
    words = [
        "run",
        "--config",
        str(done / "config.toml"),
        "--registry",
        str(registry),
        "--out",
        str(tmp_path / "again"),
    ]
    assert main(words) == 0
    assert (tmp_path / "again" / "metrics.json").read_text() == (done / "metrics.json").read_text()
    first, second = (pd.read_parquet(folder / "predictions" / "other.parquet") for folder in (done, tmp_path / "again"))
    assert (first["age_pred"] == second["age_pred"]).all()


def test_ctrl_c_leaves_a_run_to_resume(
    registry: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, done: Path
) -> None:
    from agebench.training.callbacks import ConsoleCallback

    def interrupt(self: ConsoleCallback, entry: dict[str, float], epochs: int) -> None:
        raise KeyboardInterrupt

    cut = tmp_path / "cut"
    with monkeypatch.context() as patched:
        patched.setattr(ConsoleCallback, "on_epoch_end", interrupt)
        assert main(command(registry, cut)) == 130
    assert f"--out {cut} --resume" in capsys.readouterr().err
    assert main(command(registry, cut)) == 2
    assert "add --resume" in capsys.readouterr().err
    assert main(command(registry, cut, "--resume")) == 0
    assert (cut / "metrics.json").read_text() == (done / "metrics.json").read_text()


def test_images_that_training_saw_are_dropped_from_another_test_set(registry: Path, tmp_path: Path) -> None:
    words = command(registry, tmp_path / "run")
    words[words.index("other")] = "same"  # the first of the same images under another name
    assert main(words) == 0
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    dropped = manifest["samples"]["same"]["in_training_set"]
    assert dropped > 20
    assert manifest["samples"]["same"]["test"] == 40 - dropped
    quarantined = pd.read_parquet(tmp_path / "run" / "samples" / "quarantined.parquet")
    assert (quarantined.loc[quarantined["dataset"] == "same", "reason"] == "also in the training set").sum() == dropped


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--train", "utk", "--test", "fgnet"], "dataset 'utk' (UTKFace) is not on this machine"),
        (["--train", "few", "--test", "nosuch"], "no dataset called 'nosuch'"),
        (["--train", "few", "--epochs", "0"], "train.epochs = 0"),
        (["--train", "few", "--model", "resnet"], "did you mean 'resnet50'"),
        (["--train", "few", "--head", "corral"], "no head called 'corral'"),
        (["--train", "few", "--set", "train.lr=fast"], "train.lr = 'fast'"),
        (["--train", "few", "--device", "tpu9"], "--device tpu9"),
        (["--test", "few"], "the key 'data.train' is missing"),
    ],
)
def test_a_mistake_is_one_clear_line(
    registry: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert main(["run", *words, "--registry", str(registry), "--out", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.strip().splitlines()) <= 2
    assert not (tmp_path / "run" / "metrics.json").exists()


def test_a_tracker_gets_the_curves_and_the_results(
    registry: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from agebench.runs import run as run_module
    from agebench.training import trackers
    from agebench.types import TrackerName

    logged: dict[str, float] = {}
    settings: dict[str, object] = {}

    class Recorder:
        identifier, location = "r1", "in memory"

        def __init__(self, run: trackers.TrackedRun, identifier: str) -> None:
            settings.update(run.settings)

        def log_scalars(self, scalars: dict[str, float], step: int) -> None:
            logged.update(scalars)

        def log_image(self, name: str, image: np.ndarray, step: int) -> None:
            logged[name] = step

        def flush(self) -> None: ...

        def log_results(self, results: dict[str, float]) -> None:
            logged.update(results)

        def close(self, *, is_finished: bool) -> None:
            logged["finished"] = is_finished

    monkeypatch.setitem(trackers._SERVICES, TrackerName.WANDB, Recorder)
    for module in (trackers, run_module):
        monkeypatch.setattr(module, "require_installed", lambda names: None)
    assert main(command(registry, tmp_path / "run", "--tracker", "wandb")) == 0
    overall = json.loads((tmp_path / "run" / "metrics.json").read_text())["tests"]["few"]["overall"]
    assert settings["train.epochs"] == 2
    assert {"train/loss", "val/mae", "val/predictions"} <= logged.keys()
    assert logged["test/few/mae"] == overall["mae"]["value"]
    assert logged["test/few/mae_ci_low"] == overall["mae"]["ci_low"]
    assert "test/other/fpr_18_at_25" in logged
    assert logged["finished"] is True
    assert not (tmp_path / "run" / "tensorboard").exists()


def test_a_head_without_source_code_is_refused_before_training(
    registry: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """TorchScript, which every run writes at its end, compiles a head's source code."""

    def refuse(_: object) -> str:
        raise OSError("could not get source code")

    monkeypatch.setattr("inspect.getsource", refuse)
    assert main(command(registry, tmp_path / "run")) == 2
    assert "run a script or a notebook" in capsys.readouterr().err
    assert not (tmp_path / "run" / "samples").exists()
