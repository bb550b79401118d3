"""Short training runs with different settings, evaluated on the validation split; finished trials are not repeated."""

import math
import shutil
import time
from collections.abc import Sequence

import numpy as np
import pandas as pd
from torch.utils.tensorboard import SummaryWriter

from agebench.analysis.tuning.context import SearchContext
from agebench.analysis.tuning.schema import Trial
from agebench.config.cards.model import Recipe
from agebench.config.run import RunConfig
from agebench.errors import TrainingDivergedError
from agebench.runs.run import add_tasks, fit, initial_model
from agebench.runs.run_dir import RunDir
from agebench.training.prediction import predict

_Z = 1.96  # normal quantile of a 95 % interval; validation splits have hundreds of images


def override_recipe(config: RunConfig, **recipe: float) -> RunConfig:
    """Return a copy of `config` with other values in its training recipe, which is validated again."""
    return config.model_copy(update={"train": Recipe.model_validate(dict(config.train) | recipe)})


def trial_config(config: RunConfig, rate: float, decay: float, epochs: int) -> RunConfig:
    """Return the config of a short training, in which the head is trained alone for no larger share of the epochs.

    Args:
        config: the config of the run that is tuned.
        rate: the learning rate.
        decay: the weight decay.
        epochs: the number of epochs of the trial.
    """
    head_epochs = config.train.head_epochs * epochs // config.train.epochs
    return override_recipe(config, lr=rate, weight_decay=decay, epochs=epochs, head_epochs=head_epochs)


def run_trial(context: SearchContext, rate: float, decay: float, epochs: int) -> Trial:
    """Train on the subset and evaluate on the validation split, or load the result of an earlier call from `trials/`.

    Args:
        context: the data and settings of the search.
        rate: the learning rate.
        decay: the weight decay.
        epochs: the number of epochs.
    """
    name = _trial_name(rate, decay, epochs)
    folder = RunDir(context.home / "trials" / name)
    result_file = folder.path / "result.json"
    if result_file.exists():
        return Trial.model_validate_json(result_file.read_text(encoding="utf-8"))
    config = trial_config(context.config, rate, decay, epochs)
    mae: float | None = None
    half_width, epochs_trained, divergence = 0.0, list[dict[str, float]](), ""
    started = time.perf_counter()
    try:
        model, _ = initial_model(config)
        add_tasks(config, model, context.division.train)
        epochs_trained = fit(config, folder, model, context.subset, context.faces, context.device, quiet=True).epochs
    except TrainingDivergedError as error:
        divergence = str(error)
    else:
        validation = context.validation()
        ages = predict(model, validation, config.model, context.device, precision=config.train.precision).age
        errors = np.abs(ages.astype(np.float64) - validation.ages)
        names = context.division.val.table["sample_id"]
        folder.write_table("validation.parquet", pd.DataFrame({"sample_id": names, "absolute_error": errors}))
        half_width = _Z * float(errors.std(ddof=1)) / math.sqrt(len(errors)) if len(errors) > 1 else 0.0
        mae = float(errors.mean())
    trial = Trial(
        name=name,
        lr=rate,
        weight_decay=decay,
        epochs=epochs,
        val_mae=mae,
        low=None if mae is None else mae - half_width,
        high=None if mae is None else mae + half_width,
        history=epochs_trained,
        diverged=divergence,
        seconds=round(time.perf_counter() - started, 1),
    )
    if mae is not None:
        _write_hparams(folder, trial)
    shutil.rmtree(folder.checkpoints, ignore_errors=True)  # the weights of a trial are not used again
    folder.write_json("result.json", trial.to_json())
    return trial


def _trial_name(rate: float, decay: float, epochs: int) -> str:
    """Return the name of a trial's folder."""
    return f"lr{rate:g}-wd{decay:g}-e{epochs}"


def best_trial(trials: Sequence[Trial]) -> Trial | None:
    """Return the trial with the lowest validation MAE, or None if all trials diverged."""
    finished = [trial for trial in trials if trial.val_mae is not None]
    return min(finished, key=lambda trial: trial.error, default=None)


def statistically_tied_trials(context: SearchContext, best: Trial, trials: Sequence[Trial]) -> list[str]:
    """Return the names of the trials that do not differ significantly from the best trial (95 %, paired).

    Args:
        context: the data and settings of the search.
        best: the best trial.
        trials: all trials.

    Returns:
        The names, without the best trial.
    """
    errors = {trial.name: _errors(context, trial) for trial in trials if trial.val_mae is not None}
    tied = []
    for name, other in errors.items():
        difference = other - errors[best.name]
        if name != best.name and difference.mean() < _Z * difference.std(ddof=1) / math.sqrt(len(difference)):
            tied.append(name)
    return tied


def _errors(context: SearchContext, trial: Trial) -> np.ndarray:
    table = pd.read_parquet(context.home / "trials" / trial.name / "validation.parquet")
    return table["absolute_error"].to_numpy(float)


def _write_hparams(folder: RunDir, trial: Trial) -> None:
    """Add the trial to TensorBoard's table of hyperparameters."""
    settings = {"lr": trial.lr, "weight_decay": trial.weight_decay, "epochs": trial.epochs}
    with SummaryWriter(str(folder.path / "tensorboard")) as writer:
        writer.add_hparams(settings, {"hparam/val_mae": trial.val_mae}, run_name=".")
