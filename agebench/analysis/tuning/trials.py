"""Short trainings with other settings, each judged on the validation part; one that is done is not done again."""

import json
import math
import shutil
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from torch.utils.tensorboard import SummaryWriter

from agebench.analysis.tuning.context import SearchContext
from agebench.errors import TrainingDivergedError
from agebench.runs.config import RunConfig
from agebench.runs.run import add_tasks, fit, initial_model
from agebench.runs.run_dir import RunDir
from agebench.training.prediction import predict

TrialResult = dict[str, Any]
_Z = 1.96  # of a 95 % interval; validation parts have hundreds of images


def override_recipe(config: RunConfig, **recipe: float) -> RunConfig:
    """`config` with other values in its recipe."""
    return config.model_copy(update={"train": config.train.model_copy(update=recipe)})


def run_trial(ground: SearchContext, rate: float, decay: float, epochs: int) -> TrialResult:
    """Train `ground.small` for `epochs` with this learning rate and weight decay; what came of it is kept in `trials/`.

    Returns:
        lr, weight_decay, epochs, val_mae with low and high (None where training diverged), history, seconds.
    """
    name = trial_name(rate, decay, epochs)
    folder = RunDir(ground.home / "trials" / name)
    kept = folder.path / "result.json"
    if kept.exists():
        return json.loads(kept.read_text(encoding="utf-8"))  # type: ignore[no-any-return]
    config = override_recipe(ground.config, lr=rate, weight_decay=decay, epochs=epochs)
    found: TrialResult = {"name": name, "lr": rate, "weight_decay": decay, "epochs": epochs}
    started = time.perf_counter()
    try:
        model, _ = initial_model(config)
        add_tasks(config, model, ground.division.train)
        history = fit(config, folder, model, ground.subset, ground.faces, ground.device, quiet=True)
    except TrainingDivergedError as error:
        found |= {"val_mae": None, "low": None, "high": None, "history": [], "diverged": str(error)}
    else:
        validation = ground.validation()
        ages = predict(model, validation, config.model, ground.device, precision=config.train.precision).age
        errors = np.abs(ages.astype(np.float64) - validation.ages)
        names = ground.division.val.table["sample_id"]
        folder.write_table("validation.parquet", pd.DataFrame({"sample_id": names, "absolute_error": errors}))
        reach = _Z * float(errors.std(ddof=1)) / math.sqrt(len(errors)) if len(errors) > 1 else 0.0
        mae = float(errors.mean())
        found |= {"val_mae": mae, "low": mae - reach, "high": mae + reach, "history": history.epochs, "diverged": ""}
        _hparams(folder, found)
    found["seconds"] = round(time.perf_counter() - started, 1)
    shutil.rmtree(folder.checkpoints, ignore_errors=True)  # weights of a trial serve nobody, and would fill the disk
    folder.write_json("result.json", found)
    return found


def trial_name(rate: float, decay: float, epochs: int) -> str:
    """What a trial's folder is called."""
    return f"lr{rate:g}-wd{decay:g}-e{epochs}"


def best_trial(trials: Sequence[TrialResult]) -> TrialResult | None:
    """The trial with the lowest validation MAE; None where all diverged."""
    done = [trial for trial in trials if trial["val_mae"] is not None]
    return min(done, key=lambda trial: float(trial["val_mae"])) if done else None


def statistically_tied_trials(ground: SearchContext, best: TrialResult, trials: Sequence[TrialResult]) -> list[str]:
    """The trials whose errors on the same validation images do not differ from the best one's by more than chance (95 %)."""
    errors = {trial["name"]: _errors(ground, trial) for trial in trials if trial["val_mae"] is not None}
    found = []
    for name, other in errors.items():
        apart = other - errors[best["name"]]
        if name != best["name"] and apart.mean() < _Z * apart.std(ddof=1) / math.sqrt(len(apart)):
            found.append(name)
    return found


def _errors(ground: SearchContext, trial: TrialResult) -> np.ndarray:
    table = pd.read_parquet(ground.home / "trials" / trial["name"] / "validation.parquet")
    return table["absolute_error"].to_numpy(float)


def _hparams(folder: RunDir, found: TrialResult) -> None:
    """The trial's line in TensorBoard's table of hyper-parameters."""
    settings = {key: found[key] for key in ("lr", "weight_decay", "epochs")}
    with SummaryWriter(str(folder.path / "tensorboard")) as writer:
        writer.add_hparams(settings, {"hparam/val_mae": found["val_mae"]}, run_name=".")
