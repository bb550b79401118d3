"""`agebench suite`: the many runs of a benchmark."""

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agebench.cli.options import add_json, add_registry, cards

if TYPE_CHECKING:
    from agebench.suites.plan import Job, State

_MANY = 1000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The actions of `agebench suite`, and their options."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    plan = actions.add_parser("plan", help="which runs there would be, what is done, how long the rest takes")
    work = actions.add_parser("run", help="do what is not done; what failed is tried again")
    status = actions.add_parser("status", help="what is done, begun, failed (and why)")
    for action, act in ((plan, _plan), (work, _run), (status, _status)):
        action.set_defaults(act=act)
        action.add_argument("name", help="the suite, see `agebench list suites`")
        action.add_argument(
            "--runs", metavar="DIR", type=Path, default=Path("runs"), help="the folder of all runs (default: runs)"
        )
        action.add_argument(
            "--set", metavar="KEY=VALUE", action="append", default=[], help="any setting, for all runs (repeatable)"
        )
        add_registry(action)
        add_json(action)
    work.add_argument("--jobs", type=int, default=1, metavar="N", help="runs at once (default: 1)")
    work.add_argument("--yes", action="store_true", help=f"also do more than {_MANY:,} runs")


def run(arguments: argparse.Namespace) -> int:
    """Do the action."""
    return int(arguments.act(arguments))


def _jobs(arguments: argparse.Namespace) -> "list[Job]":
    from agebench.runs.config import parse_setting
    from agebench.suites.plan import plan

    found = cards(arguments)
    card = found.suites.get(arguments.name)
    return plan(card, found, arguments.runs, [parse_setting(text) for text in arguments.set])


def _plan(arguments: argparse.Namespace) -> int:
    from agebench.reports.tables import duration
    from agebench.suites.plan import expected_seconds

    jobs = _jobs(arguments)
    rest = [job for job in jobs if job.state() != "done"]
    seconds = expected_seconds(rest, arguments.runs)
    if arguments.json:
        _print_json(jobs, expected_seconds=seconds)
        return 0
    _print_jobs(jobs)
    known = "how long, is not known yet" if seconds is None else f"about {duration(seconds)}, one after another"
    print(f"\n{len(jobs) - len(rest):,} of {len(jobs):,} done" + (f"; the rest: {known}" if rest else ""))
    return 0


def _status(arguments: argparse.Namespace) -> int:
    jobs = _jobs(arguments)
    if arguments.json:
        _print_json(jobs)
    else:
        _print_jobs(jobs)
    return 0


def _run(arguments: argparse.Namespace) -> int:
    from agebench.errors import UserError
    from agebench.suites.local import run_jobs

    jobs = _jobs(arguments)
    if len(jobs) > _MANY and not arguments.yes:
        raise UserError(f"suite '{arguments.name}' has {len(jobs):,} runs; add --yes if that is meant")
    ended = 0

    def tell(job: "Job", state: "State") -> None:
        nonlocal ended
        ended += 1
        said = {"begun": "stopped, or another process is working on it", "failed": f"failed: {job.reason()}"}.get(
            state, state
        )
        print(f"[{ended}/{len(jobs)}] {job.folder.name}: {said}", file=sys.stderr)

    try:
        found = run_jobs(jobs, parallel=arguments.jobs, registry=arguments.registry, tell=tell)
    except KeyboardInterrupt:
        print(
            f"\ninterrupted; the same command goes on: agebench suite run {arguments.name} --runs {arguments.runs}",
            file=sys.stderr,
        )
        return 130
    if arguments.json:
        _print_json(jobs)
    else:
        _print_jobs(jobs)
    return 1 if "failed" in found.values() else 0


def _print_jobs(jobs: "list[Job]") -> None:
    from tabulate import tabulate

    rows = [
        {
            "run": job.folder.name,
            **({"variant": job.variant} if job.variant else {}),
            "state": job.state(),
            **_figures(job),
            "": job.reason(),
        }
        for job in jobs
    ]
    print(tabulate(rows, headers="keys", missingval="–", disable_numparse=True))


def _figures(job: "Job") -> dict[str, str]:
    """Test set -> MAE, of a run that is done."""
    from agebench.reports.tables import with_interval
    from agebench.runs.folder import RunFolder

    tests = RunFolder(job.folder).metrics().get("tests", {}) if job.state() == "done" else {}
    return {
        name: with_interval(tests[name]["overall"]["mae"]) if name in tests else "–" for name in job.config.data.test
    }


def _print_json(jobs: "list[Job]", **more: Any) -> None:
    rows = [
        {"run": str(job.folder), "variant": job.variant, "state": job.state(), "reason": job.reason()} for job in jobs
    ]
    print(json.dumps({"runs": rows, **more}, indent=2))
