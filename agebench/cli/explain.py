"""`agebench explain`: where a trained model looks."""

import argparse
import json
import sys
from pathlib import Path

from agebench.cli.options import add_json, add_registry, cards
from agebench.cli.stress import add_opened


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `agebench explain`."""
    parser.add_argument("folder", metavar="RUN", type=Path, help="the folder of a run that was trained")
    add_opened(parser)
    parser.add_argument(
        "--method",
        action="append",
        default=[],
        choices=["grad-cam", "integrated-gradients", "occlusion"],
        help="only this one (repeatable; default: all that can explain the model)",
    )
    parser.add_argument(
        "--images",
        type=int,
        default=120,
        metavar="N",
        help="faces behind the mean maps, every age band alike (default: 120)",
    )
    parser.add_argument(
        "--image", metavar="ID", action="append", default=[], help="show this image by its sample_id (repeatable)"
    )
    add_registry(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Open the run, explain some faces, write RUN/explain/, print the tables."""
    from agebench.errors import UserError

    if arguments.images < 2:
        raise UserError(f"--images {arguments.images}: give 2 or more")
    from agebench.analysis.attributions import load_captum
    from agebench.analysis.explain import explain
    from agebench.analysis.explain_report import explain_text, write_explanation
    from agebench.files import check_folder
    from agebench.runs.finished import open_test, open_trained
    from agebench.runs.folder import RunFolder

    load_captum()  # first: without it, nothing need be prepared
    catalogue, folder = cards(arguments), RunFolder(arguments.folder)
    config, trained = open_trained(folder, arguments.device)
    check_folder(folder.path / "explain", "the report in")
    samples, data = open_test(config, folder, catalogue, arguments.test)
    looked = explain(
        trained,
        samples,
        data,
        methods=arguments.method,
        images=arguments.images,
        wanted=arguments.image,
        seed=arguments.seed,
        label=arguments.test,
    )
    looked.found.update({"test": arguments.test})
    page = write_explanation(folder.path / "explain", looked)
    print(json.dumps(looked.found, indent=2, allow_nan=False) if arguments.json else explain_text(looked.found))
    print(f"report: {page}", file=sys.stderr)
    return 0
