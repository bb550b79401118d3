"""A run as a repository's folder, and back; nothing here needs the network."""

from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import ModelCard

import agebench
from agebench.cli import main
from agebench.deploy import hub
from agebench.errors import UserError
from agebench.runs.folder import RunFolder

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    run = tmp_path_factory.mktemp("hub") / "run"
    words = ["run", "--train", "synth", "--test", "synth", "--model", "tiny", "--epochs", "1", "--out", str(run)]
    assert main([*words, "--set", "evaluate.resamples=100"]) == 0
    assert main(["push", str(run), "--repo", "me/ages", "--dry-run"]) == 0
    return run, run / "hub"


def test_the_cards_figures_are_the_runs(made: tuple[Path, Path]) -> None:
    run, out = made
    read = ModelCard.load(out / "README.md").data.eval_results
    mae = next(one for one in read if one.metric_type == "mae")
    assert mae.metric_value == round(RunFolder(run).metrics()["tests"]["synth"]["overall"]["mae"]["value"], 4)


def test_the_folder_holds_no_labels_and_no_pickle(made: tuple[Path, Path]) -> None:
    suffixes = {path.suffix for path in made[1].rglob("*") if path.is_file()}
    assert suffixes <= {".toml", ".json", ".safetensors", ".md", *hub.EXPORTS}


def test_what_was_pushed_answers_as_the_run(made: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    run, out = made
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: str(out))
    with agebench.load(f"hf://me/ages@{COMMIT}") as pushed, agebench.load(run) as own:
        size = own._model.size
        faces = np.random.default_rng(0).integers(0, 255, (3, size, size, 3), dtype=np.uint8)
        assert np.array_equal(pushed.estimate(faces).age, own.estimate(faces).age)


@pytest.mark.parametrize("url", ["hf://me/ages", "hf://me/ages@main", "hf://../x@" + COMMIT, "hf://me/ages@abc"])
def test_an_address_without_a_commit_is_refused(url: str) -> None:
    with pytest.raises(UserError):
        hub.fetch(url)


def test_too_large_a_file_is_refused(made: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: str(made[1]))
    monkeypatch.setitem(hub.FILES, "metrics.json", 10)
    with pytest.raises(UserError, match=r"metrics\.json has"):
        hub.fetch(f"hf://me/ages@{COMMIT}")
