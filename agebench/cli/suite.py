"""`agebench suite`: the many runs of a benchmark."""

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agebench.cli.common_options import add_json, add_registry, load_cards, path_or_url

if TYPE_CHECKING:
    from agebench.config.cards.base import SuiteCard
    from agebench.suites.local_executor import LocalExecutor
    from agebench.suites.matrix import Job, State
    from agebench.suites.ray_executor import RayExecutor

_MANY = 1000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The actions of `agebench suite`, and their options."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    plan = actions.add_parser("plan", help="which runs there would be, what is done, how long the rest takes")
    work = actions.add_parser("run", help="do what is not done; what failed is tried again")
    status = actions.add_parser("status", help="what is done, changed, begun, failed (and why)")
    for action, act in ((plan, _plan), (work, _run), (status, _status)):
        action.set_defaults(act=act)
        action.add_argument("name", help="the suite, see `agebench list suites`")
        action.add_argument(
            "--runs",
            metavar="DIR",
            type=path_or_url,
            default=Path("runs"),
            help="the folder of all runs, or a URL (default: runs)",
        )
        action.add_argument(
            "--set", metavar="KEY=VALUE", action="append", default=[], help="any setting, for all runs (repeatable)"
        )
        add_registry(action)
        add_json(action)
    for action in (plan, work):
        action.add_argument(
            "--budget", type=float, metavar="HOURS", help="another budget than the suite's: no run is begun beyond it"
        )
    work.add_argument(
        "--executor", choices=("local", "ray"), default="local", help="processes of this machine, or a Ray cluster"
    )
    work.add_argument(
        "--jobs", type=int, metavar="N", help="runs at once (default: 1; on Ray: as many as there is room for)"
    )
    work.add_argument("--cpus", type=int, metavar="N", help="cores for each run (default: those of a host / --jobs)")
    work.add_argument("--gpus", type=float, default=0, metavar="N", help="GPUs for each run, on Ray (default: 0)")
    work.add_argument(
        "--ray-address",
        metavar="ADDRESS",
        help="of a Ray cluster: host:port, ray://host:port, auto (default: none, a local one)",
    )
    work.add_argument("--yes", action="store_true", help=f"also do more than {_MANY:,} runs")


def run(arguments: argparse.Namespace) -> int:
    """Do the action."""
    return int(arguments.act(arguments))


def _jobs(arguments: argparse.Namespace) -> "tuple[SuiteCard, list[Job]]":
    from agebench.runs.config import parse_setting
    from agebench.runs.remote_dir import RemoteMirror, is_url
    from agebench.suites.matrix import plan_jobs

    found = load_cards(arguments)
    card = found.suites.get(arguments.name)
    settings = [parse_setting(text) for text in arguments.set]
    if not is_url(arguments.runs):
        return card, plan_jobs(card, found, arguments.runs, settings)
    mirror = RemoteMirror(arguments.runs)
    return card, plan_jobs(card, found, mirror.folder, settings, kept=mirror.remote.url)


def _budget(arguments: argparse.Namespace, card: "SuiteCard") -> float | None:
    """Hours."""
    from agebench.errors import UserError

    if arguments.budget is not None and not arguments.budget > 0:
        raise UserError(f"--budget {arguments.budget:g}: give a number of hours above 0")
    return card.budget_hours if arguments.budget is None else arguments.budget


def _plan(arguments: argparse.Namespace) -> int:
    from agebench.reports.formatting import format_duration
    from agebench.suites.matrix import expected_seconds, spent_seconds

    card, jobs = _jobs(arguments)
    rest = [job for job in jobs if job.state() != "done"]
    seconds, spent, budget = (
        expected_seconds(rest, jobs[0].folder.parent),
        spent_seconds(jobs),
        _budget(arguments, card),
    )
    if arguments.json:
        _print_json(jobs, expected_seconds=seconds, spent_seconds=spent, budget_hours=budget)
        return 0
    _print_jobs(jobs)
    known = "how long, is not known yet" if seconds is None else f"about {format_duration(seconds)}, one after another"
    print(f"\n{len(jobs) - len(rest):,} of {len(jobs):,} done" + (f"; the rest: {known}" if rest else ""))
    if budget is not None:
        over = spent + (seconds or 0) - budget * 3600
        verdict = f"; over it by {format_duration(over)}: --budget HOURS sets another" if rest and over > 0 else ""
        print(f"budget: {format_duration(budget * 3600)}, of which {format_duration(spent)} are spent{verdict}")
    return 0


def _status(arguments: argparse.Namespace) -> int:
    _, jobs = _jobs(arguments)
    if arguments.json:
        _print_json(jobs)
    else:
        _print_jobs(jobs)
    return 0


def _run(arguments: argparse.Namespace) -> int:
    from agebench.errors import UserError
    from agebench.suites.matrix import count_by_state
    from agebench.suites.scheduler import run_jobs

    asked = count_by_state(load_cards(arguments).suites.get(arguments.name))
    if asked > _MANY and not arguments.yes:
        raise UserError(f"suite '{arguments.name}' has {asked:,} runs; add --yes if that is meant")
    card, jobs = _jobs(arguments)
    hours = _budget(arguments, card)
    ended = 0

    def tell(job: "Job", state: "State") -> None:
        nonlocal ended
        ended += 1
        said = {"begun": "stopped, or another process is working on it", "failed": f"failed: {job.reason()}"}.get(
            state, state
        )
        print(f"[{ended}/{len(jobs)}] {job.folder.name}: {said}", file=sys.stderr)

    try:
        with _executor(arguments) as executor:
            found = run_jobs(
                jobs,
                executor,
                registry=arguments.registry,
                tell=tell,
                budget_s=None if hours is None else hours * 3600,
            )
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
    left = len(jobs) - len(found)
    if left:
        print(
            f"agebench: the budget of {hours:g} hours is spent: {left:,} runs were not begun; --budget HOURS sets another",
            file=sys.stderr,
        )
    return 1 if left or "failed" in found.values() else 0


def _executor(arguments: argparse.Namespace) -> "LocalExecutor | RayExecutor":
    from agebench.errors import UserError

    if arguments.executor == "ray":
        from agebench.suites.ray_executor import RayExecutor

        return RayExecutor(arguments.ray_address, arguments.jobs, arguments.cpus, arguments.gpus)
    if arguments.ray_address or arguments.gpus:
        raise UserError("--ray-address and --gpus are for --executor ray")
    from agebench.suites.local_executor import LocalExecutor

    return LocalExecutor(arguments.jobs, arguments.cpus)


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
    from agebench.reports.formatting import format_ci
    from agebench.runs.run_dir import RunDir

    tests = RunDir(job.folder).metrics().get("tests", {}) if job.state() == "done" else {}
    return {name: format_ci(tests[name]["overall"]["mae"]) if name in tests else "–" for name in job.config.data.test}


def _print_json(jobs: "list[Job]", **more: Any) -> None:
    rows = [
        {"run": str(job.folder), "variant": job.variant, "state": job.state(), "reason": job.reason()} for job in jobs
    ]
    print(json.dumps({"runs": rows, **more}, indent=2))
