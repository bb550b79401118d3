"""`agebench explain`: attribution maps of an estimator."""

import argparse
import json
import sys
from dataclasses import replace

from agebench.cli.common_options import add_json, add_registry, load_cards
from agebench.cli.stress import add_estimator_options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `agebench explain`."""
    add_estimator_options(parser, "explain")
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
    """Open the estimator, explain some faces, write the report, print the tables."""
    from agebench.errors import UserError

    if arguments.images < 2:
        raise UserError(f"--images {arguments.images}: give 2 or more")
    from agebench.analysis.attribution.methods import load_captum
    from agebench.analysis.attribution.report import attribution_text, write_attribution_report
    from agebench.analysis.attribution.run import explain
    from agebench.runs.estimators import AnalysisSubject
    from agebench.utils.io import check_folder

    load_captum()  # first, because without captum no face need be prepared
    subject = AnalysisSubject(
        arguments.model, load_cards(arguments), arguments.device, trusted=arguments.allow_code_execution
    )
    with subject.estimator as estimator:
        out = arguments.out or subject.folder / "explain"
        check_folder(out)
        samples, data = subject.load(arguments.test)
        result = explain(
            estimator,
            samples,
            data,
            methods=arguments.method,
            images=arguments.images,
            wanted=arguments.image,
            seed=arguments.seed,
            label=arguments.test,
            test=arguments.test,
        )
    summary = result.summary.model_copy(update=subject.describe(arguments.test).set_fields())
    result = replace(result, summary=summary)
    page = write_attribution_report(out, result)
    print(json.dumps(summary.to_json(), indent=2, allow_nan=False) if arguments.json else attribution_text(summary))
    print(f"report: {page}", file=sys.stderr)
    return 0
