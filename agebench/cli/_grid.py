"""Execute a run or test once for every combination of --grid, and print a summary table."""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from agebench.config.grid import GridPoint
    from agebench.metrics.schema import MetricsFile
    from agebench.runs.execute import FinishedRun

ConfigT = TypeVar("ConfigT")


@dataclass(frozen=True)
class PlannedRun(Generic[ConfigT]):
    """One combination of the grid: its values, its settings, and its folder or URL."""

    point: "GridPoint"
    config: ConfigT
    out: Path | str


@dataclass(frozen=True)
class _GridRow:
    """The outcome of one combination; `metrics` is None where it failed."""

    run: str
    values: dict[str, object]
    metrics: "MetricsFile | None" = None
    error: str = ""


def plan_grid(
    arguments: argparse.Namespace, resolve: Callable[["GridPoint"], ConfigT], default_name: Callable[[ConfigT], str]
) -> list[PlannedRun[ConfigT]]:
    """Resolve every combination of --grid; without --grid there is one.

    Args:
        arguments: those of the command: `grid` and `out`.
        resolve: returns the complete settings of a combination.
        default_name: returns the default name of a run's folder.
    """
    from agebench.config.grid import parse_grid
    from agebench.config.run import config_hash

    plans: dict[str, PlannedRun[ConfigT]] = {}
    for point in parse_grid(arguments.grid):
        config = resolve(point)
        name = default_name(config)
        out: Path | str = arguments.out or Path("runs") / name
        if arguments.grid:
            name = f"{name}-{config_hash(config)}"  # type: ignore[arg-type]
            parent = arguments.out or Path("runs")
            out = parent / name if isinstance(parent, Path) else f"{parent.rstrip('/')}/{name}"
        plans.setdefault(str(out), PlannedRun(point, config, out))
    return list(plans.values())


def print_dry_run(arguments: argparse.Namespace, plans: Sequence[PlannedRun[Any]], catalog: Any) -> int:
    """Print what the runs would do, and start none of them.

    Args:
        arguments: those of the command.
        plans: the runs.
        catalog: the cards of the datasets.
    """
    from agebench.runs.dry_run import plan_run

    dry_runs = [plan_run(plan.config, catalog, plan.out) for plan in plans]
    if arguments.json:
        print(json.dumps({"runs": [dry_run.to_dict() for dry_run in dry_runs]}, indent=2))
    else:
        print("\n".join(dry_run.to_text() for dry_run in dry_runs), end="")
        print("\nnothing was run (--dry-run)", file=sys.stderr)
    return 0


def run_grid(
    arguments: argparse.Namespace,
    plans: Sequence[PlannedRun[ConfigT]],
    execute: Callable[[ConfigT, Path | str], "FinishedRun"],
) -> int:
    """Execute the runs one after another; a failed run stops none of the others. Return the exit code.

    Args:
        arguments: those of the command.
        plans: the runs.
        execute: executes one run.
    """
    from agebench.errors import AgebenchError

    rows: list[_GridRow] = []
    for number, plan in enumerate(plans, 1):
        print(f"[{number}/{len(plans)}] {plan.point.label}: {plan.out}", file=sys.stderr)
        row = _GridRow(str(plan.out), dict(plan.point.values))
        try:
            finished = execute(plan.config, plan.out)
        except AgebenchError as error:
            print(f"agebench: {error}", file=sys.stderr)
            rows.append(replace(row, error=str(error)))
            continue
        rows.append(replace(row, metrics=finished.metrics))
    content = [
        {
            "run": row.run,
            "values": row.values,
            "metrics": row.metrics and row.metrics.to_json(),
            "error": row.error,
        }
        for row in rows
    ]
    print(json.dumps({"runs": content}, indent=2) if arguments.json else _summary_table(rows))
    return 1 if any(row.metrics is None for row in rows) else 0


def _summary_table(rows: "Sequence[_GridRow]") -> str:
    from tabulate import tabulate

    from agebench.reports.formatting import format_ci

    tests = dict.fromkeys(name for row in rows if row.metrics for name in row.metrics.tests)
    table = [
        {
            **row.values,
            **{
                f"MAE on {name}": format_ci(row.metrics.tests[name].metric("mae")) if row.metrics else "failed"
                for name in tests
            },
            "run": row.run,
        }
        for row in rows
    ]
    return str(tabulate(table, headers="keys", missingval="–", disable_numparse=True))
