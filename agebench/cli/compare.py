"""`agebench compare`: compare systems on the same images."""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from agebench.cli.common_options import add_json
from agebench.cli.score import add_gate_options, add_input_options, add_resampling_options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `agebench compare`."""
    parser.add_argument(
        "systems",
        nargs="+",
        metavar="[NAME=]FILE[,FILE…]",
        help="a system's predictions, its seeds separated by commas; a run folder stands for its predictions/*.parquet",
    )
    add_input_options(parser)
    add_gate_options(parser)
    parser.add_argument(
        "--group",
        metavar="COLUMN",
        action="append",
        help="a column whose largest gap is compared, or a crossing a*b (repeatable; default: all labels there are)",
    )
    parser.add_argument(
        "--margin",
        metavar="FIGURE=NUMBER",
        action="append",
        default=[],
        help="a difference that does not matter, e.g. mae=0.25 or fpr=0.02: tests non-inferiority and equivalence (repeatable)",
    )
    add_resampling_options(parser)
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="write comparison.json, comparison.md and figures/ here"
    )
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Read predictions, compare systems on their common test sets, and print."""
    from agebench.api.prediction_files import compare_files
    from agebench.metrics.age_gates import parse_ages
    from agebench.metrics.prediction_io import column_map
    from agebench.utils.io import check_folder

    if arguments.out:
        check_folder(arguments.out)
    report = compare_files(
        _systems(arguments.systems),
        labels=arguments.labels,
        columns=column_map(arguments.col),
        allow=arguments.allow,
        match=arguments.match,
        groups=arguments.group,
        gates=arguments.gate,
        gate_ages=None if arguments.gate_ages is None else parse_ages(arguments.gate_ages),
        margins=arguments.margin,
        resamples=arguments.resamples,
        seed=arguments.seed,
        interval=arguments.interval,
        command=arguments.argv,
    )
    if arguments.out:
        report.save(arguments.out)
    print(json.dumps(report.result.to_json(), indent=2, allow_nan=False) if arguments.json else report.to_markdown())
    if arguments.out:
        print(f"report: {arguments.out / 'comparison.md'}", file=sys.stderr)
    return 0


def _systems(texts: Sequence[str]) -> dict[str, list[Path]]:
    """Parse `[NAME=]FILE[,FILE…]` of each system: its name and its files."""
    from agebench.errors import UserError

    systems: dict[str, list[Path]] = {}
    for text in texts:
        name, equals, rest = ("", "", text) if _is_path(text) else text.partition("=")
        rest = rest if equals else text
        paths = [Path(part) for part in ([rest] if _is_path(rest) else rest.split(",")) if part]
        if not paths or (equals and not name):
            raise UserError(f"'{text}' names no predictions; write NAME=FILE, or NAME=FILE,FILE for several seeds")
        name = name or _default_name(paths[0])
        if name in systems:
            raise UserError(f"two systems are called '{name}'; name them: {name}-a=FILE {name}-b=FILE")
        systems[name] = paths
    return systems


def _is_path(text: str) -> bool:
    """Return whether a whole word is the path of a file or folder, which may contain `=` and `,`."""
    return bool(text) and os.path.exists(text)


def _default_name(path: Path) -> str:
    """Return the name of a run folder, or of a file without its suffix."""
    if not path.is_dir():
        return path.stem
    return path.name if path.name not in ("", "..") else path.resolve().name  # a link keeps its own name
