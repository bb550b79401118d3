"""`agebench stress`: how much worse a trained model gets as photographs get worse."""

import argparse
import json
import sys
from pathlib import Path

from agebench.cli.common_options import add_json, add_registry, load_cards


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `agebench stress`."""
    parser.add_argument("folder", metavar="RUN", type=Path, help="the folder of a run that was trained")
    add_run_options(parser)
    parser.add_argument(
        "--corruption", metavar="NAME", action="append", default=[], help="only this one (repeatable; default: all)"
    )
    parser.add_argument(
        "--occlude",
        metavar="BOX",
        action="append",
        default=[],
        help="also cover left,top,right,bottom, shares of the side, e.g. 0,0,0.2,0.2 (repeatable)",
    )
    parser.add_argument(
        "--resamples", type=int, default=1000, metavar="N", help="bootstrap samples; 0: no intervals (default: 1000)"
    )
    add_registry(parser)
    add_json(parser)


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """How a run is opened; `agebench explain` shares it."""
    parser.add_argument("--test", metavar="DATASET", required=True, help="whose faces; one of the run's or any other")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of all that is drawn (default: 0)")
    parser.add_argument("--device", metavar="NAME", default="auto", help="auto, cpu, cuda, … (default: auto)")


def run(arguments: argparse.Namespace) -> int:
    """Open the run, ask it, write RUN/stress/, print the table."""
    from agebench.cli.score import check_resampling

    check_resampling(arguments)
    from agebench.analysis.robustness import corruptions, evaluate
    from agebench.analysis.robustness.report import robustness_text, write_robustness_report
    from agebench.data.faces.regions import parse_box
    from agebench.reports.plots.run import dataset_colors
    from agebench.runs.loading import load_run, load_test_set
    from agebench.runs.run_dir import RunDir
    from agebench.utils.io import check_folder

    chosen = corruptions.select_corruptions(arguments.corruption, [parse_box(text) for text in arguments.occlude])
    catalogue, folder = load_cards(arguments), RunDir(arguments.folder)
    config, trained = load_run(folder, arguments.device)
    check_folder(folder.path / "stress", "the report in")
    samples, data = load_test_set(config, folder, catalogue, arguments.test)
    answers = evaluate.predict_corrupted(trained, data, chosen, seed=arguments.seed, label=arguments.test)
    found = {"test": arguments.test} | evaluate.robustness_metrics(
        answers, samples, chosen, resamples=arguments.resamples, seed=arguments.seed
    )
    colour = dataset_colors(config.data.train, [*config.data.test, arguments.test])[arguments.test]
    page = write_robustness_report(
        folder.path / "stress", found, answers, samples, data, chosen, coverage=trained.coverage, color=colour
    )
    print(json.dumps(found, indent=2, allow_nan=False) if arguments.json else robustness_text(found))
    print(f"report: {page}", file=sys.stderr)
    return 0
