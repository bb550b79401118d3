"""Files of a run that are not as they were written: one line that names the file and the way out."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from factories import few_card
from safetensors.torch import load_file, save_file

from agebench.cli import main
from agebench.errors import Damaged, UserError
from agebench.runs.manifest import Manifest
from agebench.runs.run_dir import RunDir
from agebench.utils.integrity import checked, kept_digests, read_table

pytestmark = pytest.mark.slow
CARD = few_card(120, groups=["gender"], seed=11, size=64)


@pytest.fixture(scope="module")
def cards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cards")
    (folder / "datasets").mkdir()
    (folder / "datasets" / "few.toml").write_text(CARD)
    return folder


def command(cards: Path, out: Path, *more: str) -> list[str]:
    settings = ["--epochs", "2", "--set", "model.size=32", "--set", "evaluate.resamples=100"]
    return ["run", "--train", "few", "--model", "tiny", *settings, "--registry", str(cards), "--out", str(out), *more]


@pytest.fixture(scope="module")
def done(cards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("done")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("AGEBENCH_CACHE", str(home / "cache"))
        assert main(command(cards, home / "run")) == 0
    return home / "run"


@pytest.fixture
def run(done: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(done, tmp_path / "run"))


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) * 3 // 4] ^= 0x10
    file.write_bytes(content)


def halve(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    return lines[0]


def test_digests_cover_what_is_read_again(done: Path) -> None:
    files = json.loads((done / "manifest.json").read_text())["files"]
    assert files == kept_digests(done)
    parts = [f"samples/{part}.parquet" for part in ("few-train", "few-val", "few-test", "quarantined")]
    own = ["config.toml", "metrics.json", "history.json", "validation.parquet", "checkpoints/best.safetensors"]
    assert sorted(files) == sorted([*own, "predictions/few.parquet", *parts])


def test_checked_compares_with_the_manifest(tmp_path: Path) -> None:
    folder = RunDir(tmp_path)
    folder.write_table("predictions/few.parquet", pd.DataFrame({"age": [1.0]}))
    folder.write_json("metrics.json", {"tests": {}})
    folder.write_manifest(Manifest(finished=True))
    assert read_table(tmp_path, "predictions/few.parquet")["age"].tolist() == [1.0]
    assert checked(tmp_path, "unknown.txt") == tmp_path / "unknown.txt"
    folder.write_table("predictions/few.parquet", pd.DataFrame({"age": [2.0]}))
    with pytest.raises(Damaged, match=r"few\.parquet: not the file that the run wrote .* Restore it from a copy"):
        read_table(tmp_path, "predictions/few.parquet")
    folder.renew_digest("predictions/few.parquet")
    assert read_table(tmp_path, "predictions/few.parquet")["age"].tolist() == [2.0]


def test_read_table_without_digests(tmp_path: Path) -> None:
    """Runs of earlier versions have none."""
    folder = RunDir(tmp_path)
    folder.write_table("few.parquet", pd.DataFrame({"age": [1.0] * 100}))
    with pytest.raises(Damaged, match="damaged"):
        read_table(tmp_path, "few.parquet", ["age_pred"])
    halve(tmp_path / "few.parquet")
    with pytest.raises(Damaged, match="damaged"):
        read_table(tmp_path, "few.parquet")
    with pytest.raises(UserError, match="no such file"):
        read_table(tmp_path, "none.parquet")


READERS: dict[str, tuple[str, list[str]]] = {
    "best": ("checkpoints/best.safetensors", ["export", "RUN", "--format", "torchscript"]),
    "config": ("config.toml", ["export", "RUN", "--format", "torchscript"]),
    "metrics": ("metrics.json", ["results", "add", "RUN", "--results", "OUT"]),
    "config of a record": ("config.toml", ["results", "add", "RUN", "--results", "OUT"]),
    "predictions": ("predictions/few.parquet", ["results", "add", "RUN", "--results", "OUT"]),
    "samples": ("samples/few-test.parquet", ["results", "add", "RUN", "--results", "OUT"]),
    "test part": ("samples/few-test.parquet", ["stress", "RUN", "--test", "few"]),
}


@pytest.mark.parametrize("damage", [flip, halve])
@pytest.mark.parametrize("reader", READERS)
def test_damaged_file_is_one_line(
    reader: str, damage: Callable[[Path], None], run: Path, cards: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name, words = READERS[reader]
    damage(run / name)
    places = {"RUN": str(run), "OUT": str(run.parent / "results")}
    assert main([*(places.get(word, word) for word in words), "--registry", str(cards)]) == 2
    line = one_line(capsys)
    assert str(run / name) in line
    assert "Restore it from a copy" in line or "not a readable TOML file" in line


@pytest.mark.parametrize("content", [None, b"", b"{}", b"[]", b"\xff", b'{"tests": 3}'])
def test_finished_run_without_figures(
    content: bytes | None, run: Path, cards: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = run / "metrics.json"
    file.unlink() if content is None else file.write_bytes(content)
    assert main(command(cards, run)) == 2
    assert str(file) in capsys.readouterr().err.splitlines()[-1]


def test_figures_come_back_from_the_checkpoints(
    run: Path, done: Path, cards: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run / "manifest.json").write_bytes(b"")
    assert main(command(cards, run)) == 2
    assert "Delete it and repeat the command, a run's with --resume" in one_line(capsys)
    for lost in ("manifest.json", "metrics.json", "predictions/few.parquet"):
        (run / lost).unlink()
    assert main(command(cards, run, "--resume")) == 0
    assert (run / "metrics.json").read_bytes() == (done / "metrics.json").read_bytes()


def rewritten(file: Path, metadata: dict[str, str] | None) -> None:
    save_file(load_file(file), file, metadata=metadata)


CHECKPOINTS: dict[str, Callable[[Path], None]] = {
    "flipped": flip,
    "cut short": halve,
    "empty": lambda file: os.truncate(file, 0),
    "no metadata": lambda file: rewritten(file, None),
    "no JSON": lambda file: rewritten(file, {"agebench": "{"}),
    "a list": lambda file: rewritten(file, {"agebench": "[]"}),
    "no history": lambda file: rewritten(file, {"agebench": "{}"}),
    "a wrong history": lambda file: rewritten(file, {"agebench": '{"history": [{"epoch": 1}]}'}),
    "a strange tensor": lambda file: save_file(load_file(file) | {"x": load_file(file).popitem()[1]}, file),
}


@pytest.mark.parametrize("kind", CHECKPOINTS)
def test_damaged_last_checkpoint_is_one_line(
    kind: str, run: Path, cards: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run / "manifest.json").unlink()
    CHECKPOINTS[kind](run / "checkpoints" / "last.safetensors")
    assert main(command(cards, run, "--resume")) == 2
    line = one_line(capsys)
    assert str(run / "checkpoints" / "last.safetensors") in line
    assert f"delete the folder {run / 'checkpoints'} and repeat the run" in line


def test_best_of_another_epoch_is_refused(run: Path, cards: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "manifest.json").unlink()
    best = run / "checkpoints" / "best.safetensors"
    rewritten(best, {"agebench": '{"epoch": 77}'})
    assert main(command(cards, run, "--resume")) == 2
    assert "contains the weights of epoch 77" in one_line(capsys)


def test_config_that_is_no_text(run: Path, cards: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "config.toml").write_bytes(b"\xff\xfe")
    assert main(command(cards, run)) == 2
    assert "config.toml: not the file that the run wrote" in one_line(capsys)
    assert main(["run", "--config", str(run / "config.toml"), "--out", str(run.parent / "other")]) == 2
    assert "not a readable TOML file" in one_line(capsys)
