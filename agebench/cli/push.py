"""`agebench push`: upload a finished run, or its estimates, to the Hugging Face hub."""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Literal

from agebench.cli.common_options import add_json, add_registry, load_cards


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `agebench push`."""
    parser.add_argument("folder", metavar="RUN", type=Path, help="the folder of a finished run")
    parser.add_argument(
        "--repo",
        metavar="OWNER/NAME",
        required=True,
        help="the repository; created as a private one if it does not exist",
    )
    parser.add_argument(
        "--predictions",
        action="store_true",
        help="upload the estimates on the test sets as a dataset, without labels, instead of the model",
    )
    parser.add_argument("--dry-run", action="store_true", help="write and check the folder without uploading it")
    parser.add_argument(
        "--out",
        metavar="DIR",
        type=Path,
        help="where the folder is written (default: RUN/hub, RUN/hub-predictions; without --dry-run a temporary one)",
    )
    add_registry(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Write the folder, check it, upload it."""
    from agebench.hub.push import upload, write_repository
    from agebench.hub.push_predictions import write_predictions_repository
    from agebench.utils.io import check_folder

    if arguments.out:
        check_folder(arguments.out)
    with tempfile.TemporaryDirectory(prefix="agebench-push-") as temporary:
        name = "hub-predictions" if arguments.predictions else "hub"
        out = arguments.out or (arguments.folder if arguments.dry_run else Path(temporary)) / name
        write = write_predictions_repository if arguments.predictions else write_repository
        names = write(arguments.folder, arguments.repo, out, load_cards(arguments))
        kind: Literal["model", "dataset"] = "dataset" if arguments.predictions else "model"
        commit = None if arguments.dry_run else upload(out, arguments.repo, kind)
    address = f"hf://{'datasets/' * arguments.predictions}{arguments.repo}@{commit}" if commit else None
    local_copy = out if arguments.out or arguments.dry_run else None  # the temporary folder is deleted
    if arguments.json:
        about = {"repo": arguments.repo, "folder": str(local_copy) if local_copy else None, "files": names}
        print(json.dumps({**about, "commit": commit, "address": address}, indent=2))
    else:
        print(address or "\n".join(str(out / name) for name in names))
    return 0
