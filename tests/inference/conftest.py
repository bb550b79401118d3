"""What tests of deployment share."""

from pathlib import Path

import pytest

from agebench.cli import main

# Drawing generated faces takes the most time.
CARD = """name = "few"
title = "Generated faces"
reader = "synth"
licence = "CC0-1.0"
labels = ["age", "gender", "race", "subject"]
groups = ["gender", "race"]
faces = "none"
options = { count = 180, seed = 1, size = 64 }
"""


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of the small model. Nobody writes into it."""
    home = tmp_path_factory.mktemp("small")
    (home / "registry" / "datasets").mkdir(parents=True)
    (home / "registry" / "datasets" / "synth.toml").write_text(CARD)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AGEBENCH_CACHE", str(home / "cache"))
        patch.setenv("AGEBENCH_DATA", str(home / "data"))
        words = ["run", "--train", "few", "--test", "few", "--model", "tiny", "--epochs", "1"]
        words += ["--registry", str(home / "registry"), "--set", "evaluate.resamples=100"]
        assert main([*words, "--out", str(home / "run")]) == 0
    return home / "run"


@pytest.fixture
def with_few(small_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The card of that run's dataset can be found."""
    monkeypatch.setenv("AGEBENCH_REGISTRY", str(small_run.parent / "registry"))
