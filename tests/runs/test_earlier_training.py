"""A run that starts from the checkpoint of another run states which of its test images that one was trained on."""

from pathlib import Path

import pandas as pd
import pytest

from agebench.cli import main
from agebench.runs.earlier_training import trained_before
from agebench.runs.run_dir import RunDir


@pytest.mark.slow
@pytest.mark.usefixtures("with_few")
def test_test_images_of_an_earlier_run_are_known(
    small_run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoint = small_run / "checkpoints" / "best.safetensors"
    words = [
        "run",
        "--train",
        "few",
        "--test",
        "few",
        "--model",
        "tiny",
        "--epochs",
        "1",
        "--set",
        "evaluate.resamples=100",
    ]
    assert main([*words, "--set", "seed=1", "--pretrained", str(checkpoint), "--out", str(tmp_path / "again")]) == 0
    entry = RunDir(tmp_path / "again").metrics_file().tests["few"]
    assert entry.training_overlap == "known"
    earlier = trained_before(str(checkpoint))
    tested = pd.read_parquet(tmp_path / "again" / "samples" / "few-test.parquet")
    seen = int(tested["pixels_digest"].isin(earlier["pixels_digest"]).sum())
    assert f"{seen} of the {len(tested)} test images" in caplog.text
    assert 0 < seen < len(tested)
    report = (tmp_path / "again" / "report.md").read_text(encoding="utf-8")
    assert "**Contaminated: its initial weights were trained on images of few**." in report


def test_other_weights_have_no_earlier_training(small_run: Path, tmp_path: Path) -> None:
    assert trained_before("auto") is None
    assert trained_before(str(tmp_path / "weights.safetensors")) is None
    assert trained_before(str(tmp_path / "checkpoints" / "best.safetensors")) is None
    assert len(trained_before(str(small_run / "checkpoints" / "best.safetensors"))) > 100
