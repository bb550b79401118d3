"""Options that several commands share."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agebench.registry.catalogue import Catalogue


def add_registry(parser: argparse.ArgumentParser) -> None:
    """--registry DIR, repeatable."""
    parser.add_argument(
        "--registry",
        metavar="DIR",
        type=Path,
        action="append",
        default=[],
        help="one more folder with datasets/*.toml and models/*.toml (repeatable; also AGEBENCH_REGISTRY)",
    )


def add_exclude(parser: argparse.ArgumentParser) -> None:
    """--exclude FILE, repeatable."""
    parser.add_argument(
        "--exclude",
        metavar="FILE",
        action="append",
        default=[],
        help="a CSV of sample_ids to leave out, as `agebench data audit` writes (repeatable)",
    )


def add_json(parser: argparse.ArgumentParser) -> None:
    """--json."""
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")


def cards(arguments: argparse.Namespace) -> "Catalogue":
    """All cards that this call can see."""
    from agebench.registry.catalogue import catalogue

    return catalogue(arguments.registry)


def place(text: str) -> Path | str:
    """A folder, or a URL as it stands: a path would lose one of its slashes."""
    return text if "://" in text else Path(text)
