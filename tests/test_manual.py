"""The commands that README.md and docs/ show are commands that exist; the main ones are run."""

import argparse
import json
import re
import shlex
from pathlib import Path

import pytest

from agebench.cli import COMMANDS, build_parser, main
from agebench.cli import run as run_command
from agebench.models.weight_files.store import WeightsState, find, verify
from agebench.registry.catalog import load_catalog
from agebench.runs.resolve import resolve_config

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def commands() -> list[tuple[str, str]]:
    """(page, command line) for every line of a `sh` block that calls agebench."""
    found = []
    for page in PAGES:
        for block in re.findall(r"```sh\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
            lines = block.replace("\\\n", " ").splitlines()
            calls = [re.split(r"  #| \|\|? | > ", line)[0].strip() for line in lines if line.startswith("agebench ")]
            found += [(page.name, call) for call in calls]
    return found


# Stand in for the datasets that the manual trains and tests on: as many faces as the test needs.
SMALL = {"synth": ("few", 1), "synth-shift": ("few-shift", 2)}
GENERATED = """name = "{name}"
title = "Few"
reader = "synth"
licence = "CC0-1.0"
faces = "none"
groups = ["gender"]

[options]
count = 120
seed = {seed}
"""


def test_the_main_job_is_shown() -> None:
    assert (
        "README.md",
        "agebench run --train utk --test utk --test fgnet",
    ) in commands()


@pytest.fixture(scope="module")
def parser() -> argparse.ArgumentParser:
    return build_parser(COMMANDS)


@pytest.mark.parametrize(("page", "line"), commands())
def test_every_command_that_is_shown_is_understood(page: str, line: str, parser: argparse.ArgumentParser) -> None:
    words = shlex.split(line)[1:]
    if words != ["--version"]:
        assert parser.parse_args(words).command, page


def test_make_has_the_targets_that_are_shown() -> None:
    shown = set(re.findall(r"`?make ([a-z-]+)", (ROOT / "README.md").read_text(encoding="utf-8")))
    have = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert {"demo", "test"} <= shown <= have


@pytest.fixture
def manuals_card(tmp_path: Path) -> Path:
    card = re.search(
        r"```toml\n(name = .*?)```", (ROOT / "docs" / "how-to" / "models.md").read_text(encoding="utf-8"), re.DOTALL
    )
    assert card is not None
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "mine.toml").write_text(card[1])
    (tmp_path / "datasets").mkdir()
    for name, seed in SMALL.values():
        (tmp_path / "datasets" / f"{name}.toml").write_text(GENERATED.format(name=name, seed=seed))
    return tmp_path


def test_the_manuals_model_card_is_a_good_one(manuals_card: Path) -> None:
    found = load_catalog([manuals_card])
    assert found.models.broken() == {}
    assert found.models.get("mobilenetv3").train.patience == 3


@pytest.mark.slow
def test_the_manuals_model_runs(manuals_card: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = next(line for page, line in commands() if page == "models.md" and "mobilenetv3" in line)
    words = [SMALL.get(word, (word,))[0] for word in shlex.split(line.replace("DIR", str(manuals_card)))[1:]]
    small = [
        "--epochs",
        "1",
        "--set",
        "model.size=32",
        "--set",
        "evaluate.resamples=100",
        "--out",
        str(tmp_path / "run"),
    ]
    assert main([*words, *small]) == 0
    assert "few-shift" in capsys.readouterr().out


@pytest.mark.slow
def test_the_readmes_main_job_on_the_real_data(
    test_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As the README does it, but with the small model, and trained on the small set so that it ends in a minute or two."""
    assert main(["data", "add", "utk", str(test_data / "UTKFace.tar.gz")]) == 0
    assert main(["data", "add", "fgnet", str(test_data / "FGNET.zip")]) == 0
    capsys.readouterr()
    words = [
        "run",
        "--train",
        "fgnet",
        "--test",
        "fgnet",
        "--test",
        "utk",
        "--model",
        "tiny",
        "--epochs",
        "2",
        "--json",
    ]
    assert main([*words, "--out", str(tmp_path / "run")]) == 0
    metrics = json.loads(capsys.readouterr().out)
    assert metrics["tests"]["utk"]["n"] == 23_707
    assert metrics["tests"]["fgnet"]["subjects"] < 82
    assert {"gender", "race", "gender*race", "age_band"} <= metrics["tests"]["utk"]["groups"].keys()
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert manifest["faces"]["datasets"] == {"fgnet": "landmarks", "utk": "none"}
    assert sum(manifest["samples"]["fgnet"][part] for part in ("train", "val", "test")) == 1002


def test_the_default_model_needs_no_network() -> None:
    """The bare main job starts from face-recognition weights that are installed with agebench."""
    parser = __import__("argparse").ArgumentParser()
    run_command.add_arguments(parser)
    options = run_command.run_options(parser.parse_args(["--train", "utk", "--test", "fgnet"]))
    config = resolve_config(load_catalog(), options.layers())
    assert config.model.name == "mobilefacenet"
    assert config.pretrained == "auto"
    assert verify(find(config.model.weights)) is WeightsState.GOOD
