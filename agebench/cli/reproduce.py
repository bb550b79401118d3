"""`agebench reproduce`: repeat a run from its record."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from agebench.cli._help import add_renamed
from agebench.cli.common_options import add_json, add_registry, load_cards

if TYPE_CHECKING:
    from agebench.leaderboard.reproduce import Reproduction


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `agebench reproduce`."""
    parser.add_argument("record", type=Path, metavar="RECORD", help="a file of reports/results")
    parser.add_argument("--out", type=Path, metavar="DIR", help="the run's folder (default: runs/again-<id>)")
    parser.add_argument("--device", metavar="NAME", help="device, instead of the one in the record")
    add_renamed(
        parser,
        "--force",
        "--anyway",
        action="store_true",
        help="run even if data, cards or weights differ from those of the record",
    )
    add_registry(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Compare inputs, run, compare metrics; return 1 if a metric differs by more than chance."""
    from agebench.leaderboard.reproduce import reproduce

    result = reproduce(
        arguments.record,
        load_cards(arguments),
        out=arguments.out,
        device=arguments.device,
        force=arguments.force,
        quiet=arguments.json,
    )
    print(json.dumps(result.to_json(), indent=2) if arguments.json else _to_text(result))
    return 1 if result.verdict.is_failure else 0


def _to_text(result: "Reproduction") -> str:
    from agebench.leaderboard.reproduce import Verdict
    from agebench.reports.formatting import format_ci, markdown_table

    rows = [[name, format_ci(test.there), format_ci(test.mae), test.verdict] for name, test in result.tests.items()]
    lines = [markdown_table(["test set", "MAE in the record", "MAE now", "verdict"], rows), ""]
    for name, test in result.tests.items():
        if noise := test.noise:
            lines.append(
                f"{name}: two trainings differ by up to {noise.limit:.2f} years (95 %; standard deviation {noise.std:.2f}, "
                f"{noise.source}: {noise.systems} system(s), {noise.freedom} degrees of freedom)"
            )
        elif test.verdict is not Verdict.IDENTICAL:
            lines.append(
                f"{name}: no records for an estimate of the training noise; judged by the record's interval, that of the images"
            )
    if result.circumstances:
        lines.append("other circumstances: " + "; ".join(result.circumstances))
    return "\n".join([*lines, f"verdict: {result.verdict} ({result.run})"])
