"""`agebench tune`: search a training recipe for a dataset, step by step."""

import argparse
import json
import sys
from pathlib import Path

from agebench.cli import run as run_command
from agebench.cli.common_options import load_cards


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `agebench run` and those of the search."""
    run_command.add_arguments(parser, is_search=True)
    search = parser.add_argument_group(
        "search",
        "Recipes are chosen on the validation split; --test is only written into the final config.",
    )
    search.add_argument("--images", type=int, metavar="N", help="training images of a trial (default: 5000)")
    search.add_argument("--trial-epochs", type=int, metavar="N", help="epochs of a trial (default: 2)")
    search.add_argument(
        "--rates", metavar="LIST", help="learning rates of the grid, as 0.0003,0.001 (default: around the range test)"
    )
    search.add_argument("--decays", metavar="LIST", help="weight decays of the grid (default: 0,0.01,0.05,0.2)")
    search.add_argument(
        "--search", choices=("grid", "optuna"), help="how to search (default: grid; optuna is an extra)"
    )
    search.add_argument("--trials", type=int, metavar="N", help="how many trials optuna has (default: 16)")


def run(arguments: argparse.Namespace) -> int:
    """Resolve the settings, search, print the best recipe."""
    from agebench.config.toml_io import validate_model
    from agebench.errors import UserError
    from agebench.runs.resolve import resolve_config

    catalog = load_cards(arguments)
    given = {
        "images": arguments.images,
        "epochs": arguments.trial_epochs,
        "rates": _numbers(arguments.rates, "--rates", least=1e-12),
        "decays": _numbers(arguments.decays, "--decays", least=0.0),
        "search": arguments.search,
        "trials": arguments.trials,
    }
    config = resolve_config(catalog, run_command.run_options(arguments).layers())
    folder = arguments.out or Path("tune") / config.name()
    from agebench.analysis.tuning.report import test_command, write_tuning_report
    from agebench.analysis.tuning.search import TuneConfig, finished, lock_dir, tune
    from agebench.utils.io import check_folder

    check_folder(folder)
    settings = {key: value for key, value in given.items() if value is not None}
    search = validate_model(TuneConfig, {**settings, "run": config.model_dump(mode="json")}, source="tune settings")
    found = finished(folder, search)
    if found is not None:
        print(f"{folder} contains this search, finished; nothing is repeated.", file=sys.stderr)
    elif (folder / "tune.toml").exists() and not arguments.resume:
        raise UserError(f"{folder} contains an unfinished search; add --resume to continue it, or delete the folder")
    else:
        with lock_dir(folder):
            found = tune(search, catalog, folder)
            write_tuning_report(folder, found)
    if arguments.json:
        print(
            json.dumps(
                found.to_json() | {"config": str(folder / "best.toml"), "report": str(folder / "report.html")}, indent=2
            )
        )
        return 0
    best = found.best
    print(f"learning rate {best.lr:g}, weight decay {best.weight_decay:g}: validation MAE {found.long_run.val_mae:.2f}")
    print(f"report: {folder / 'report.html'}\nto test it: {test_command(folder)}")
    return 0


def _numbers(text: str | None, option: str, *, least: float) -> list[float] | None:
    from agebench.errors import UserError

    if text is None:
        return None
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError:
        raise UserError(f"{option} {text}: write numbers with commas between them, e.g. 0.0003,0.001") from None
    if not all(least <= value < float("inf") for value in found):
        raise UserError(
            f"{option} {text}: out of range: each number must be finite and {'above 0' if least else '0 or more'}"
        )
    return found
