"""`agebench test`: test a model that was not trained here, with the same faces, metrics and report."""

import argparse
import json
from pathlib import Path

from agebench.cli._grid import plan_grid, print_dry_run, run_grid
from agebench.cli.common_options import (
    add_exclude,
    add_experiment_options,
    add_json,
    add_registry,
    load_cards,
    local_folder,
)
from agebench.cli.score import add_gate_options, add_require


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
    parser.add_argument(
        "--out", metavar="DIR", type=local_folder, help="the run's folder (default: runs/<model>-on-<tests>)"
    )
    add_gate_options(parser)
    add_require(parser)
    add_experiment_options(parser)
    add_registry(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Resolve the settings, test the model, and print its table."""
    from agebench.config.options import EvalOptions
    from agebench.config.toml_io import parse_setting
    from agebench.errors import UserError
    from agebench.metrics.requirements import parse_requirement, worst_verdict
    from agebench.reports.markdown import terminal_text
    from agebench.reports.run import summary
    from agebench.reports.sections.requirements import requirements_text
    from agebench.runs.execute import execute_test
    from agebench.runs.requirements import check_run
    from agebench.runs.resolve import resolve_evaluation
    from agebench.runs.run_dir import RunDir

    requirements = [parse_requirement(text) for text in arguments.require]
    if requirements and arguments.grid:
        raise UserError("--require decides on one test: leave out --grid, or test each combination by itself")
    options = EvalOptions(
        model=arguments.model,
        test=arguments.test,
        exclude=arguments.exclude,
        limit=arguments.limit,
        pretrained=arguments.pretrained,
        seed=arguments.seed,
        device=arguments.device,
        gates=arguments.gate,
        gate_ages=arguments.gate_ages,
        config=arguments.config,
        settings=[parse_setting(text) for text in arguments.set],
    )
    catalog = load_cards(arguments)
    plans = plan_grid(
        arguments, lambda point: resolve_evaluation(catalog, options.layers(point)), lambda config: config.name()
    )
    if arguments.dry_run:
        return print_dry_run(arguments, plans, catalog)
    if arguments.grid:
        return run_grid(arguments, plans, lambda config, out: execute_test(config, catalog, RunDir(Path(out))))
    (plan,) = plans
    finished = execute_test(plan.config, catalog, RunDir(Path(plan.out)))
    metrics = check_run(finished.path, finished.metrics, requirements) if requirements else finished.metrics
    if arguments.json:
        print(json.dumps(metrics.to_json(), indent=2))
    else:
        report = f"report: {finished.report}"
        text = terminal_text("\n\n".join([requirements_text(metrics), summary(finished.path)]))
        print("\n\n".join([plan.config.model.title, text, report]))
    return worst_verdict(metrics).exit_code
