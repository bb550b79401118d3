"""From a dataset to a recipe in five steps, each kept when it is done. No step reads a test set."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import tomli_w
from pydantic import BaseModel, ConfigDict, Field

from agebench.analysis.tuning import diagnostics
from agebench.analysis.tuning.context import SearchContext, prepare_context
from agebench.analysis.tuning.trials import (
    TrialResult,
    best_trial,
    override_recipe,
    run_trial,
    statistically_tied_trials,
)
from agebench.errors import AgebenchError, UserError
from agebench.registry.catalog import Catalog
from agebench.runs.config import RunConfig
from agebench.runs.manifest import Manifest
from agebench.runs.run import add_tasks, fit, initial_model
from agebench.runs.run_dir import RunDir
from agebench.utils.io import write_csv, write_json, write_text

SETTINGS, RESULT, WINNER, CSV = "tune.toml", "tune.json", "best.toml", "trials.csv"
LR_MULTIPLIERS = (0.3, 1.0, 3.0, 10.0)  # times the suggested learning rate
_CARRIED_ON = 2  # the best learning rates go into the grid


class TuneConfig(BaseModel):
    """Everything that decides a search. Its file is `tune.toml`."""

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

    def to_toml(self) -> str:
        """As a file."""
        return tomli_w.dumps(self.model_dump(mode="json"))


def tune(config: TuneConfig, catalogue: Catalog, folder: Path, *, say: Callable[[str], None]) -> dict[str, Any]:
    """Do the search in its folder, or what is left of it; returns what tune.json holds.

    Args:
        config: what to search, and for which run.
        catalogue: all cards.
        folder: the search's.
        say: told a line as each step and trial ends.

    Raises:
        AgebenchError: a step's own, or every trial diverged; what was finished stays, and the same call continues.
    """
    if config.search == "optuna":
        _optuna()
    ground = prepare_context(config.run, catalogue, folder, images=config.images)
    write_text(folder / SETTINGS, config.to_toml())
    if not RunDir(folder / "run").manifest():
        RunDir(folder / "run").write_manifest(Manifest(inputs=ground.inputs, finished=False))
    steps = _Steps(folder, say)
    found = {
        "untrained": steps.once("untrained", lambda: diagnostics.check_initial_loss(ground)),
        "by_heart": steps.once("by-heart", lambda: diagnostics.overfit_small_subset(ground)),
        "range_test": steps.once("range-test", lambda: diagnostics.lr_range_test(ground)),
    }
    middle = found["range_test"]["suggested"]
    trials = (
        _by_optuna(ground, config, middle, say) if config.search == "optuna" else _by_grid(ground, config, middle, say)
    )
    best = best_trial(trials)
    if best is None:
        raise AgebenchError(f"{folder}: training diverged in every trial; try lower --rates, or --set train.clip=1")
    _write_csv(folder, trials)
    winner = override_recipe(config.run, lr=best["lr"], weight_decay=best["weight_decay"])
    write_text(folder / WINNER, winner.to_toml())
    history = _long_run(ground, winner, folder)
    lowest = min(history, key=lambda entry: float(entry["val_mae"]))
    content = {
        "schema": 1,
        "train": config.run.data.train,
        "model": config.run.model.name,
        "head": config.run.model.head,
        "images": {
            "train": len(ground.division.train),
            "trial": len(ground.subset.train),
            "val": len(ground.division.val),
        },
        "search": config.search,
        **found,
        "trials": trials,
        "best": best,
        "not_told_apart": statistically_tied_trials(ground, best, trials),
        "long_run": {"history": history, "best_epoch": lowest["epoch"], "val_mae": lowest["val_mae"]},
        "finished": True,
    }
    write_json(folder / RESULT, content)
    return content


def finished(folder: Path, config: TuneConfig) -> dict[str, Any] | None:
    """The result where this very search stands here finished, None where it does not.

    Raises:
        UserError: another search, or something else, stands here.
    """
    file = folder / SETTINGS
    if not file.exists():
        if folder.is_file() or (folder.is_dir() and any(entry.name != ".lock" for entry in folder.iterdir())):
            raise UserError(f"{folder} is not empty and holds no search; choose another folder with --out")
        return None
    if file.read_text(encoding="utf-8") != config.to_toml():
        raise UserError(
            f"{folder} holds a search with other settings (compare its {SETTINGS}); choose another folder with --out, or "
            "delete that one"
        )
    result = folder / RESULT
    return json.loads(result.read_text(encoding="utf-8")) if result.exists() else None


class _Steps:
    """Steps that are kept as JSON when they are done, and not done again."""

    def __init__(self, folder: Path, say: Callable[[str], None]) -> None:
        self.folder, self.say = folder / "steps", say

    def once(self, name: str, do: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        file = self.folder / f"{name}.json"
        if not file.exists():
            write_json(file, do())
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        self.say(f"{name}: {found['verdict']}")
        return found


def _by_grid(ground: SearchContext, config: TuneConfig, middle: float, say: Callable[[str], None]) -> list[TrialResult]:
    """A sweep of the learning rate with the recipe's weight decay, then weight decays around its best two."""
    rates = config.rates or tuple(float(f"{middle * factor:.1g}") for factor in LR_MULTIPLIERS)
    own = config.run.train.weight_decay
    sweep = [_told(run_trial(ground, rate, own, config.epochs), say) for rate in dict.fromkeys(rates)]
    ranked = sorted(
        (trial for trial in sweep if trial["val_mae"] is not None), key=lambda trial: float(trial["val_mae"])
    )
    pairs = [(trial["lr"], decay) for trial in ranked[:_CARRIED_ON] for decay in config.decays if decay != own]
    return sweep + [_told(run_trial(ground, rate, decay, config.epochs), say) for rate, decay in dict.fromkeys(pairs)]


def _by_optuna(
    ground: SearchContext, config: TuneConfig, middle: float, say: Callable[[str], None]
) -> list[TrialResult]:
    """Tree-structured Parzen estimators. The same seed asks the same questions, so trials that are done answer again."""
    optuna = _optuna()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=config.run.seed))
    found = []
    for _ in range(config.trials):
        asked = study.ask()
        rate = float(f"{asked.suggest_float('lr', middle / 30, middle * 10, log=True):.2g}")
        decay = float(f"{asked.suggest_float('weight_decay', 1e-4, 0.5, log=True):.2g}")
        trial = _told(run_trial(ground, rate, decay, config.epochs), say)
        worst = float(np.abs(ground.training().ages).max())
        study.tell(asked, worst if trial["val_mae"] is None else trial["val_mae"])
        found.append(trial)
    return found


def _optuna() -> Any:
    try:
        import optuna
    except ImportError:
        raise UserError("--search optuna needs optuna: pip install 'agebench[optuna]'") from None
    return optuna


def _told(trial: TrialResult, say: Callable[[str], None]) -> TrialResult:
    mae = "diverged" if trial["val_mae"] is None else f"validation MAE {trial['val_mae']:.2f}"
    say(f"learning rate {trial['lr']:g}, weight decay {trial['weight_decay']:g}: {mae} ({trial['seconds']:.0f} s)")
    return trial


def _long_run(ground: SearchContext, winner: RunConfig, folder: Path) -> list[dict[str, float]]:
    """Train the winner on the whole training part, as a run would: `agebench run … --resume` goes on from here to the tests."""
    run = RunDir(folder / "run")
    if (run.path / "history.json").exists():
        return json.loads((run.path / "history.json").read_text(encoding="utf-8"))  # type: ignore[no-any-return]
    with run.locked():
        run.write_config(winner)
        model, _ = initial_model(winner)
        add_tasks(winner, model, ground.division.train)
        return fit(winner, run, model, ground.division, ground.faces, ground.device, quiet=False).epochs


def _write_csv(folder: Path, trials: list[TrialResult]) -> None:
    columns = ["lr", "weight_decay", "epochs", "val_mae", "low", "high", "seconds", "diverged"]
    write_csv(folder / CSV, pd.DataFrame(trials).reindex(columns=columns))


@contextmanager
def lock_dir(folder: Path) -> Iterator[None]:
    """Keep a second process out of the search's folder."""
    with RunDir(folder).locked():
        yield


def log_progress(line: str) -> None:
    """Tell a line."""
    print(line, file=sys.stderr)
