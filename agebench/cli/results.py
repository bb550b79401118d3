"""`agebench results`: records of runs, to be kept and shown."""

import argparse
import json
from pathlib import Path

from agebench.cli.options import add_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The actions of `agebench results`, and their options."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    add = actions.add_parser("add", help="make the records of finished runs")
    add.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="a run's folder")
    add.set_defaults(act=_add)
    check = actions.add_parser("check", help="whether every record holds together; exit code 1 if not")
    check.add_argument(
        "--runs",
        dest="folders",
        type=Path,
        metavar="DIR",
        help="the folder of all runs: figures are computed again from the predictions that are there",
    )
    check.set_defaults(act=_check)
    for action in (add, check):
        action.add_argument(
            "--results", type=Path, metavar="DIR", default=Path("reports/results"), help="(default: reports/results)"
        )
    add_json(check)


def run(arguments: argparse.Namespace) -> int:
    """Do the action."""
    return int(arguments.act(arguments))


def _add(arguments: argparse.Namespace) -> int:
    from agebench.reports.results import write_record

    for folder in arguments.runs:
        print(write_record(folder, arguments.results))
    return 0


def _check(arguments: argparse.Namespace) -> int:
    from agebench.reports.results import check_record, read_records, runs_by_config

    records = read_records(arguments.results)
    there = runs_by_config(arguments.folders) if arguments.folders else {}
    problems = {
        str(path): list(check_record(record, there.get(record.get("config_sha256", ""))))
        for path, record in records.items()
    }
    if arguments.json:
        print(json.dumps(problems, indent=2))
    else:
        for name, found in problems.items():
            for problem in found:
                print(f"{name}: {problem}")
        wrong = sum(map(bool, problems.values()))
        recomputed = sum(record.get("config_sha256") in there for record in records.values())
        print(f"{len(records)} records, {wrong} wrong; figures of {recomputed} computed again from their predictions")
    return 1 if any(problems.values()) else 0
