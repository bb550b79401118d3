"""A finished run becomes the model that ships, and the commands use it without being told."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import agebench as ab
from agebench.cli import main
from agebench.errors import AgebenchError, UserError
from agebench.estimators import released
from agebench.export.schema import SpeedSummary
from agebench.runs import release

RUN = [
    "run",
    "--train",
    "synth",
    "--test",
    "synth-shift",
    "--model",
    "tiny",
    "--epochs",
    "1",
    "--limit",
    "60",
    "--json",
]


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("release")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("AGEBENCH_CACHE", str(home / "cache"))
        words = ["--set", "evaluate.resamples=100", "--set", "model.size=32", "--out", str(home / "run")]
        assert main([*RUN, *words]) == 0
    return home / "run"


@pytest.fixture(autouse=True)
def fast_timing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The speed of an export, which takes seconds to measure, is held in tests/export."""
    speed = SpeedSummary(median_ms=2.0, images_per_s=500.0)
    monkeypatch.setattr("agebench.runs.export.measure_speed", lambda *_: {"batch_1": speed, "batch_64": speed})


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of released files instead of the package's."""
    folder = tmp_path / "released"
    monkeypatch.setattr(released, "released_dir", lambda: folder)
    return folder


@pytest.fixture
def photo(tmp_path: Path) -> str:
    path = tmp_path / "photo.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)).save(path)
    return str(path)


@pytest.mark.slow
def test_a_run_becomes_the_default_model(
    run_dir: Path, package: Path, photo: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", str(run_dir), "--release", "--out", str(package), "--json"]) == 0
    described = json.loads(capsys.readouterr().out)
    assert (described["precision"], described["size_bytes"] <= released.MAX_BYTES) == ("fp32", True)
    assert sorted(path.name for path in package.iterdir()) == ["agebench-base.json", "agebench-base.ts"]
    for words in ([photo], [photo, photo], ["agebench-base", photo]):
        assert main(["predict", *words, "--align", "none"]) == 0
        output = capsys.readouterr()
        assert len(output.out.splitlines()) == 1 + words.count(photo)
        is_default = words[0] == photo
        assert ("agebench-base: Tiny" in output.err) == is_default
    with ab.load_estimator() as shipped, ab.load_estimator(run_dir) as trained:
        ages = [estimator.predict([photo], faces="none")["age"][0] for estimator in (shipped, trained)]
    assert ages[0] == pytest.approx(ages[1], abs=0.01)


@pytest.mark.slow
def test_a_changed_file_is_not_opened(run_dir: Path, package: Path, photo: str) -> None:
    assert main(["export", str(run_dir), "--release", "--out", str(package)]) == 0
    file = package / "agebench-base.ts"
    file.write_bytes(file.read_bytes() + b"x")
    with pytest.raises(AgebenchError, match="missing or damaged"):
        ab.load_estimator()


@pytest.mark.slow
def test_a_model_that_is_too_large_is_refused(run_dir: Path, package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(release, "MAX_BYTES", 1000)
    assert main(["export", str(run_dir), "--release", "--out", str(package)]) == 2
    assert not package.exists()


def test_without_a_released_model_the_ways_out_are_named(
    package: Path, photo: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", photo]) == 2
    message = capsys.readouterr().err
    assert "no model ships with this copy of agebench" in message
    assert "`agebench export RUN --release`" in message
    with pytest.raises(UserError, match="no model ships"):
        ab.load_estimator()
    assert main(["demo"]) == 2


def test_a_mistyped_model_is_no_image(package: Path, photo: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", "runs/absent", photo]) == 2
    assert "no such folder or file, and no model's card of this name" in capsys.readouterr().err
    assert main(["predict"]) == 2
    assert "which images?" in capsys.readouterr().err
