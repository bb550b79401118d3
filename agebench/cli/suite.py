"""`agebench suite`: plan and execute the runs of a benchmark."""

import argparse
import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agebench.cli._numbers import number
from agebench.cli.common_options import (
    add_experiment_options,
    add_json,
    add_registry,
    add_trackers,
    load_cards,
    path_or_url,
    trackers,
)

if TYPE_CHECKING:
    from agebench.config.cards.suite import SuiteCard
    from agebench.suites.local_executor import LocalExecutor
    from agebench.suites.matrix import Job
    from agebench.suites.ray_executor import RayExecutor
    from agebench.suites.slurm_executor import SlurmExecutor
    from agebench.types import RunState

_MANY = 1000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the actions of `agebench suite` and their options.

    Args:
        parser: the command's parser.
    """
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    plan = actions.add_parser("plan", help="list the runs and their states, and estimate the time of the rest")
    work = actions.add_parser("run", help="execute the runs that are not done; failed runs are tried again")
    status = actions.add_parser(
        "status", help="the state of each run: done, stale, incomplete, failed (and why), pending"
    )
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
        add_experiment_options(action, dry_run=action is work)
        add_registry(action)
        add_json(action)
    for action in (plan, work):
        action.add_argument(
            "--budget",
            type=number(0.001),
            metavar="HOURS",
            help="replace the suite's budget: no run is started beyond it",
        )
    work.add_argument(
        "--executor",
        choices=("local", "ray", "slurm"),
        default="local",
        help="this machine, a Ray cluster, or jobs of SLURM (default: local)",
    )
    work.add_argument(
        "--jobs",
        type=int,
        metavar="N",
        help="runs at once (default: 1; Ray: all that fit; SLURM: 100 jobs in the queue)",
    )
    work.add_argument(
        "--cpus", type=int, metavar="N", help="cores of each run (default: those of a host / --jobs; SLURM: 4)"
    )
    work.add_argument(
        "--gpus", type=number(0), default=0, metavar="N", help="GPUs for each run, on Ray or SLURM (default: 0)"
    )
    work.add_argument(
        "--ray-address",
        metavar="ADDRESS",
        help="address of a Ray cluster: host:port, ray://host:port, auto (default: a temporary local cluster)",
    )
    work.add_argument(
        "--slurm",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help="an option of sbatch for --executor slurm, e.g. partition=gpu, account=lab, time=600 (minutes; repeatable)",
    )
    add_trackers(work)
    work.add_argument("--yes", action="store_true", help=f"allow more than {_MANY:,} runs")


def run(arguments: argparse.Namespace) -> int:
    """Execute the action."""
    return int(arguments.act(arguments))


def _jobs(arguments: argparse.Namespace) -> "tuple[SuiteCard, list[Job]]":
    from agebench.config.grid import parse_grid
    from agebench.config.toml_io import parse_setting
    from agebench.runs.remote_dir import RemoteMirror, is_url
    from agebench.suites.matrix import plan_jobs

    catalog = load_cards(arguments)
    card = catalog.suites.get(arguments.name)
    settings = [parse_setting(text) for text in arguments.set]
    if arguments.limit is not None:
        settings.append({"data": {"limit": arguments.limit}})
    grid = parse_grid(arguments.grid)
    if not is_url(arguments.runs):
        return card, plan_jobs(card, catalog, arguments.runs, settings, grid=grid)
    mirror = RemoteMirror(arguments.runs)
    return card, plan_jobs(card, catalog, mirror.folder, settings, grid=grid, runs_url=mirror.remote.url)


def _budget(arguments: argparse.Namespace, card: "SuiteCard") -> float | None:
    """Return the budget in hours."""
    return card.budget_hours if arguments.budget is None else arguments.budget


def _plan(arguments: argparse.Namespace) -> int:
    from agebench.reports.formatting import format_duration
    from agebench.suites.matrix import expected_seconds, spent_seconds

    card, jobs = _jobs(arguments)
    pending = [job for job in jobs if job.state() != "done"]
    seconds, spent, budget = (
        expected_seconds(pending, jobs[0].folder.parent),
        spent_seconds(jobs),
        _budget(arguments, card),
    )
    if arguments.json:
        _print_json(jobs, expected_seconds=seconds, spent_seconds=spent, budget_hours=budget)
        return 0
    _print_jobs(jobs)
    estimate = (
        "their time is not known yet" if seconds is None else f"about {format_duration(seconds)}, one after another"
    )
    print(f"\n{len(jobs) - len(pending):,} of {len(jobs):,} done" + (f"; the rest: {estimate}" if pending else ""))
    if budget is not None:
        over = spent + (seconds or 0) - budget * 3600
        verdict = f"; over it by {format_duration(over)}: --budget HOURS sets another" if pending and over > 0 else ""
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
    from agebench.config.grid import parse_grid
    from agebench.errors import UserError
    from agebench.suites.matrix import count_runs
    from agebench.suites.scheduler import run_jobs

    if arguments.dry_run:
        return _plan(arguments)
    n_runs = count_runs(load_cards(arguments).suites.get(arguments.name)) * len(parse_grid(arguments.grid))
    if n_runs > _MANY and not arguments.yes:
        raise UserError(f"suite '{arguments.name}' has {n_runs:,} runs; add --yes if that is meant")
    card, jobs = _jobs(arguments)
    hours = _budget(arguments, card)
    n_finished = 0

    def on_finish(job: "Job", state: "RunState") -> None:
        nonlocal n_finished
        n_finished += 1
        message = str(state)
        if state == "incomplete":
            message = "stopped, or another process is working on it"
        elif state == "failed":
            message = f"failed: {job.reason()}"
        print(f"[{n_finished}/{len(jobs)}] {job.folder.name}: {message}", file=sys.stderr)

    try:
        with _executor(arguments) as executor:
            states = run_jobs(
                jobs,
                executor,
                registry=arguments.registry,
                trackers=trackers(arguments),
                on_finish=on_finish,
                budget_s=None if hours is None else hours * 3600,
            )
    except KeyboardInterrupt:
        command = shlex.join(["agebench", *arguments.argv])
        print(f"\ninterrupted; the same command continues: {command}", file=sys.stderr)
        return 130
    if arguments.json:
        _print_json(jobs)
    else:
        _print_jobs(jobs)
    n_unstarted = len(jobs) - len(states)
    if n_unstarted:
        print(
            f"agebench: the budget of {hours:g} hours is spent: {n_unstarted:,} runs were not started; --budget HOURS sets another",
            file=sys.stderr,
        )
    return 1 if n_unstarted or "failed" in states.values() else 0


def _executor(arguments: argparse.Namespace) -> "LocalExecutor | RayExecutor | SlurmExecutor":
    from agebench.errors import UserError

    executor = arguments.executor
    if arguments.ray_address and executor != "ray":
        raise UserError("--ray-address is for --executor ray")
    if arguments.slurm and executor != "slurm":
        raise UserError("--slurm is for --executor slurm")
    if arguments.gpus and executor == "local":
        raise UserError("--gpus is for --executor ray and --executor slurm")
    if executor == "ray":
        from agebench.suites.ray_executor import RayExecutor

        return RayExecutor(arguments.ray_address, arguments.jobs, arguments.cpus, arguments.gpus)
    if executor == "slurm":
        from agebench.suites.slurm_executor import SlurmExecutor, parse_options

        options = parse_options(arguments.slurm)
        return SlurmExecutor(arguments.runs, arguments.jobs, arguments.cpus, arguments.gpus, options=options)
    from agebench.suites.local_executor import LocalExecutor

    return LocalExecutor(arguments.jobs, arguments.cpus)


def _print_jobs(jobs: "list[Job]") -> None:
    from tabulate import tabulate

    rows = [
        {
            "run": job.folder.name,
            **({"variant": job.variant} if job.variant else {}),
            "state": job.state(),
            **_mae_columns(job),
            "": job.reason(),
        }
        for job in jobs
    ]
    print(tabulate(rows, headers="keys", missingval="–", disable_numparse=True))


def _mae_columns(job: "Job") -> dict[str, str]:
    """Return test set -> MAE of a run that is done."""
    from agebench.reports.formatting import format_ci
    from agebench.runs.run_dir import RunDir

    tests = RunDir(job.folder).metrics_file().tests if job.state() == "done" else {}
    return {
        name: format_ci(tests[name].metric("mae").to_json()) if name in tests else "–" for name in job.config.data.test
    }


def _print_json(jobs: "list[Job]", **extra: Any) -> None:
    rows = [
        {"run": str(job.folder), "variant": job.variant, "state": job.state(), "reason": job.reason()} for job in jobs
    ]
    print(json.dumps({"runs": rows, **extra}, indent=2))
