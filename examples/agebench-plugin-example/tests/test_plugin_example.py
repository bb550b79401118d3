"""Run after `pip install -e .`: everything is found by its entry point."""

import json
from pathlib import Path

import pytest

from agebench.cli import main
from agebench.plugins.testing import check_dataset, check_head, check_model


def test_the_contracts_are_kept() -> None:
    check_dataset("example-discs")
    check_model("example-ruler")
    check_head("example-log")


def test_from_nothing_to_a_row_in_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "run")
    assert main(["test", "--model", "example-ruler", "--test", "example-discs", "--out", out]) == 0
    assert "example-discs" in capsys.readouterr().out
    figures = json.loads((tmp_path / "run" / "metrics.json").read_text())["tests"]["example-discs"]
    assert figures["n"] == 300
    assert figures["overall"]["mae"]["value"] < 3
