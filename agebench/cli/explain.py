"""`agebench explain`: where a trained model looks."""

import argparse
import json
import sys
from pathlib import Path

from agebench.cli.common_options import add_json, add_registry, load_cards
from agebench.cli.stress import add_run_options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `agebench explain`."""
    parser.add_argument("folder", metavar="RUN", type=Path, help="the folder of a run that was trained")
    add_run_options(parser)
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
    from agebench.analysis.attribution.methods import load_captum
    from agebench.analysis.attribution.report import attribution_text, write_attribution_report
    from agebench.analysis.attribution.run import explain
    from agebench.runs.loading import load_run, load_test_set
    from agebench.runs.run_dir import RunDir
    from agebench.utils.io import check_folder

    load_captum()  # first: without it, nothing need be prepared
    catalogue, folder = load_cards(arguments), RunDir(arguments.folder)
    config, trained = load_run(folder, arguments.device)
    check_folder(folder.path / "explain", "the report in")
    samples, data = load_test_set(config, folder, catalogue, arguments.test)
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
    looked.summary.update({"test": arguments.test})
    page = write_attribution_report(folder.path / "explain", looked)
    print(json.dumps(looked.summary, indent=2, allow_nan=False) if arguments.json else attribution_text(looked.summary))
    print(f"report: {page}", file=sys.stderr)
    return 0
