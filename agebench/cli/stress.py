"""`agebench stress`: measure an estimator's error under image corruptions."""

import argparse
import json
import sys
from pathlib import Path

from agebench.cli._numbers import resamples, seed
from agebench.cli.common_options import add_code_execution, add_json, add_registry, load_cards


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `agebench stress`."""
    add_estimator_options(parser, "stress")
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
        "--resamples",
        type=resamples,
        default=1000,
        metavar="N",
        help="bootstrap samples; 0: no intervals (default: 1000)",
    )
    add_registry(parser)
    add_json(parser)


def add_estimator_options(parser: argparse.ArgumentParser, report: str) -> None:
    """Add the options that select an estimator and a dataset; `agebench explain` shares them.

    Args:
        parser: the command's parser.
        report: name of the folder for the report.
    """
    parser.add_argument(
        "model",
        metavar="MODEL",
        help="the folder of a trained run, an exported file, hf://OWNER/NAME@COMMIT, an external model's card, or agebench-base",
    )
    parser.add_argument(
        "--test", metavar="DATASET", required=True, help="the dataset: a run's test set or any other dataset"
    )
    parser.add_argument(
        "--out",
        metavar="DIR",
        type=Path,
        help=f"folder of the report (default: MODEL/{report} of a run, else runs/<model>/{report})",
    )
    parser.add_argument("--seed", type=seed, default=0, metavar="N", help="seed of random numbers (default: 0)")
    parser.add_argument("--device", metavar="NAME", default="auto", help="auto, cpu, cuda, … (default: auto)")
    add_code_execution(parser)


def run(arguments: argparse.Namespace) -> int:
    """Open the estimator, predict corrupted faces, write the report, print the table."""
    from agebench.analysis.robustness.corruptions import select_corruptions
    from agebench.analysis.robustness.report import robustness_text
    from agebench.analysis.robustness.run import run_stress
    from agebench.data.faces.regions import parse_box
    from agebench.runs.estimators import AnalysisSubject

    corruptions = select_corruptions(arguments.corruption, [parse_box(text) for text in arguments.occlude])
    subject = AnalysisSubject(
        arguments.model, load_cards(arguments), arguments.device, trusted=arguments.allow_code_execution
    )
    metrics, report = run_stress(
        subject,
        arguments.test,
        corruptions,
        arguments.out or subject.folder / "stress",
        required=arguments.corruption,
        resamples=arguments.resamples,
        seed=arguments.seed,
    )
    print(json.dumps(metrics.to_json(), indent=2, allow_nan=False) if arguments.json else robustness_text(metrics))
    print(f"report: {report}", file=sys.stderr)
    return 0
