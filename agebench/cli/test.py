"""`agebench test`: test a model that was not trained here, with the same faces, metrics and report."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agebench.cli._grid import FinishedRun, plan_grid, print_dry_run, run_grid
from agebench.cli._messages import print_already_finished
from agebench.cli.common_options import add_exclude, add_experiment_options, add_json, add_registry, load_cards
from agebench.cli.score import add_gate_options, add_require, gate_settings

if TYPE_CHECKING:
    from agebench.config.evaluate import ExternalConfig, PublishedConfig
    from agebench.registry.catalog import Catalog


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `agebench test`.

    Args:
        parser: the command's parser.
    """
    parser.add_argument("--model", metavar="NAME", help="a model card, see `agebench list models`")
    parser.add_argument(
        "--pretrained", metavar="FILE", help="the checkpoint that the authors of a built-in architecture published"
    )
    parser.add_argument(
        "--test", metavar="DATASET", action="append", help="a dataset; all of its images are tested (repeatable)"
    )
    add_exclude(parser)
    parser.add_argument("--seed", type=int, metavar="N", help="of the bootstrap (default: 0)")
    parser.add_argument("--device", metavar="NAME", help="auto, cpu, cuda, … (default: auto)")
    parser.add_argument(
        "--set",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="any setting, e.g. faces.coverage=1.2 (repeatable)",
    )
    parser.add_argument(
        "--config", metavar="FILE", type=Path, help="settings from a file, e.g. a run folder's config.toml"
    )
    parser.add_argument("--out", metavar="DIR", type=Path, help="the run's folder (default: runs/<model>-on-<tests>)")
    add_gate_options(parser)
    add_require(parser)
    add_experiment_options(parser)
    add_registry(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Resolve the settings, test the model, and print its table."""
    from agebench.config.toml_io import parse_setting, read_settings
    from agebench.errors import UserError
    from agebench.metrics.requirements import parse_requirement, worst_verdict
    from agebench.reports.run import read_metrics
    from agebench.reports.sections.requirements import requirements_text
    from agebench.runs.requirements import check_run
    from agebench.runs.resolve import resolve_evaluation

    requirements = [parse_requirement(text) for text in arguments.require]
    if requirements and arguments.grid:
        raise UserError("--require decides on one test: leave out --grid, or test each combination by itself")
    data = {key: value for key in ("test", "exclude", "limit") if (value := getattr(arguments, key))}
    flags: dict[str, Any] = {
        "seed": arguments.seed,
        "device": arguments.device,
        "data": data or None,
        "model": {"name": arguments.model} if arguments.model else None,
        "pretrained": arguments.pretrained,
        "evaluate": gate_settings(arguments) or None,
    }
    layers = [
        read_settings(arguments.config) if arguments.config else {},
        {key: value for key, value in flags.items() if value is not None},
        *(parse_setting(text) for text in arguments.set),
    ]
    catalog = load_cards(arguments)
    plans = plan_grid(
        arguments, lambda point: resolve_evaluation(catalog, [*layers, point.settings]), lambda config: config.name()
    )
    if arguments.dry_run:
        return print_dry_run(arguments, plans, catalog)
    if arguments.grid:
        return run_grid(arguments, plans, lambda config, out: _execute(config, catalog, Path(out)))
    (plan,) = plans
    finished = _execute(plan.config, catalog, Path(plan.out))
    folder = finished.report.parent
    metrics = check_run(folder, read_metrics(folder), requirements)
    if arguments.json:
        print(json.dumps((metrics if requirements else finished.metrics).to_json(), indent=2))
    else:
        from agebench.reports.run import summary

        parts = [plan.config.model.title, requirements_text(metrics), summary(folder), f"report: {finished.report}"]
        print("\n\n".join(filter(None, parts)))
    return worst_verdict(metrics).exit_code


def _execute(config: "ExternalConfig | PublishedConfig", catalog: "Catalog", out: Path) -> FinishedRun:
    """Test the model unless the test is finished."""
    from agebench.config.evaluate import PublishedConfig
    from agebench.runs.gates import renew_gates
    from agebench.runs.run_dir import RunDir

    folder = RunDir(out)
    renew_gates(folder, config)
    if folder.finished(config):
        print_already_finished(folder, config, catalog, folder.path)
    else:
        with folder.locked():
            # Checked again: another process may have finished the test while this one was starting.
            if folder.finished(config):
                pass
            elif isinstance(config, PublishedConfig):
                from agebench.runs.published import run_published  # imports torch

                run_published(config, catalog, folder)
            else:
                from agebench.runs.external import run_external

                run_external(config, catalog, folder)
    return FinishedRun(folder.metrics_file(), folder.path / "report.md")
