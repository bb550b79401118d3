"""`agebench push`: a finished run on the Hugging Face hub."""

import argparse
import tempfile
from pathlib import Path

from agebench.cli.options import add_registry, cards


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `agebench push`."""
    parser.add_argument("folder", metavar="RUN", type=Path, help="the folder of a finished run")
    parser.add_argument(
        "--repo", metavar="OWNER/NAME", required=True, help="the repository; made, private, where there is none"
    )
    parser.add_argument("--dry-run", action="store_true", help="write and check the folder, send nothing")
    parser.add_argument(
        "--out",
        metavar="DIR",
        type=Path,
        help="where the folder is written (default: RUN/hub; without --dry-run a temporary one)",
    )
    add_registry(parser)


def run(arguments: argparse.Namespace) -> int:
    """Write the folder, check it, send it."""
    from agebench.deploy.hub import upload, write_repository

    with tempfile.TemporaryDirectory(prefix="agebench-push-") as temporary:
        out = arguments.out or (arguments.folder / "hub" if arguments.dry_run else Path(temporary) / "hub")
        names = write_repository(arguments.folder, arguments.repo, out, cards(arguments))
        if arguments.dry_run:
            print("\n".join(str(out / name) for name in names))
            return 0
        print(f"hf://{arguments.repo}@{upload(out, arguments.repo)}")
    return 0
