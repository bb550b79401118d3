"""`agebench run`: train a model and test it."""

import argparse
import json
import os
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agebench.cli._grid import FinishedRun, PlannedRun, plan_grid, print_dry_run, run_grid
from agebench.cli._messages import print_already_finished
from agebench.cli.common_options import (
    add_exclude,
    add_experiment_options,
    add_json,
    add_registry,
    load_cards,
    path_or_url,
)
from agebench.cli.score import add_gate_options, gate_settings

if TYPE_CHECKING:
    from agebench.config.grid import GridPoint
    from agebench.config.run import RunConfig
    from agebench.registry.catalog import Catalog
    from agebench.runs.run_dir import RunDir

# Returns the decision of the first of several processes.
Broadcast = Callable[[Callable[[], bool]], bool]


def add_arguments(parser: argparse.ArgumentParser, *, is_search: bool = False) -> None:
    """Add the options of `agebench run`.

    Args:
        parser: the command's parser.
        is_search: whether the command searches for a recipe: it has no --grid and no --dry-run.
    """
    _add_data_and_model(parser)
    parser.add_argument("--epochs", type=int, metavar="N", help="passes through the training split")
    parser.add_argument("--seed", type=int, metavar="N", help="of splits, initial weights and image order (default: 0)")
    parser.add_argument("--device", metavar="NAME", help="auto, cpu, cuda, cuda:1, mps (default: auto)")
    parser.add_argument(
        "--set", metavar="KEY=VALUE", action="append", default=[], help="any setting, e.g. train.lr=0.001 (repeatable)"
    )
    parser.add_argument(
        "--config", metavar="FILE", type=Path, help="settings from a file, e.g. another run's config.toml"
    )
    parser.add_argument(
        "--out",
        metavar="DIR",
        type=path_or_url,
        help="the run's folder, or a URL (default: runs/<train>-<model>-<head>-s<seed>)",
    )
    parser.add_argument("--resume", action="store_true", help="resume an interrupted run")
    parser.add_argument(
        "--end-with-stdin", action="store_true", help="exit when stdin is closed (used by the suite runner)"
    )
    if not is_search:
        add_gate_options(parser)
    add_experiment_options(parser, grid=not is_search, dry_run=not is_search)
    add_registry(parser)
    add_json(parser)


def _add_data_and_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--train", metavar="DATASET", help="the dataset to train and validate on")
    parser.add_argument(
        "--test",
        metavar="DATASET",
        action="append",
        help="a dataset to test on (repeatable); the training set's name selects its held-out split",
    )
    parser.add_argument(
        "--protocol",
        metavar="NAME",
        help="the split protocol of the training set, see `agebench info DATASET` (default: default)",
    )
    add_exclude(parser)
    parser.add_argument("--model", metavar="NAME", help="a model card (default: efficientnet_lite0)")
    parser.add_argument("--head", metavar="NAME", help="replace the head of the model card")
    parser.add_argument(
        "--task",
        metavar="NAME[=WEIGHT]",
        action="append",
        default=[],
        help="train an auxiliary target, such as gender; its default weight in the loss is 1 (repeatable)",
    )
    parser.add_argument(
        "--pretrained",
        metavar="SOURCE",
        nargs="?",
        const="auto",
        help="start from pre-trained weights: auto (as without SOURCE), timm, an installed package, or a file",
    )
    parser.add_argument(
        "--no-pretrained", dest="pretrained", action="store_const", const="", help="start from random weights"
    )


def run(arguments: argparse.Namespace) -> int:
    """Resolve the settings, execute the run or the grid of runs, and print the results."""
    from agebench.errors import UserError
    from agebench.runs.resolve import resolve_config

    if arguments.end_with_stdin:
        threading.Thread(target=_end_with_stdin, daemon=True).start()
    catalog = load_cards(arguments)

    def resolve(point: "GridPoint") -> "RunConfig":
        return resolve_config(catalog, [*_layers(arguments, point), point.settings])

    plans = plan_grid(arguments, resolve, lambda config: config.name())
    if arguments.dry_run:
        return print_dry_run(arguments, plans, catalog)
    is_distributed = int(os.environ.get("WORLD_SIZE", "1")) > 1
    if arguments.grid:
        if is_distributed:
            raise UserError("--grid runs in one process: start each combination by itself, with --set")
        return run_grid(arguments, plans, lambda config, out: _execute(arguments, config, catalog, out, _decide_alone))
    (plan,) = plans
    if not is_distributed:
        return _run(arguments, plan, catalog, _decide_alone)
    from agebench.training import distributed

    with distributed.process_group():
        if distributed.get_rank() == 0:
            print(f"{distributed.get_world_size()} processes share every batch", file=sys.stderr)
            return _run(arguments, plan, catalog, distributed.broadcast_from_main)
        return _assist(plan.config, catalog, distributed.broadcast_from_main)


def _decide_alone(decide: Callable[[], bool]) -> bool:
    return decide()


def _run(arguments: argparse.Namespace, plan: "PlannedRun[RunConfig]", catalog: "Catalog", broadcast: Broadcast) -> int:
    finished = _execute(arguments, plan.config, catalog, plan.out, broadcast)
    if finished is None:
        return 130
    if arguments.json:
        print(json.dumps(finished.metrics.to_json(), indent=2))
    else:
        from agebench.reports.run import summary

        print(f"{summary(finished.report.parent)}\n\nreport: {finished.report}")
    return 0


def _execute(
    arguments: argparse.Namespace, config: "RunConfig", catalog: "Catalog", out: Path | str, broadcast: Broadcast
) -> FinishedRun | None:
    """Execute a run unless it is finished; None: interrupted. `broadcast` sends the decision to the other processes."""
    from agebench.errors import DiskFull, UserError
    from agebench.runs.gates import renew_gates
    from agebench.runs.remote_dir import run_folder

    with run_folder(out) as folder:
        renew_gates(folder, config)
        if folder.finished(config):
            print_already_finished(folder, config, catalog, out)
            broadcast(lambda: False)
            return FinishedRun(folder.metrics_file(), folder.path / "report.md")
        if folder.started() and not arguments.resume and not folder.continues():
            raise UserError(f"{out} holds the beginning of this run; add --resume to continue it, or delete the folder")
        try:
            with folder.locked():
                # Checked again: another process may have finished the run while this one was starting.
                if broadcast(lambda: not folder.finished(config)):
                    # torch is imported only now, when the settings are known to be valid
                    from agebench.runs.run import run as execute

                    execute(config, catalog, folder, quiet=arguments.json)
        except KeyboardInterrupt:
            print(f"\n{_interrupted(folder, out)}", file=sys.stderr)
            return None
        except DiskFull as error:
            # The message ends in "the same command continues".
            if folder.started() and not folder.let_continue():
                raise DiskFull(f"{error} Add --resume to it.") from error
            raise
        return FinishedRun(folder.metrics_file(), folder.path / "report.md")


def _interrupted(folder: "RunDir", out: Path | str) -> str:
    """Return how to continue after Ctrl-C; names only files that exist."""
    config = folder.path / "config.toml"
    if not config.exists() or not folder.started():
        return "interrupted before an epoch was done; the same command begins again"
    return f"interrupted; to continue:\n  agebench run --config {config} --out {out} --resume"


def _assist(config: "RunConfig", catalog: "Catalog", broadcast: Broadcast) -> int:
    """Compute this process's share of the run; the first process writes the results."""
    from agebench.runs.run_dir import RunDir

    if broadcast(lambda: True):
        from agebench.runs.run import run as execute

        with tempfile.TemporaryDirectory() as scratch:
            execute(config, catalog, RunDir(Path(scratch) / config.name()), quiet=True)
    return 0


def _end_with_stdin() -> None:
    while os.read(0, 1024):
        pass
    os._exit(130)


def _layers(arguments: argparse.Namespace, point: "GridPoint | None" = None) -> list[dict[str, Any]]:
    """Return settings in rising order of precedence: the config file, the flags, --set."""
    from agebench.config.toml_io import parse_setting, read_settings
    from agebench.errors import UserError

    file = read_settings(arguments.config) if arguments.config else {}
    if arguments.model or (point and point.sets("model.name")):
        # The backbone and recipe of the file's model do not apply to another model.
        file = {key: value for key, value in file.items() if key not in ("model", "train", "pretrained")}
    data = {
        "train": arguments.train,
        "test": arguments.test or ([arguments.train] if arguments.train and "data" not in file else None),
        "protocol": arguments.protocol,
        "exclude": arguments.exclude or None,
        "limit": arguments.limit,
    }
    flags = {
        "seed": arguments.seed,
        "device": arguments.device,
        "pretrained": arguments.pretrained,
        "data": data,
        "model": {"name": arguments.model, "head": arguments.head, "tasks": _tasks(arguments.task)},
        "train": {"epochs": arguments.epochs},
        "evaluate": gate_settings(arguments),
    }
    layers = [file, _drop_unset(flags), *(parse_setting(text) for text in arguments.set)]
    if not any(
        isinstance(layer.get("data"), dict) and "train" in layer["data"]
        for layer in [*layers, point.settings if point else {}]
    ):
        raise UserError(
            "--train DATASET is missing: which dataset to train on? (Where settings come from a file, the key 'data.train' is "
            "missing.) `agebench list datasets` shows those that can be named"
        )
    return layers


def _tasks(words: list[str]) -> dict[str, float | str]:
    """Parse `gender`, `race=0.5` to {"gender": 1.0, "race": "0.5"}; the settings validate the weights."""
    return {name.strip(): weight.strip() if sign else 1.0 for name, sign, weight in (w.partition("=") for w in words)}


def _drop_unset(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the settings without options that were not given."""
    nested = {key: _drop_unset(value) if isinstance(value, dict) else value for key, value in settings.items()}
    return {key: value for key, value in nested.items() if value is not None and value != {}}
