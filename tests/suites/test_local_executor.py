"""Suites through the real command: done work stays, a failure stands alone, two at once do not meet."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from agebench.cli import main

pytestmark = pytest.mark.slow

DATASET = """
name = "{name}"
title = "Generated faces"
reader = "{reader}"
licence = "CC0-1.0"
faces = "none"
[options]
{options}
"""
SUITE = """
name = "two"
title = "One that works and one that cannot"
train = ["few", "absent"]
test = ["few"]
models = ["tiny"]
settings = { train = { epochs = 1 }, evaluate = { resamples = 100 } }
"""


@pytest.fixture
def cards(tmp_path: Path) -> Path:
    folder = tmp_path / "cards"
    for kind in ("datasets", "suites"):
        (folder / kind).mkdir(parents=True)
    few = DATASET.format(name="few", reader="synth", options="count = 120\nsize = 64")
    (folder / "datasets" / "few.toml").write_text(few)
    absent = DATASET.format(name="absent", reader="folder", options="pattern = '{age}.jpg'")
    (folder / "datasets" / "absent.toml").write_text(absent)
    (folder / "suites" / "two.toml").write_text(SUITE)
    return folder


def states(words: list[str], capsys: pytest.CaptureFixture[str]) -> dict[str, tuple[str, str]]:
    main(["suite", "status", "two", *words, "--json"])
    rows = json.loads(capsys.readouterr().out)["runs"]
    return {Path(row["run"]).name.partition("-")[0]: (row["state"], row["reason"]) for row in rows}


def test_a_failure_stops_no_other_and_done_work_stays(
    cards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--runs", str(tmp_path / "runs"), "--registry", str(cards)]
    assert states(words, capsys)["few"] == ("pending", "")
    assert main(["suite", "run", "two", *words]) == 1
    assert "[2/2]" in capsys.readouterr().err
    found = states(words, capsys)
    assert found["few"] == ("done", "")
    assert found["absent"][0] == "failed"
    assert "agebench data import absent PATH" in (tmp_path / "runs").glob(".logs/absent*.txt").__next__().read_text()
    manifest = next((tmp_path / "runs").glob("few-*/manifest.json"))
    before = manifest.stat().st_mtime_ns
    assert main(["suite", "run", "two", *words]) == 1
    assert manifest.stat().st_mtime_ns == before


def test_two_at_once_do_nothing_twice(cards: Path, tmp_path: Path) -> None:
    suite = cards / "suites" / "two.toml"
    suite.write_text(SUITE.replace(', "absent"', "") + "seeds = [0, 1]\n")
    words = [sys.executable, "-m", "agebench", "suite", "run", "two", "--runs", str(tmp_path / "runs")]
    both = [subprocess.Popen([*words, "--registry", str(cards)], stderr=subprocess.DEVNULL) for _ in range(2)]
    assert [process.wait() for process in both] == [0, 0]
    manifests = list((tmp_path / "runs").glob("few-*/manifest.json"))
    assert len(manifests) == 2
    assert all(json.loads(manifest.read_text())["finished"] for manifest in manifests)
    assert not list((tmp_path / "runs").glob(".logs/*.failed"))
