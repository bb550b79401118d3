"""A real Ray cluster on this machine, one of whose workers is killed: the figures are those of `--executor local`."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from factories import few_card

from agebench.cli import main

pytest.importorskip("ray")
pytestmark = pytest.mark.slow

DATASET = few_card(300, size=64)
SUITE = """
name = "one"
title = "One"
train = ["few"]
test = ["few"]
models = ["tiny"]
settings = { train = { epochs = 20 }, evaluate = { resamples = 100 }, model = { size = 32 } }
"""


def epochs_done(runs: Path) -> bool:
    return any(runs.glob("few-*/checkpoints/best.safetensors"))


def test_a_killed_worker_costs_no_figure(tmp_path: Path) -> None:
    for kind, name, text in (("datasets", "few", DATASET), ("suites", "one", SUITE)):
        (tmp_path / "cards" / kind).mkdir(parents=True)
        (tmp_path / "cards" / kind / f"{name}.toml").write_text(text)
    words = ["suite", "run", "one", "--registry", str(tmp_path / "cards"), "--cpus", "1", "--jobs", "1", "--runs"]
    assert main([*words, str(tmp_path / "local")]) == 0
    command = [sys.executable, "-m", "agebench", *words, str(tmp_path / "ray"), "--executor", "ray"]
    suite = subprocess.Popen(command, env=os.environ)
    while not epochs_done(tmp_path / "ray"):
        assert suite.poll() is None, "it ended before a worker could be killed"
        time.sleep(0.01)
    # The Ray worker is the parent of the run; its end must be the run's end too.
    runs = [
        child for child in psutil.Process(suite.pid).children(recursive=True) if "--end-with-stdin" in child.cmdline()
    ]
    assert len(runs) == 1
    runs[0].parent().kill()
    runs[0].wait(timeout=20)
    assert suite.wait(timeout=300) == 0
    (manifest,) = (tmp_path / "ray").glob("few-*/manifest.json")
    assert json.loads(manifest.read_text())["finished"] is True
    (ours,), (theirs,) = ((tmp_path / who).glob("few-*/metrics.json") for who in ("local", "ray"))
    assert ours.read_bytes() == theirs.read_bytes()
