"""`agebench run`: train a model and test it."""

import argparse
import json
import os
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from agebench.cli._grid import plan_grid, print_dry_run, run_grid
from agebench.cli.common_options import (
    add_exclude,
    add_experiment_options,
    add_json,
    add_registry,
    add_trackers,
    load_cards,
    local_folder,
    path_or_url,
    trackers,
)
from agebench.cli.score import add_gate_options

if TYPE_CHECKING:
    from agebench.config.options import RunOptions
    from agebench.runs.execute import FinishedRun


def add_arguments(parser: argparse.ArgumentParser, *, is_search: bool = False) -> None:
    """Add the options of `agebench run`.

    Args:
        parser: the command's parser.
        is_search: whether the command searches for a recipe: it has no --grid and no --dry-run, and its --out takes no URL.
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
    folder, parent = ("the search's folder", "tune") if is_search else ("the run's folder, or a URL", "runs")
    parser.add_argument(
        "--out",
        metavar="DIR",
        type=local_folder if is_search else path_or_url,
        help=f"{folder} (default: {parent}/<train>-<model>-<head>-s<seed>)",
    )
    parser.add_argument("--resume", action="store_true", help="resume an interrupted run")
    parser.add_argument(
        "--end-with-stdin", action="store_true", help="exit when stdin is closed (used by the suite runner)"
    )
    if not is_search:
        add_gate_options(parser)
        add_trackers(parser)
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
    parser.add_argument("--model", metavar="NAME", help="a model card (default: mobilefacenet)")
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
    catalog, options = load_cards(arguments), run_options(arguments)
    plans = plan_grid(
        arguments, lambda point: resolve_config(catalog, options.layers(point)), lambda config: config.name()
    )
    if arguments.dry_run:
        return print_dry_run(arguments, plans, catalog)
    from agebench.runs import execute

    execution = execute.Execution(
        arguments.resume, arguments.json, "--resume", trackers(arguments), tuple(arguments.registry)
    )
    try:
        if not arguments.grid:
            (plan,) = plans
            finished = execute.execute_run_in_all_processes(plan.config, catalog, plan.out, execution)
            return 0 if finished is None else _print_result(finished, arguments)
        if execute.is_distributed():
            raise UserError("--grid runs in one process: start each combination by itself, with --set")
        return run_grid(arguments, plans, lambda config, out: execute.execute_run(config, catalog, out, execution))
    except execute.RunInterrupted as interruption:
        print(f"\n{interruption}", file=sys.stderr)
        return 130


def run_options(arguments: argparse.Namespace) -> "RunOptions":
    """Return the options of a run; `agebench tune` has them too.

    Args:
        arguments: those of the command.
    """
    from agebench.config.options import RunOptions
    from agebench.config.toml_io import parse_setting

    return RunOptions(
        train=arguments.train,
        test=arguments.test,
        protocol=arguments.protocol,
        exclude=arguments.exclude,
        limit=arguments.limit,
        model=arguments.model,
        head=arguments.head,
        tasks=_tasks(arguments.task),
        pretrained=arguments.pretrained,
        epochs=arguments.epochs,
        seed=arguments.seed,
        device=arguments.device,
        gates=getattr(arguments, "gate", ()),
        gate_ages=getattr(arguments, "gate_ages", None),
        config=arguments.config,
        settings=[parse_setting(text) for text in arguments.set],
    )


def _print_result(finished: "FinishedRun", arguments: argparse.Namespace) -> int:
    if arguments.json:
        print(json.dumps(finished.metrics.to_json(), indent=2))
    else:
        from agebench.reports.markdown import terminal_text
        from agebench.reports.run import summary

        print(f"{terminal_text(summary(finished.path))}\n\nreport: {finished.report}")
    return 0


def _end_with_stdin() -> None:
    while os.read(0, 1024):
        pass
    os._exit(130)


def _tasks(words: list[str]) -> dict[str, float | str]:
    """Parse `gender`, `race=0.5` to {"gender": 1.0, "race": "0.5"}; the settings validate the weights."""
    return {name.strip(): weight.strip() if sign else 1.0 for name, sign, weight in (w.partition("=") for w in words)}
