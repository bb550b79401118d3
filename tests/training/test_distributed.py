"""Two processes train as one does: same batches, same draws, every prediction once, one folder."""

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from factories import few_card

from agebench.cli import main

pytest.importorskip("accelerate")

CARD = few_card(203)


OPTIONS = ["ema_decay=0.9", "accumulate_steps=2", "layer_decay=0.8", "mixup=0.4", "cutmix=1.0", "flip_tta=true"]
OPTIONS += ["augment.erase=0.3", "augment.rand_augment=4", "batch_size=32"]


@pytest.mark.slow
@pytest.mark.parametrize("options", [[], OPTIONS], ids=["default", "options"])
def test_two_processes_end_where_one_does(tmp_path: Path, options: list[str]) -> None:
    """With batch normalization, dropout and augmentation; 203 images, which no two processes share evenly."""
    (tmp_path / "cards" / "datasets").mkdir(parents=True)
    (tmp_path / "cards" / "datasets" / "few.toml").write_text(CARD)
    words = ["-m", "agebench", "run", "--train", "few", "--model", "tiny", "--epochs", "2", "--device", "cpu"]
    words += ["--set", "model.size=32", "--set", "evaluate.resamples=100", "--set", "model.head_options.dropout=0.3"]
    words += [word for option in options for word in ("--set", f"train.{option}")]
    words += ["--registry", str(tmp_path / "cards"), "--out"]
    launch = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1"]
    launch += ["--main_process_port", "0", "--mixed_precision", "no", "--dynamo_backend", "no"]
    assert main([*words[2:], str(tmp_path / "one")]) == 0
    subprocess.run([sys.executable, *launch, *words, str(tmp_path / "two")], check=True, capture_output=True)
    # A launcher may start one process where two were asked for, and one is of course equal to one.
    hardware = json.loads((tmp_path / "two" / "manifest.json").read_text())["hardware"]
    assert hardware["processes"] == 2
    one, two = (json.loads((tmp_path / name / "history.json").read_text()) for name in ("one", "two"))
    for alone, shared in zip(one, two, strict=True):
        assert shared["loss"] == pytest.approx(alone["loss"], rel=1e-4)
        assert shared["val_mae"] == pytest.approx(alone["val_mae"], abs=1e-2)
    alone, shared = (pd.read_parquet(tmp_path / name / "predictions" / "few.parquet") for name in ("one", "two"))
    assert shared["sample_id"].tolist() == alone["sample_id"].tolist()
    assert (shared["age_pred"] - alone["age_pred"]).abs().max() < 0.01
    assert sorted(path.name for path in (tmp_path / "two").iterdir()) == sorted(
        path.name for path in (tmp_path / "one").iterdir()
    )
