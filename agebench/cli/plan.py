"""`agebench plan`: people and images that a test needs."""

import argparse
import json
from pathlib import Path

from agebench.cli._numbers import integer, number
from agebench.cli.common_options import add_json
from agebench.cli.score import add_input_options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `agebench plan`.

    Args:
        parser: the command's parser.
    """
    parser.add_argument(
        "pilot", nargs="?", type=Path, metavar="PREDICTIONS", help="a pilot's predictions (default: typical values)"
    )
    add_input_options(parser)
    parser.add_argument(
        "--half-width",
        type=number(0.001, 100),
        action="append",
        metavar="YEARS",
        help="of the MAE's 95 %% interval (repeatable)",
    )
    parser.add_argument(
        "--gap", type=number(0.001, 100), action="append", metavar="YEARS", help="between two groups (repeatable)"
    )
    parser.add_argument(
        "--fpr",
        type=number(0.00001, 0.99999),
        action="append",
        metavar="RATE",
        help="a false positive rate to be shown (repeatable)",
    )
    parser.add_argument("--power", type=number(0.05, 0.9999), default=0.8, metavar="SHARE", help="(default: 0.8)")
    parser.add_argument("--images-per-person", type=number(1, 10_000), default=1.0, metavar="N", help="(default: 1)")
    parser.add_argument(
        "--pairs",
        type=integer(1, 1_000_000),
        default=1,
        metavar="N",
        help="pairs of groups that are compared (default: 1)",
    )
    parser.add_argument("--gate", default="18@25", metavar="AGE@T", help="the pilot's age gate (default: 18@25)")
    parser.add_argument(
        "--group",
        metavar="COLUMN",
        action="append",
        help="a column to group the pilot by, or a crossing a*b (repeatable)",
    )
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Compute the plan, from a pilot where one is given, and print it."""
    from agebench.metrics.age_gates import parse_gate
    from agebench.metrics.planning import FPR_LIMITS, GAPS, HALF_WIDTHS, PlanOptions, make_plan
    from agebench.metrics.prediction_io import column_map, read_predictions
    from agebench.reports.sections.planning import plan_text

    options = PlanOptions(
        half_widths=tuple(arguments.half_width or HALF_WIDTHS),
        gaps=tuple(arguments.gap or GAPS),
        fpr_limits=tuple(arguments.fpr or FPR_LIMITS),
        power=arguments.power,
        images_per_person=arguments.images_per_person,
        pairs=arguments.pairs,
        gate=parse_gate(arguments.gate),
    )
    options.check()
    pilot = None
    if arguments.pilot:
        columns = column_map(arguments.col)
        pilot = read_predictions(
            arguments.pilot, arguments.labels, columns=columns, allow=arguments.allow, match=arguments.match
        ).table
    plan = make_plan(pilot, options, None if arguments.group is None else tuple(arguments.group))
    print(json.dumps(plan.to_json(), indent=2, allow_nan=False) if arguments.json else plan_text(plan), end="")
    return 0
