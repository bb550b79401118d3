"""`agebench new dataset|model|head|detector NAME`: create the skeleton of a plugin."""

import argparse
import json
from pathlib import Path

from agebench.cli.common_options import add_json, add_registry, load_cards


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `agebench new`."""
    parser.add_argument("kind", choices=("dataset", "model", "head", "detector"))
    parser.add_argument("name", metavar="NAME", help="name of the plugin, e.g. my-faces")
    parser.add_argument(
        "--into",
        metavar="DIR",
        type=Path,
        default=Path(),
        help="parent folder of the new package (default: the current folder)",
    )
    add_registry(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Write the skeleton and print the next commands."""
    from agebench.errors import UserError
    from agebench.plugins.scaffold import write_skeleton
    from agebench.registry.builtin import detectors, heads
    from agebench.utils.io import check_folder

    catalog = load_cards(arguments)
    existing_names = {
        "dataset": catalog.datasets.names,
        "model": catalog.models.names,
        "head": heads.names,
        "detector": detectors.names,
    }[arguments.kind]
    if arguments.name in existing_names():
        raise UserError(f"there is a {arguments.kind} called '{arguments.name}' already; choose another name")
    check_folder(arguments.into, "--into")
    files = write_skeleton(arguments.kind, arguments.name, arguments.into)
    folder = arguments.into / f"agebench-{arguments.name}"
    commands = [f"pip install -e {folder}", f"agebench check {arguments.name}", f"python -m pytest {folder}"]
    if arguments.json:
        print(json.dumps({"folder": str(folder), "files": [str(file) for file in files], "next": commands}, indent=2))
    else:
        print("\n".join([*map(str, files), "\nnext:", *(f"  {command}" for command in commands)]))
    return 0
