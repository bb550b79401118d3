"""Options that several commands share."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from agebench.cli._help import add_renamed
from agebench.cli._numbers import integer, number
from agebench.errors import UserError
from agebench.types import TrackerName

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from agebench.registry.catalog import Catalog
    from agebench.utils.ray_cluster import RayCluster


def add_registry(parser: argparse.ArgumentParser) -> None:
    """Add --registry DIR, repeatable."""
    parser.add_argument(
        "--registry",
        metavar="DIR",
        type=Path,
        action="append",
        default=[],
        help="one more folder with datasets/*.toml and models/*.toml (repeatable; also AGEBENCH_REGISTRY)",
    )


def add_exclude(parser: argparse.ArgumentParser) -> None:
    """Add --exclude FILE, repeatable."""
    parser.add_argument(
        "--exclude",
        metavar="FILE",
        action="append",
        default=[],
        help="a CSV of sample_ids to exclude, as `agebench data audit` writes (repeatable)",
    )


def add_experiment_options(parser: argparse.ArgumentParser, *, grid: bool = True, dry_run: bool = True) -> None:
    """Add --grid, --limit and --dry-run, which `run`, `test` and `suite` share.

    Args:
        parser: the command's parser.
        grid: whether the command has --grid.
        dry_run: whether the command has --dry-run.
    """
    if grid:
        parser.add_argument(
            "--grid",
            metavar="KEY=VALUES",
            action="append",
            default=[],
            help="run once for each value, e.g. train.lr=1e-3,1e-4; repeat the option for every combination",
        )
    parser.add_argument(
        "--limit",
        metavar="N",
        type=int,
        help="use a random subset of N images of each dataset, stratified by age band; such runs are never ranked",
    )
    if dry_run:
        parser.add_argument(
            "--dry-run", action="store_true", help="print the settings, the datasets and the folder, and run nothing"
        )


def add_trackers(parser: argparse.ArgumentParser) -> None:
    """Add --tracker NAME, repeatable."""
    parser.add_argument(
        "--tracker",
        metavar="NAME",
        dest="trackers",
        choices=[str(name) for name in TrackerName],
        action="append",
        help="where the curves and results go: tensorboard (files in the run's folder), wandb, mlflow (repeatable; default: "
        "tensorboard). Changes no result",
    )


def trackers(arguments: argparse.Namespace) -> tuple[TrackerName, ...]:
    """Return the trackers that were chosen, or the default."""
    return tuple(map(TrackerName, arguments.trackers or (TrackerName.TENSORBOARD,)))


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add --json."""
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")


def add_model_option(parser: argparse.ArgumentParser) -> None:
    """Add the model, and how faces are found for it: options of `agebench predict` and `agebench demo`."""
    parser.add_argument(
        "model",
        metavar="MODEL",
        nargs="?",
        help="the folder of a finished run, an exported file, hf://OWNER/NAME@COMMIT, or an external model's card (default: "
        "agebench-base, the model that ships with agebench)",
    )
    add_renamed(
        parser,
        "--align",
        "--faces",
        choices=["detect", "none"],
        default="detect",
        help="detect: find and align every face (default); none: each image is one face, framed like the training faces",
    )
    parser.add_argument(
        "--detector",
        metavar="NAME",
        default="",
        help="face detector, see `agebench list detectors` (default: the model's)",
    )
    add_renamed(
        parser,
        "--detect-size",
        "--search",
        metavar="PIXELS",
        type=integer(0),
        default=0,
        help="detect faces in images reduced to this side: faster, but small faces are missed (default: 0, full size)",
    )
    add_renamed(
        parser,
        "--coverage",
        "--level",
        type=number(0, 1),
        metavar="SHARE",
        help="share of true ages inside the intervals (default: 0.9)",
    )
    parser.add_argument("--device", metavar="NAME", default="auto", help="auto, cpu, cuda, … (default: auto)")
    add_code_execution(parser)


def print_default_model() -> str:
    """Print on standard error a description of the model that ships with agebench; return its name.

    Raises:
        UserError: this copy of agebench has no such model.
    """
    from agebench.estimators.released import NAME, ReleasedModel, released_dir

    print(ReleasedModel.read(released_dir()).summary(), file=sys.stderr)
    return NAME


def add_code_execution(parser: argparse.ArgumentParser) -> None:
    """Add the option that opens files whose code runs when they are opened.

    Args:
        parser: the command's parser.
    """
    add_renamed(
        parser,
        "--allow-code-execution",
        "--trusted",
        action="store_true",
        help="open an exported file whose code runs when it is opened",
    )


def add_cluster_options(parser: argparse.ArgumentParser, task: str) -> None:
    """Add --executor, --ray-address, --cpus and --gpus, which `predict` and `data align` share.

    Args:
        parser: the command's parser.
        task: what runs as one task, in the plural.
    """
    parser.add_argument(
        "--executor",
        choices=("local", "ray"),
        default="local",
        help=f"this machine, or a Ray cluster, where {task} are tasks (default: local)",
    )
    parser.add_argument(
        "--ray-address",
        metavar="ADDRESS",
        help="address of a Ray cluster: host:port, ray://host:port, auto (default: a temporary local cluster)",
    )
    parser.add_argument("--cpus", type=integer(1), metavar="N", help="cores of each task on Ray (default: 1)")
    parser.add_argument(
        "--gpus", type=number(0), metavar="N", help="GPUs of each task on Ray; 0.5: two share a GPU (default: 0)"
    )


def open_cluster(arguments: argparse.Namespace) -> "AbstractContextManager[RayCluster | None]":
    """Connect to the cluster that the options of `add_cluster_options` select; None for this machine.

    Raises:
        UserError: an option is for another executor, or the cluster cannot be used.
    """
    from contextlib import nullcontext

    if arguments.executor == "ray":
        from agebench.utils.ray_cluster import RayCluster

        return RayCluster(arguments.ray_address, cpus=arguments.cpus or 1, gpus=arguments.gpus or 0)
    for option in ("ray_address", "cpus", "gpus"):
        if getattr(arguments, option) is not None:
            raise UserError(f"--{option.replace('_', '-')} is for --executor ray")
    return nullcontext()


def load_cards(arguments: argparse.Namespace) -> "Catalog":
    """Load the cards that this call can name."""
    from agebench.registry.catalog import load_catalog

    return load_catalog(arguments.registry)


def is_http_model(model: str, cards: "Catalog") -> bool:
    """Return whether a name is that of a model that is asked over HTTP."""
    from agebench.config.cards.external import ExternalCard

    card = cards.models.get(model) if model in cards.models.names() else None
    return isinstance(card, ExternalCard) and card.format == "http"


def path_or_url(text: str) -> Path | str:
    """Return a path, or a URL as text: a path would lose one of its slashes."""
    return text if "://" in text else Path(text)


def local_folder(text: str) -> Path:
    """Return a folder of this machine.

    Args:
        text: the option's text.

    Raises:
        UserError: it is a URL, which as a path would be a folder that is called `s3:`.
    """
    if "://" in text:
        raise UserError(
            f"{text}: give a folder of this machine; only `agebench run` and `agebench suite` write to URLs"
        )
    return Path(text)
