"""Output that cannot be written is refused in one line, before any work, by every command that writes some."""

import os
from pathlib import Path

import pytest

from agebench.cli import main
from agebench.errors import AgebenchError, UserError
from agebench.utils.io import atomic_write, check_file, check_folder

CARD = 'name = "few"\ntitle = "Few"\nreader = "synth"\nlicence = "CC0-1.0"\noptions = { count = 40, size = 64 }\n'
CONSTANT = """
name = "constant"
kind = "external"
title = "Constant"
format = "callable"
source = "constant.py:predict"
licence = "CC0-1.0"
"""
FOLDERS = {
    "explore": ["explore", "few", "--out"],
    "tune": ["tune", "--train", "few", "--model", "tiny", "--out"],
    "export": ["export", "run", "--format", "torchscript", "--out"],
    "draw": ["predict", "run", "a.jpg", "--annotate-dir"],
    "site": ["leaderboard", "--site"],
    "audit": ["data", "audit", "few", "--out"],
    "faces": ["data", "faces", "few", "--out"],
    "score": ["score", "table.csv", "--out"],
    "compare": ["compare", "a=table.csv", "b=table.csv", "--out"],
    "push": ["push", "run", "--repo", "me/mine", "--dry-run", "--out"],
    "results": ["results", "add", "run", "--results"],
    "new": ["new", "head", "mine", "--into"],
}
FILES = {"predict": ["predict", "run", "a.jpg", "--out"], "leaderboard": ["leaderboard", "--out"]}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "registry" / "datasets").mkdir(parents=True)
    (tmp_path / "registry" / "datasets" / "few.toml").write_text(CARD)
    (tmp_path / "a.jpg").write_bytes(b"")
    (tmp_path / "a-file").write_text("mine")
    (tmp_path / "a-folder.csv").mkdir()
    (tmp_path / "run").mkdir()
    monkeypatch.setenv("AGEBENCH_REGISTRY", "registry")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(words: list[str], option: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"agebench: {option} {words[-1]}: ")
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("place", ["a-file", "a-file/below", "/proc/agebench", "/proc/a/b", "x" * 300])
@pytest.mark.parametrize("command", FOLDERS)
def test_folders_that_cannot_be_written(
    command: str, place: str, capsys: pytest.CaptureFixture[str], home: Path
) -> None:
    words = FOLDERS[command]
    refused([*words, place], words[-1], capsys)
    assert (home / "a-file").read_text() == "mine"


@pytest.mark.parametrize("command", [["stress", "constant", "--corruption", "noise"], ["explain", "constant"]])
def test_folders_of_analyses_that_cannot_be_written(
    command: list[str], capsys: pytest.CaptureFixture[str], home: Path
) -> None:
    (home / "registry" / "models").mkdir()
    (home / "registry" / "models" / "constant.toml").write_text(CONSTANT)
    (home / "registry" / "models" / "constant.py").write_text("def predict(images):\n    return [30.0] * len(images)\n")
    assert main([*command, "--test", "few", "--out", "a-file"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("agebench: --out a-file: cannot be written: ")
    assert error.endswith("; set another path with --out\n")


@pytest.mark.parametrize(
    "command", [FOLDERS["tune"], ["test", "--model", "constant", "--test", "few", "--out"]], ids=["tune", "test"]
)
def test_commands_that_write_to_no_url_refuse_one(
    command: list[str], capsys: pytest.CaptureFixture[str], home: Path
) -> None:
    before = {*home.iterdir()}
    refused([*command, "s3://bucket/folder"], "--out", capsys)
    assert {*home.iterdir()} == before


@pytest.mark.parametrize("place", ["a-folder.csv", "a-file/a.csv", "/proc/a.csv", "x" * 300 + ".csv"])
@pytest.mark.parametrize("command", FILES)
def test_files_that_cannot_be_written(command: str, place: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = FILES[command]
    refused([*words, place], words[-1], capsys)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_check_folder_refuses_a_read_only_one(tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(UserError, match="Permission denied"):
        check_folder(tmp_path / "locked" / "below")


def test_check_folder_leaves_nothing(tmp_path: Path) -> None:
    check_folder(tmp_path / "a" / "b" / "c")
    check_file(tmp_path / "d" / "e.csv")
    assert not (tmp_path / "a").exists()
    assert not (tmp_path / "d").exists()


def test_a_device_is_not_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="not a regular file"):
        check_file(tmp_path / "pipe")
    with pytest.raises(AgebenchError, match="not a regular file"), atomic_write(tmp_path / "pipe") as file:
        file.write_text("x")
    assert (tmp_path / "pipe").is_fifo()
    assert [path.name for path in tmp_path.glob(".pipe*")] == []


def test_a_file_that_cannot_be_read_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> int:
        raise PermissionError(13, "Permission denied", "/some/file")

    monkeypatch.setattr("agebench.cli.list.run", fail)
    assert main(["list"]) == 1
    assert capsys.readouterr().err == "agebench: /some/file: Permission denied\n"
