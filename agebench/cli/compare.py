"""`agebench compare`: compare systems on the same images."""

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from agebench.cli.common_options import add_json
from agebench.cli.score import add_gate_options, add_input_options, add_resampling_options

if TYPE_CHECKING:
    from agebench.metrics.paired_figures import FigureOptions
    from agebench.metrics.prediction_io import JoinedPredictions
    from agebench.metrics.schema import Measurement


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
    from agebench.errors import UserError
    from agebench.metrics.comparing import compare_on_test_sets
    from agebench.utils.io import check_folder

    if arguments.out:
        check_folder(arguments.out)
    named = [_named(text) for text in arguments.systems]
    names = [name for name, _ in named]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UserError(f"two systems are called '{twice}'; name them: {twice}-a=FILE {twice}-b=FILE")
    if len(names) < 2:
        raise UserError("a comparison needs two systems at least: agebench compare A=a.csv B=b.csv")
    result = compare_on_test_sets(
        _tests(named, arguments), _options(arguments), allow_missing="missing" in arguments.allow
    )
    result = result.model_copy(update={"measurement": _measurement(named, arguments)})
    if arguments.out:
        from agebench.reports.evaluation import write_comparison

        write_comparison(arguments.out, result)
    from agebench.reports.sections.evaluation import compare_text

    print(json.dumps(result.to_json(), indent=2, allow_nan=False) if arguments.json else compare_text(result))
    if arguments.out:
        print(f"report: {arguments.out / 'comparison.md'}", file=sys.stderr)
    return 0


def _measurement(named: list[tuple[str, list[Path]]], arguments: argparse.Namespace) -> "Measurement":
    from agebench.metrics.measuring import measure_files

    files = []
    for name, paths in named:
        for path in paths:
            inside = sorted(path.glob("predictions/[!.]*.parquet")) if path.is_dir() else [path]
            files += [(f"predictions of {name}", file) for file in inside]
    files += [("labels", arguments.labels)] if arguments.labels else []
    return measure_files(files, getattr(arguments, "argv", []))


def _options(arguments: argparse.Namespace) -> "FigureOptions":
    from agebench.metrics.age_gates import parse_ages, parse_gate
    from agebench.metrics.comparing import DEFAULT_GATES
    from agebench.metrics.paired_figures import FigureOptions, parse_margins

    return FigureOptions(
        gates=tuple(parse_gate(text) for text in arguments.gate) or DEFAULT_GATES,
        minor_ages=None if arguments.gate_ages is None else parse_ages(arguments.gate_ages),
        groups=None if arguments.group is None else tuple(arguments.group),
        margins=parse_margins(arguments.margin),
        resamples=arguments.resamples,
        seed=arguments.seed,
        interval=arguments.interval,
    )


def _named(text: str) -> tuple[str, list[Path]]:
    from agebench.errors import UserError

    name, equals, rest = text.partition("=")
    paths = [Path(part) for part in (rest if equals else text).split(",") if part]
    if not paths or not name:
        raise UserError(f"'{text}' names no predictions; write NAME=FILE, or NAME=FILE,FILE for several seeds")
    return (name if equals else paths[0].stem), paths


def _tests(
    named: list[tuple[str, list[Path]]], arguments: argparse.Namespace
) -> "dict[str, dict[str, list[JoinedPredictions]]]":
    """Return test set -> system -> predictions, one table for each seed."""
    from agebench.errors import UserError
    from agebench.metrics.prediction_io import column_map, read_predictions

    columns = column_map(arguments.col)

    def read(path: Path, labels: Path | None) -> "JoinedPredictions":
        return read_predictions(path, labels, columns=columns, allow=arguments.allow, match=arguments.match)

    folders = [path for _, paths in named for path in paths if path.is_dir()]
    if not folders:
        return {"predictions": {name: [read(path, arguments.labels) for path in paths] for name, paths in named}}
    if len(folders) < sum(len(paths) for _, paths in named):
        raise UserError("give files only, or run folders only: they hold their test sets by name")
    inside = {
        folder: {file.stem: file for file in sorted(folder.glob("predictions/[!.]*.parquet"))} for folder in folders
    }
    common = [test for test in inside[folders[0]] if all(test in files for files in inside.values())]
    if not common:
        held = "; ".join(f"{folder}: {', '.join(files) or 'none'}" for folder, files in inside.items())
        raise UserError(f"the run folders have no test set in common ({held})")
    return {
        test: {name: [read(inside[path][test], None) for path in paths] for name, paths in named} for test in common
    }
