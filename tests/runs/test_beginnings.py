"""A run that failed before it began blocks no other; a full disk and Ctrl-C leave a command that goes on."""

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from factories import few_card

from agebench.cli import main
from agebench.errors import TrainingDivergedError
from agebench.runs import run
from agebench.runs.run_dir import RunDir
from agebench.training import trainer
from agebench.training.callbacks import ConsoleCallback
from agebench.utils.io import atomic_write, is_temporary

pytestmark = pytest.mark.slow
CARD = few_card(60, seed=11, size=64)


@pytest.fixture
def cards(tmp_path: Path) -> Path:
    folder = tmp_path / "cards"
    (folder / "datasets").mkdir(parents=True)
    (folder / "datasets" / "few.toml").write_text(CARD)
    return folder


def command(cards: Path, *more: str) -> list[str]:
    settings = ["--epochs", "2", "--set", "model.size=32", "--set", "evaluate.resamples=100"]
    out = str(cards.parent / "run")
    return ["run", "--train", "few", "--model", "tiny", *settings, "--registry", str(cards), "--out", out, *more]


@pytest.fixture
def learned(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The seeds of runs that came as far as their training, which then ends."""
    seeds: list[int] = []

    def learn(config: Any, *arguments: Any, **options: Any) -> None:
        seeds.append(config.seed)
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "cross_validate", learn)
    return seeds


FAILURES: dict[str, tuple[type[BaseException], str]] = {
    "the model": (TrainingDivergedError("no"), "initial_model"),
    "a dataset": (TrainingDivergedError("no"), "open_run_data"),
    "the faces": (TrainingDivergedError("no"), "prepare_faces"),
    "an interruption": (KeyboardInterrupt(), "prepare_faces"),
}


@pytest.mark.parametrize("kind", FAILURES)
def test_failed_beginning_blocks_no_other_run(
    kind: str, cards: Path, learned: list[int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    error, step = FAILURES[kind]

    def fail(*arguments: Any, **options: Any) -> None:
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(run, step, fail)
        assert main(command(cards)) in (1, 130)
    capsys.readouterr()
    assert main(command(cards, "--seed", "7")) == 130
    assert learned == [7]
    assert main(command(cards)) == 130
    assert learned == [7, 0]
    assert "the same command begins again" in capsys.readouterr().err


def test_diverged_first_epoch_blocks_no_other_run(cards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def diverge(*arguments: Any, **options: Any) -> None:
        raise TrainingDivergedError("the loss is nan")

    with monkeypatch.context() as patched:
        patched.setattr(trainer.Trainer, "train_epoch", diverge)
        assert main(command(cards)) == 1
    assert (cards.parent / "run" / "checkpoints" / "last.safetensors").exists()
    assert main(command(cards, "--seed", "1")) == 0


def test_interrupted_beginning_names_no_missing_file(
    cards: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*arguments: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "initial_model", interrupt)
    assert main(command(cards)) == 130
    assert "config.toml" not in capsys.readouterr().err


def full_disk(name: str) -> Callable[..., Any]:
    replace = Path.replace

    def fail(self: Path, target: Path) -> Path:
        if Path(target).name == name:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return replace(self, target)

    return fail


@pytest.mark.parametrize(
    "name", ["last.safetensors", "best.safetensors", "few.parquet", "metrics.json", "model.ts", "report.md"]
)
def test_full_disk_lets_the_same_command_go_on(
    name: str, cards: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = cards.parent / "run"
    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", full_disk(name))
        assert main(command(cards)) == 1
    assert capsys.readouterr().err.splitlines()[-1].endswith("and the same command continues.")
    assert not [path for path in out.rglob("*") if is_temporary(path)]
    assert main(command(cards)) == 0
    assert json.loads((out / "manifest.json").read_text())["finished"]


def test_full_disk_without_room_for_a_note(
    cards: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", full_disk("few.parquet"))
        patched.setattr(run, "save_samples", lambda *arguments: None)
        patched.setattr(RunDir, "let_continue", lambda self: False)
        assert main(command(cards)) == 1
    assert capsys.readouterr().err.splitlines()[-1].endswith("Add --resume to it.")


def test_continued_run_needs_resume_after_a_person_stopped_it(
    cards: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*arguments: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", full_disk("few.parquet"))
        assert main(command(cards)) == 1
    with monkeypatch.context() as patched:
        patched.setattr(ConsoleCallback, "__init__", interrupt)
        assert main(command(cards)) == 130
    assert main(command(cards)) == 2
    assert "add --resume" in capsys.readouterr().err


def test_leftovers_of_a_killed_process_are_removed(cards: Path, learned: list[int]) -> None:
    out = cards.parent / "run"
    (out / "figures").mkdir(parents=True)
    for name in (".config.toml.agebench-abcd1234.tmp.toml", "figures/.scatter.png.agebench-abc_1234.tmp.png"):
        (out / name).write_text("half")
    (out / "config.toml").touch()
    assert main(command(cards)) == 130
    assert learned
    assert not [path for path in out.rglob("*") if is_temporary(path)]


def test_is_temporary_knows_the_files_of_atomic(tmp_path: Path) -> None:
    for name in ("a.json", "checkpoints/last.safetensors", "export/model.ts", "no-suffix", ".tar.gz"):
        with atomic_write(tmp_path / name) as temporary:
            assert is_temporary(temporary)
            temporary.touch()
        assert not is_temporary(tmp_path / name)


def test_lock_file_is_not_removed_under_a_waiting_process(tmp_path: Path) -> None:
    folder = RunDir(tmp_path / "run")
    with folder.locked():
        before = (folder.path / ".lock").stat().st_ino
    with folder.locked():
        assert (folder.path / ".lock").stat().st_ino == before
