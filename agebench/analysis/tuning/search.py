"""Hyperparameter search in five steps, which are saved when they finish. No step reads a test set."""

import json
import logging
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import pandas as pd
import tomli_w
from pydantic import BaseModel, ConfigDict, Field, model_validator

from agebench.analysis.tuning import diagnostics
from agebench.analysis.tuning.context import SearchContext, prepare_context
from agebench.analysis.tuning.schema import (
    FullTraining,
    InitialLoss,
    OverfitResult,
    RangeTestResult,
    StepResult,
    Trial,
    TuneResult,
)
from agebench.analysis.tuning.trials import (
    best_trial,
    override_recipe,
    run_trial,
    statistically_tied_trials,
)
from agebench.config.run import RunConfig
from agebench.errors import AgebenchError, TrainingDivergedError, UserError
from agebench.registry.catalog import Catalog
from agebench.runs.manifest import Manifest
from agebench.runs.run import add_tasks, fit, initial_model
from agebench.runs.run_dir import RunDir
from agebench.utils.io import write_csv, write_json, write_text

StepT = TypeVar("StepT", bound=StepResult)
logger = logging.getLogger(__name__)

SETTINGS, RESULT, WINNER, CSV = "tune.toml", "tune.json", "best.toml", "trials.csv"
LR_MULTIPLIERS = (0.3, 1.0, 3.0, 10.0)  # of the suggested learning rate
_N_GRID_RATES = 2  # the best learning rates, which are combined with all weight decays


class TuneConfig(BaseModel):
    """The settings that determine a search, saved as `tune.toml`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    images: int = Field(default=5000, ge=32, description="training images of a trial")
    epochs: int = Field(default=2, ge=1, description="of a trial")
    rates: tuple[float, ...] = Field(
        default=(), description="learning rates; empty: around the range test's suggestion"
    )
    decays: tuple[float, ...] = Field(default=(0.0, 0.01, 0.05, 0.2), min_length=1, description="weight decays")
    search: Literal["grid", "optuna"] = "grid"
    trials: int = Field(default=16, ge=1, description="of optuna")
    run: RunConfig

    @model_validator(mode="after")
    def _only_options_of_the_search(self) -> "TuneConfig":
        other = {"grid": ("trials",), "optuna": ("rates", "decays")}[self.search]
        for key in other:
            if key in self.model_fields_set:
                way_out = "add --search optuna" if self.search == "grid" else "leave out --search optuna"
                raise ValueError(f"--{key} has no effect on --search {self.search}. Leave it out, or {way_out}")
        return self

    def to_toml(self) -> str:
        """Return the settings as TOML."""
        return tomli_w.dumps(self.model_dump(mode="json"))


def tune(config: TuneConfig, catalog: Catalog, folder: Path) -> TuneResult:
    """Run a search, or the remaining steps of an interrupted search.

    Args:
        config: the settings of the search and of the run that is tuned.
        catalog: the available datasets and models.
        folder: the folder of the search.

    Returns:
        The content of tune.json.

    Raises:
        AgebenchError: a step failed, or every trial or the full training diverged; finished steps are kept, and the same call
            resumes the search.
    """
    if config.search == "optuna":
        _import_optuna()
    context = prepare_context(config.run, catalog, folder, images=config.images)
    write_text(folder / SETTINGS, config.to_toml())
    if not RunDir(folder / "run").manifest():
        RunDir(folder / "run").write_manifest(Manifest(inputs=context.inputs, finished=False))
    steps = _Steps(folder)
    untrained = steps.once("untrained", InitialLoss, lambda: diagnostics.check_initial_loss(context))
    by_heart = steps.once("by-heart", OverfitResult, lambda: diagnostics.overfit_small_subset(context))
    range_test = steps.once("range-test", RangeTestResult, lambda: diagnostics.lr_range_test(context))
    search = _by_optuna if config.search == "optuna" else _by_grid
    trials = search(context, config, range_test.suggested)
    best = best_trial(trials)
    if best is None:
        raise AgebenchError(
            f"{folder}: training diverged in every trial. In another folder (--out), search a grid of lower --rates, or add "
            "--set train.clip=1"
        )
    _write_csv(folder, trials)
    best_config = override_recipe(config.run, lr=best.lr, weight_decay=best.weight_decay)
    write_text(folder / WINNER, best_config.to_toml())
    try:
        history = _full_training(context, best_config, folder)
    except TrainingDivergedError as error:
        raise TrainingDivergedError(_advice_after_divergence(folder, best, error)) from error
    lowest = min(history, key=lambda entry: float(entry["val_mae"]))
    result = TuneResult(
        train=config.run.data.train,
        model=config.run.model.name,
        head=config.run.model.head,
        images={
            "train": len(context.division.train),
            "trial": len(context.subset.train),
            "val": len(context.division.val),
        },
        search=config.search,
        untrained=untrained,
        by_heart=by_heart,
        range_test=range_test,
        trials=trials,
        best=best,
        not_told_apart=statistically_tied_trials(context, best, trials),
        long_run=FullTraining(history=history, best_epoch=lowest["epoch"], val_mae=lowest["val_mae"]),
    )
    write_json(folder / RESULT, result.to_json())
    return result


def finished(folder: Path, config: TuneConfig) -> TuneResult | None:
    """Load the result of a finished search.

    Args:
        folder: the folder of the search.
        config: the settings, which must be equal to those of the search in the folder.

    Returns:
        The content of tune.json, or None if the search is not finished.

    Raises:
        UserError: the folder contains another search or other files.
    """
    file = folder / SETTINGS
    if not file.exists():
        if folder.is_file() or (folder.is_dir() and any(entry.name != ".lock" for entry in folder.iterdir())):
            raise UserError(f"{folder} is not empty and contains no search; choose another folder with --out")
        return None
    if file.read_text(encoding="utf-8") != config.to_toml():
        raise UserError(
            f"{folder} contains a search with other settings (see {SETTINGS}); choose another folder with --out, or "
            "delete this one"
        )
    result = folder / RESULT
    return TuneResult.model_validate_json(result.read_text(encoding="utf-8")) if result.exists() else None


class _Steps:
    """Steps whose results are saved as JSON, so that finished steps are not repeated."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "steps"

    def once(self, name: str, kind: type[StepT], compute: Callable[[], StepT]) -> StepT:
        """Load the result of a step, or compute and save it."""
        file = self.folder / f"{name}.json"
        if not file.exists():
            write_json(file, compute().to_json())
        result = kind.model_validate(json.loads(file.read_text(encoding="utf-8")))
        logger.info("%s: %s", name, result.verdict)
        return result


def _by_grid(context: SearchContext, config: TuneConfig, suggested_rate: float) -> list[Trial]:
    """Try learning rates with the recipe's weight decay, then all weight decays with the two best learning rates."""
    rates = config.rates or tuple(float(f"{suggested_rate * factor:.1g}") for factor in LR_MULTIPLIERS)
    recipe_decay = config.run.train.weight_decay
    sweep = [_reported(run_trial(context, rate, recipe_decay, config.epochs)) for rate in dict.fromkeys(rates)]
    ranked = sorted((trial for trial in sweep if trial.val_mae is not None), key=lambda trial: trial.error)
    pairs = [(trial.lr, decay) for trial in ranked[:_N_GRID_RATES] for decay in config.decays if decay != recipe_decay]
    return sweep + [_reported(run_trial(context, rate, decay, config.epochs)) for rate, decay in dict.fromkeys(pairs)]


def _by_optuna(context: SearchContext, config: TuneConfig, suggested_rate: float) -> list[Trial]:
    """Search with tree-structured Parzen estimators.

    The same seed suggests the same trials, so that finished trials are loaded when a search is resumed.
    """
    optuna = _import_optuna()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=config.run.seed))
    trials = []
    for _ in range(config.trials):
        suggestion = study.ask()
        rate = float(f"{suggestion.suggest_float('lr', suggested_rate / 30, suggested_rate * 10, log=True):.2g}")
        decay = float(f"{suggestion.suggest_float('weight_decay', 1e-4, 0.5, log=True):.2g}")
        trial = _reported(run_trial(context, rate, decay, config.epochs))
        worst = float(np.abs(context.training().ages).max())
        study.tell(suggestion, worst if trial.val_mae is None else trial.val_mae)
        trials.append(trial)
    return trials


def _import_optuna() -> Any:
    try:
        import optuna
    except ImportError:
        raise UserError("--search optuna needs optuna: pip install 'agebench[optuna]'") from None
    return optuna


def _reported(trial: Trial) -> Trial:
    """Report a finished trial and return it."""
    mae = "diverged" if trial.val_mae is None else f"validation MAE {trial.val_mae:.2f}"
    logger.info("learning rate %g, weight decay %g: %s (%.0f s)", trial.lr, trial.weight_decay, mae, trial.seconds)
    return trial


def _full_training(context: SearchContext, best_config: RunConfig, folder: Path) -> list[dict[str, float]]:
    """Train with the best settings on the whole training split; `agebench run … --resume` continues with the tests."""
    run = RunDir(folder / "run")
    if (run.path / "history.json").exists():
        return json.loads((run.path / "history.json").read_text(encoding="utf-8"))  # type: ignore[no-any-return]
    with run.locked():
        run.write_config(best_config)
        model, _ = initial_model(best_config)
        add_tasks(best_config, model, context.division.train)
        return fit(best_config, run, model, context.division, context.faces, context.device, quiet=False).epochs


def _advice_after_divergence(folder: Path, best: Trial, error: TrainingDivergedError) -> str:
    """Return the message of a full training that diverged; its settings cannot change in the folder of the search."""
    reason = str(error).partition(": training has diverged")[0]
    return (
        f"{folder}: the full training with the settings of the best trial diverged: {reason}. Train with a lower rate: agebench "
        f"run --config {shlex.quote(str(folder / WINNER))} --set train.lr={best.lr / 3:.1g}. Or search a grid of lower --rates, "
        f"such as {best.lr / 10:.1g},{best.lr / 3:.1g}, in another folder with --out"
    )


def _write_csv(folder: Path, trials: list[Trial]) -> None:
    columns = ["lr", "weight_decay", "epochs", "val_mae", "low", "high", "seconds", "diverged"]
    write_csv(folder / CSV, pd.DataFrame([trial.to_json() for trial in trials]).reindex(columns=columns))


@contextmanager
def lock_dir(folder: Path) -> Iterator[None]:
    """Lock the folder of a search against other processes."""
    with RunDir(folder).locked():
        yield
