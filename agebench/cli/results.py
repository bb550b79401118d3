"""`agebench results`: make and verify records of runs."""

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from agebench.cli.common_options import add_json, add_registry, load_cards

if TYPE_CHECKING:
    from pydantic import JsonValue

    from agebench.config.cards.dataset import DatasetCard
    from agebench.leaderboard.published_estimates import LocalDatasets
    from agebench.leaderboard.ranking_check import RankingCheck
    from agebench.registry.catalog import Catalog


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the actions of `agebench results` and their options."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    add = actions.add_parser("add", help="make records of finished runs")
    add.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="a run's folder")
    add.set_defaults(act=_add)
    check = actions.add_parser("check", help="verify all records and their rankings; exit code 1 if one is invalid")
    check.add_argument(
        "--runs",
        dest="folders",
        type=Path,
        metavar="DIR",
        help="folder of all runs: metrics are recomputed from their predictions",
    )
    check.add_argument(
        "--quick", action="store_true", help="check only hashes and consistency, without recomputing metrics"
    )
    check.set_defaults(act=_check)
    submit = actions.add_parser("submit", help="write the files of a pull request: record, estimates and cards")
    submit.add_argument("run_folder", type=Path, metavar="RUN", help="a run's folder")
    submit.add_argument("--out", type=Path, metavar="DIR", required=True, help="folder to write, missing or empty")
    submit.set_defaults(act=_submit)
    add_registry(submit)
    add_json(submit)
    row = actions.add_parser("row", help="print the leaderboard's rows of some records as Markdown")
    row.add_argument("records", nargs="+", type=Path, metavar="RECORD", help="a file of reports/results")
    row.set_defaults(act=_row)
    add_json(row)
    for action in (add, check):
        action.add_argument(
            "--results", type=Path, metavar="DIR", default=Path("reports/results"), help="(default: reports/results)"
        )
        add_registry(action)
        add_json(action)


def run(arguments: argparse.Namespace) -> int:
    """Execute the action."""
    return int(arguments.act(arguments))


def _add(arguments: argparse.Namespace) -> int:
    from agebench.leaderboard.records import write_record
    from agebench.leaderboard.reproduce import initial_weight_digests
    from agebench.utils.io import check_folder

    check_folder(arguments.results, "--results")
    catalog = load_cards(arguments)
    written = {}
    for folder in arguments.runs:
        _require_true(folder)
        known = _cards_of(folder, catalog)
        written[str(folder)] = str(write_record(folder, arguments.results, known, initial_weight_digests(folder)))
        if not arguments.json:
            print(written[str(folder)])
    if arguments.json:
        print(json.dumps(written, indent=2))
    else:
        print("next: `agebench results check` checks every record, `agebench leaderboard` shows them", file=sys.stderr)
    return 0


def _submit(arguments: argparse.Namespace) -> int:
    from agebench.leaderboard.reproduce import initial_weight_digests
    from agebench.leaderboard.submission import write_submission
    from agebench.utils.io import check_folder

    check_folder(arguments.out)
    folder, catalog = arguments.run_folder, load_cards(arguments)
    _require_true(folder)
    known = _cards_of(folder, catalog)
    names = write_submission(folder, arguments.out, catalog, known, initial_weight_digests(folder))
    if arguments.json:
        print(json.dumps(names, indent=2))
    else:
        print("\n".join(str(arguments.out / name) for name in names))
        print("next: copy reports/ and registry/ into a branch of your fork; docs/how-to/submit.md", file=sys.stderr)
    return 0


def _row(arguments: argparse.Namespace) -> int:
    from agebench.leaderboard.submission import record_rows

    rows = record_rows(arguments.records)
    content = {"records": [str(path) for path in arguments.records], "markdown": rows}
    print(json.dumps(content, indent=2) if arguments.json else rows)
    return 0


def _require_true(folder: Path) -> None:
    """Reject a run whose metrics.json does not follow from its predictions, before a record is made."""
    from agebench.errors import UserError
    from agebench.leaderboard.records import make_record
    from agebench.leaderboard.verify import check_record

    problems = list(check_record(make_record(folder), folder))
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise UserError(
            f"{folder}: metrics.json does not follow from the files beside it: {problems[0]}{more}. A record is made only of "
            "figures as the run computed them. Run it again into another folder and add that one: `agebench "
            f"{_command_of(folder)} --config {folder / 'config.toml'} --out DIR`"
        )


def _command_of(folder: Path) -> str:
    from agebench.runs.run_dir import RunDir

    return "test" if RunDir(folder).metrics_file().train is None else "run"


def _cards_of(folder: Path, catalog: "Catalog") -> "dict[str, DatasetCard]":
    """Return the cards of a run's datasets; print a message for each unknown one."""
    from agebench.runs.run_dir import RunDir

    metrics = RunDir(folder).metrics_file()
    names = list(dict.fromkeys([*filter(None, [metrics.train]), *metrics.tests]))
    for name in names:
        if name not in catalog.datasets.names():
            print(f"{folder}: '{name}' has no card here, so the record does not name its source", file=sys.stderr)
    return {name: catalog.datasets.get(name) for name in names if name in catalog.datasets.names()}


def _check(arguments: argparse.Namespace) -> int:
    from agebench.leaderboard.published_estimates import LocalDatasets
    from agebench.leaderboard.records import read_records, runs_by_config
    from agebench.leaderboard.schema import parse_record
    from agebench.leaderboard.verify import (
        check_estimates,
        check_estimates_files,
        check_predictions,
        check_record,
        find_runs,
    )

    records = read_records(arguments.results)
    runs = find_runs(records, runs_by_config(arguments.folders)) if arguments.folders and not arguments.quick else {}
    present = LocalDatasets(load_cards(arguments))
    problems: dict[str, list[str]] = {}
    again: set[Path] = set()
    in_part: set[Path] = set()
    for path, record in records.items():
        found = problems[str(path)] = list(check_record(record))
        recomputed = set()
        for name, problem in check_predictions(record, runs[path]) if path in runs else ():
            if problem is None:
                recomputed.add(name)
            else:
                found.append(f"{name}: {problem}")
        if not found and path.stem != record["id"]:
            found.append(f"its id is {record['id']}, which its file should be called")
        if found:
            continue
        metrics = parse_record(record).metrics
        found += present.unknown([*filter(None, [metrics.train]), *metrics.tests])
        found += check_estimates_files(record, path, present)
        if not found and not arguments.quick and not recomputed.issuperset(metrics.tests):
            for name, problem in check_estimates(record, path, present):
                if problem is None:
                    recomputed.add(name)
                else:
                    found.append(f"{name}: {problem}")
        if not found and recomputed:
            (again if recomputed.issuperset(metrics.tests) else in_part).add(path)
    rankings = None if any(problems.values()) else _check_rankings(arguments, records, present)
    if rankings is not None and rankings.problems:
        problems[str(rankings.path)] = list(rankings.problems)
    if arguments.json:
        print(json.dumps(problems, indent=2))
    else:
        for file, sentences in problems.items():
            for problem in sentences:
                print(f"{file}: {problem}")
        wrong = sum(map(bool, problems.values())) - bool(rankings and rankings.problems)
        reason = "predictions or estimates are missing, or the data differ"
        print(f"{len(records)} records, {wrong} wrong; figures of {len(again)} computed again from their predictions")
        left = sum(path not in again | in_part and not problems[str(path)] for path in records)
        if in_part:
            print(f"{len(in_part)} computed again on some of their test sets only: {reason}")
        if left and not arguments.quick:
            print(f"{left} not computed again: {reason}")
        if rankings is not None:
            print(f"{rankings.path}: {rankings.computed} of {rankings.entries} entries computed again")
    return 1 if any(problems.values()) else 0


def _check_rankings(
    arguments: argparse.Namespace, records: "Mapping[Path, Mapping[str, JsonValue]]", present: "LocalDatasets"
) -> "RankingCheck | None":
    """Verify the rankings that are stored beside the records; None without any."""
    from agebench.leaderboard.ranking_check import check_rankings
    from agebench.leaderboard.schema import parse_record
    from agebench.leaderboard.systems import group_into_systems

    rows = group_into_systems(parse_record(record, path) for path, record in records.items())
    return check_rankings(arguments.results, rows, None if arguments.quick else present)
