"""`agebench run`: the main job."""

import argparse
import json
import os
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agebench.cli._messages import print_already_finished
from agebench.cli.common_options import add_exclude, add_json, add_registry, load_cards, path_or_url

if TYPE_CHECKING:
    from agebench.registry.catalog import Catalog
    from agebench.runs.config import RunConfig
    from agebench.runs.run_dir import RunDir


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `agebench run`."""
    parser.add_argument("--train", metavar="DATASET", help="the dataset to train and validate on")
    parser.add_argument(
        "--test",
        metavar="DATASET",
        action="append",
        help="a dataset to test on (repeatable); the training set's name means its held-out part",
    )
    parser.add_argument(
        "--protocol",
        metavar="NAME",
        help="how the training set is divided, see `agebench info DATASET` (default: default)",
    )
    add_exclude(parser)
    parser.add_argument("--model", metavar="NAME", help="a model card (default: efficientnet_lite0)")
    parser.add_argument("--head", metavar="NAME", help="another head than the card's")
    parser.add_argument(
        "--task",
        metavar="NAME[=WEIGHT]",
        action="append",
        default=[],
        help="learn a further label beside age, as gender; its weight in the loss is 1 (repeatable)",
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
    parser.add_argument("--epochs", type=int, metavar="N")
    parser.add_argument("--seed", type=int, metavar="N", help="decides the split, the start and the order (default: 0)")
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
    parser.add_argument("--resume", action="store_true", help="go on with a run that was interrupted")
    parser.add_argument(
        "--end-with-stdin", action="store_true", help="end when standard input does: for programs that start runs"
    )
    add_registry(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Resolve the settings, do the run, print its table."""
    from agebench.runs.config import resolve_config

    if arguments.end_with_stdin:
        threading.Thread(target=_end_with_stdin, daemon=True).start()
    catalogue = load_cards(arguments)
    config = resolve_config(catalogue, _layers(arguments))
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        return _run(arguments, config, catalogue, lambda decide: decide())
    from agebench.training import distributed

    with distributed.process_group():
        if distributed.get_rank() == 0:
            print(f"{distributed.get_world_size()} processes share every batch", file=sys.stderr)
            return _run(arguments, config, catalogue, distributed.broadcast_from_main)
        return _help(config, catalogue, distributed.broadcast_from_main)


def _run(
    arguments: argparse.Namespace,
    config: "RunConfig",
    catalogue: "Catalog",
    agree: "Callable[[Callable[[], bool]], bool]",
) -> int:
    """Do the run, or show it where it is done; `agree` tells the other processes which of the two."""
    from agebench.errors import DiskFull, UserError
    from agebench.runs.remote_dir import run_folder

    where = arguments.out or Path("runs") / config.name()
    with run_folder(where) as folder:
        if folder.finished(config):
            print_already_finished(folder, config, catalogue, where)
            agree(lambda: False)
            return _show(folder, arguments)
        if folder.started() and not arguments.resume and not folder.continues():
            raise UserError(
                f"{where} holds the beginning of this run; add --resume to go on with it, or delete the folder"
            )
        try:
            with folder.locked():
                # Looked at again: another process may have done it while this one was starting.
                if agree(lambda: not folder.finished(config)):
                    # torch is loaded only now, when the settings are known to be right
                    from agebench.runs.run import run as do_run

                    do_run(config, catalogue, folder, quiet=arguments.json)
        except KeyboardInterrupt:
            print(f"\n{_interrupted(folder, where)}", file=sys.stderr)
            return 130
        except DiskFull as error:
            # The message ends in "the same command continues".
            if folder.started() and not folder.let_continue():
                raise DiskFull(f"{error} Add --resume to it.") from error
            raise
        return _show(folder, arguments)


def _interrupted(folder: "RunDir", where: Path | str) -> str:
    """What to do after Ctrl-C; no file is named that is not there."""
    config = folder.path / "config.toml"
    if not config.exists() or not folder.started():
        return "interrupted before an epoch was done; the same command begins again"
    return f"interrupted; go on with\n  agebench run --config {config} --out {where} --resume"


def _help(config: "RunConfig", catalogue: "Catalog", agree: "Callable[[Callable[[], bool]], bool]") -> int:
    """As one of several processes: do a share of the work, and leave the writing to the first."""
    from agebench.runs.run_dir import RunDir

    if agree(lambda: True):
        from agebench.runs.run import run as do_run

        with tempfile.TemporaryDirectory() as scratch:
            do_run(config, catalogue, RunDir(Path(scratch) / config.name()), quiet=True)
    return 0


def _end_with_stdin() -> None:
    while os.read(0, 1024):
        pass
    os._exit(130)


def _layers(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Settings in rising order of precedence: the config file, the flags, --set."""
    from agebench.errors import UserError
    from agebench.runs.config import parse_setting, read_settings

    file = read_settings(arguments.config) if arguments.config else {}
    if arguments.model:
        # Another model's backbone and recipe have no place beside this one's.
        file = {key: value for key, value in file.items() if key not in ("model", "train", "pretrained")}
    data = {
        "train": arguments.train,
        "test": arguments.test or ([arguments.train] if arguments.train and "data" not in file else None),
        "protocol": arguments.protocol,
        "exclude": arguments.exclude or None,
    }
    flags = {
        "seed": arguments.seed,
        "device": arguments.device,
        "pretrained": arguments.pretrained,
        "data": data,
        "model": {"name": arguments.model, "head": arguments.head, "tasks": _tasks(arguments.task)},
        "train": {"epochs": arguments.epochs},
    }
    layers = [file, _given(flags), *(parse_setting(text) for text in arguments.set)]
    if not any(isinstance(layer.get("data"), dict) and "train" in layer["data"] for layer in layers):
        raise UserError(
            "--train DATASET is missing: which dataset to train on? (Where settings come from a file, the key 'data.train' is "
            "missing.) `agebench list datasets` shows those that can be named"
        )
    return layers


def _tasks(words: list[str]) -> dict[str, float | str]:
    """`gender`, `race=0.5` -> {"gender": 1.0, "race": "0.5"}; what a weight may be, the settings know."""
    return {name.strip(): weight.strip() if sign else 1.0 for name, sign, weight in (w.partition("=") for w in words)}


def _given(settings: dict[str, Any]) -> dict[str, Any]:
    """Without what was not said."""
    nested = {key: _given(value) if isinstance(value, dict) else value for key, value in settings.items()}
    return {key: value for key, value in nested.items() if value is not None and value != {}}


def _show(folder: Any, arguments: argparse.Namespace) -> int:
    from agebench.metrics.schema import MetricsFile
    from agebench.reports.run import summary

    metrics = folder.metrics()
    if arguments.json:
        print(json.dumps(metrics, indent=2))
    else:
        print(summary(MetricsFile.from_json(metrics)))
        print(f"\nreport: {folder.path / 'report.md'}")
    return 0
