"""Killed at any point and full disks: nothing is lost, and the same command ends at the same figures."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors import SafetensorError, safe_open

from agebench.cli import main

CARD = """
name = "few"
title = "Generated faces"
reader = "synth"
licence = "CC0-1.0"
faces = "none"
groups = ["gender"]
[options]
count = {count}
seed = 3
size = 64
"""


@pytest.fixture
def cards(tmp_path: Path) -> Path:
    """With so many pictures that several processes prepare them."""
    return cards_of(700, tmp_path)


def cards_of(count: int, tmp_path: Path) -> Path:
    folder = tmp_path / "cards" / "datasets"
    folder.mkdir(parents=True)
    (folder / "few.toml").write_text(CARD.format(count=count))
    return folder.parent


def words(cards: Path, out: Path, *more: str) -> list[str]:
    return [
        *(sys.executable, "-m", "agebench", "run", "--train", "few", "--model", "tiny", "--epochs", "3"),
        *("--set", "evaluate.resamples=100", "--registry", str(cards), "--out", str(out), *more),
    ]


def epochs_done(out: Path) -> int:
    try:
        with safe_open(out / "checkpoints" / "last.safetensors", framework="pt") as file:
            return len(json.loads(file.metadata()["agebench"])["history"])
    except (OSError, SafetensorError):
        return -1


def faces_done(cache: Path) -> int:
    files = list(cache.glob("faces/*/faces.u8.sha256"))
    finished = np.fromfile(files[0], np.uint8).reshape(-1, 32).any(axis=1) if files else np.zeros(0, bool)
    return int(sum(min(64, 700 - 64 * block) for block in np.flatnonzero(finished)))


def kill_when(command: list[str], reached: Callable[[], bool]) -> None:
    """SIGKILL, as soon as something is seen to have happened."""
    process = subprocess.Popen(command, env=os.environ, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    while not reached():
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()


@pytest.mark.slow
def test_sigkill_in_the_cache_and_in_training_changes_no_figure(
    cards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert main(words(cards, whole)[3:]) == 0
    cache = tmp_path / "other-cache"
    monkeypatch.setenv("AGEBENCH_CACHE", str(cache))
    kill_when(words(cards, cut), lambda: faces_done(cache) > 0)
    assert 0 < faces_done(cache) < 700
    kill_when(
        words(cards, cut, "--resume"), lambda: epochs_done(cut) >= 1
    )  # the end is seconds away: figures come after
    assert main(words(cards, cut, "--resume")[3:]) == 0
    assert json.loads((cut / "metrics.json").read_text()) == json.loads((whole / "metrics.json").read_text())


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip("a small tmpfs cannot be mounted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.slow
def test_a_full_disk_during_the_cache_build(
    cards: Path, tmp_path: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGEBENCH_CACHE", str(small_disk))
    done = subprocess.run(words(cards, tmp_path / "run"), capture_output=True, text=True)
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1
    assert "the disk is full" in done.stderr
    kept = faces_done(small_disk)
    assert kept > 0
    subprocess.run(["mount", "-o", "remount,size=60m", str(small_disk)], check=True)
    assert main(words(cards, tmp_path / "run")[3:]) == 0
    assert faces_done(small_disk) == 700


@pytest.mark.slow
def test_a_full_disk_during_a_checkpoint(tmp_path: Path, small_disk: Path) -> None:
    cards, run = cards_of(100, tmp_path), small_disk / "run"
    (small_disk / "ballast").write_bytes(bytes(1_800_000))
    done = subprocess.run(words(cards, run), capture_output=True, text=True)
    assert done.returncode == 1
    assert "the disk is full" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(run.rglob("*.tmp*"))
    (small_disk / "ballast").unlink()
    subprocess.run(["mount", "-o", "remount,size=60m", str(small_disk)], check=True)
    assert main(words(cards, run, "--resume")[3:]) == 0
    assert json.loads((run / "manifest.json").read_text())["finished"] is True
