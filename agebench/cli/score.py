"""`agebench score`: metrics of predictions in a file."""

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from agebench.cli._help import add_renamed
from agebench.cli._numbers import OLDEST, age, count, integer, legal_age, resamples, seed
from agebench.cli.common_options import add_json

if TYPE_CHECKING:
    from agebench.api.scoring import ScoreReport


_NO_REPORT = (
    "All other figures (every age gate by age and group, crossings of groups, tests): --full prints them, --out DIR writes them "
    "as a report with figures."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `agebench score`."""
    parser.add_argument(
        "predictions",
        nargs="+",
        type=Path,
        metavar="PREDICTIONS",
        help="CSV or Parquet: sample_id, age_pred, and age unless --labels has it; several files: seeds of one system",
    )
    add_input_options(parser)
    _add_figure_options(parser)
    add_gate_options(parser)
    add_require(parser)
    parser.add_argument(
        "--calibration", type=Path, metavar="FILE", help="predictions on the validation part, for conformal intervals"
    )
    add_renamed(
        parser,
        "--p-first-age",
        "--first-age",
        type=integer(0, OLDEST),
        default=0,
        metavar="AGE",
        help="age of the first entry of column p, in years (default: 0)",
    )
    parser.add_argument(
        "--preset",
        choices=["nist"],
        default="",
        help="nist: also the metrics of NIST's FATE AEV, at the ages that NIST specifies; with --out also nist.html, a page in the "
        "layout of its report cards",
    )
    add_resampling_options(parser)
    parser.add_argument("--out", type=Path, metavar="DIR", help="write metrics.json, report.md and figures/ here")
    parser.add_argument("--full", action="store_true", help="print the whole report, not only its first part")
    add_json(parser)


def _add_figure_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of groups, training ages and age gates."""
    parser.add_argument("--name", metavar="NAME", help="name of the test set (default: the file's name)")
    parser.add_argument(
        "--group",
        metavar="COLUMN",
        action="append",
        help="a column to group by, or a crossing a*b (repeatable; default: all labels there are, and crossings of every two)",
    )
    parser.add_argument(
        "--min-group",
        type=count,
        default=30,
        metavar="N",
        help="smallest group that is compared with others (default: 30)",
    )
    parser.add_argument(
        "--train-ages",
        nargs=2,
        type=age,
        metavar=("LOW", "HIGH"),
        help="the training set's ages, for the MAE within them",
    )
    parser.add_argument(
        "--legal-age",
        type=legal_age,
        action="append",
        metavar="AGE",
        help="an age gate (repeatable; default: 13, 16, 18, 21)",
    )
    parser.add_argument(
        "--challenge",
        type=age,
        action="append",
        metavar="AGE",
        help="estimate from which a person passes (repeatable; default: the legal age, and 7 years more)",
    )


def add_gate_options(parser: argparse.ArgumentParser) -> None:
    """Add options of age gates; `agebench run`, `agebench test` and `agebench compare` have them too.

    Args:
        parser: the command's parser.
    """
    parser.add_argument(
        "--gate",
        metavar="AGE@T",
        action="append",
        default=[],
        help="a legal age and the estimate from which a person passes, e.g. 18@25 (repeatable)",
    )
    parser.add_argument(
        "--gate-ages", metavar="LOW-HIGH", help="ages of the minors that count at the gates, e.g. 13-17 (default: all)"
    )


def add_require(parser: argparse.ArgumentParser) -> None:
    """Add --require; `agebench test` has it too.

    Args:
        parser: the command's parser.
    """
    parser.add_argument(
        "--require",
        metavar="LIMIT",
        action="append",
        default=[],
        help='e.g. "mae<=4.5", "fpr(18@25)<=0.01", "mae(every race)<=6" (repeatable); exit code 0: all shown, 3: some not shown, '
        "4: some refuted",
    )


def add_input_options(parser: argparse.ArgumentParser) -> None:
    """Add options of reading files; `agebench compare` has them too."""
    parser.add_argument(
        "--labels", type=Path, metavar="FILE", help="CSV or Parquet: sample_id, age, and subject and groups if known"
    )
    parser.add_argument(
        "--col",
        metavar="NAME=COLUMN",
        action="append",
        default=[],
        help="a column's name in the files, e.g. age_pred=estimate (repeatable); with --labels, age_pred, age_std and p in the "
        "predictions only, ages in the labels only; a file without COLUMN keeps its NAME",
    )
    parser.add_argument(
        "--allow",
        choices=["missing", "extra", "duplicates"],
        action="append",
        default=[],
        help="count and exclude rows that do not match, instead of an error (repeatable)",
    )
    parser.add_argument(
        "--match",
        choices=["id", "name", "stem"],
        default="id",
        help="join predictions and --labels by the whole sample_id, by the file's name in it, or by that without its ending "
        "(default: id)",
    )


def add_resampling_options(parser: argparse.ArgumentParser) -> None:
    """Add options of confidence intervals; `agebench compare` has them too."""
    parser.add_argument(
        "--resamples",
        type=resamples,
        default=1000,
        metavar="N",
        help="bootstrap samples; 0: no intervals (default: 1000)",
    )
    parser.add_argument("--seed", type=seed, default=0, metavar="N", help="seed of the resampling (default: 0)")
    parser.add_argument("--interval", choices=["bca", "percentile"], default="bca", help="(default: bca)")


def run(arguments: argparse.Namespace) -> int:
    """Read predictions, compute metrics and print them; with --out, write a report."""
    from agebench.api.prediction_files import score_files
    from agebench.metrics.age_gates import LEGAL_AGES, parse_ages
    from agebench.metrics.prediction_io import column_map
    from agebench.utils.io import check_folder

    if arguments.out:
        check_folder(arguments.out)
    report = score_files(
        arguments.predictions,
        labels=arguments.labels,
        columns=column_map(arguments.col),
        allow=arguments.allow,
        match=arguments.match,
        calibration=arguments.calibration,
        groups=arguments.group,
        first_age=arguments.p_first_age,
        train_ages=None if arguments.train_ages is None else tuple(arguments.train_ages),
        legal_ages=arguments.legal_age or LEGAL_AGES,
        challenge_ages=arguments.challenge or (),
        gates=arguments.gate,
        gate_ages=None if arguments.gate_ages is None else parse_ages(arguments.gate_ages),
        require=arguments.require,
        preset=arguments.preset,
        resamples=arguments.resamples,
        seed=arguments.seed,
        interval=arguments.interval,
        min_group=arguments.min_group,
        name=arguments.name or "",
        command=arguments.argv,
    )
    if arguments.out:
        report.save(arguments.out)
    _print_report(report, arguments)
    return report.verdict.exit_code


def _print_report(report: "ScoreReport", arguments: argparse.Namespace) -> None:
    """Print the metrics, and the path of the report."""
    if arguments.json:
        print(json.dumps(report.metrics.to_json(), indent=2, allow_nan=False))
    elif arguments.full:
        print(report.to_markdown(full=True))
    else:
        rest = f"The whole report: {arguments.out / 'report.html'}" if arguments.out else _NO_REPORT
        from agebench.reports.markdown import terminal_text

        print(f"{terminal_text(report.summary(''))}\n\n{rest}")
    if arguments.out:
        print(f"report: {arguments.out / 'report.md'}", file=sys.stderr)
