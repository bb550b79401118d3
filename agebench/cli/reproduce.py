"""`agebench reproduce`: repeat a run from its record."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from agebench.cli._help import add_renamed
from agebench.cli.common_options import add_json, add_registry, load_cards


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `agebench reproduce`."""
    parser.add_argument("record", type=Path, metavar="RECORD", help="a file of reports/results")
    parser.add_argument("--out", type=Path, metavar="DIR", help="the run's folder (default: runs/again-<id>)")
    parser.add_argument("--device", metavar="NAME", help="device, instead of the one in the record")
    add_renamed(
        parser,
        "--force",
        "--anyway",
        action="store_true",
        help="run even if data, cards or weights differ from those of the record",
    )
    add_registry(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Compare inputs, run, compare metrics; return 1 if a metric differs by more than chance."""
    from agebench.config.run import RunConfig
    from agebench.errors import AgebenchError
    from agebench.leaderboard import reproduce
    from agebench.leaderboard.records import REPRODUCTION_PREFIX, read_record, read_records
    from agebench.leaderboard.verify import check_record
    from agebench.runs.execute import Execution, execute_run, execute_test
    from agebench.runs.run_dir import RunDir

    record = read_record(arguments.record)
    catalog = load_cards(arguments)
    config = reproduce.config_of(record, catalog, device=arguments.device, source=str(arguments.record))
    folder = RunDir(arguments.out or Path("runs") / f"{REPRODUCTION_PREFIX}{record['id']}")
    folder.finished(config)  # refuses a folder with something else before the datasets are read
    differing = list(reproduce.input_differences(record, config, catalog))
    for difference in differing:
        print(f"differs: {difference}", file=sys.stderr)
    if differing and not arguments.force:
        raise AgebenchError(
            f"{arguments.record}: the inputs differ from those of the record, so other metrics are expected; "
            "--force runs it all the same"
        )
    if isinstance(config, RunConfig):
        execute_run(config, catalog, folder.path, Execution(resume=True, quiet=arguments.json))
    else:
        execute_test(config, catalog, folder)
    others = [
        entry for path, entry in read_records(arguments.record.parent).items() if not next(check_record(entry), None)
    ]
    verdicts = reproduce.reproduction_verdicts(record, folder.path, others)
    verdict = reproduce.worst_verdict(verdicts)
    summary = {
        "verdict": verdict,
        "tests": verdicts,
        "differences": differing,
        "circumstances": reproduce.environment_differences(record, folder.manifest()),
        "run": str(folder.path),
    }
    print(json.dumps(summary, indent=2) if arguments.json else _to_text(summary))
    return 1 if verdict in reproduce.FAILURES else 0


def _to_text(summary: dict[str, Any]) -> str:
    from agebench.reports.formatting import format_ci, markdown_table

    rows = [
        [name, format_ci(test["there"]), format_ci(test["mae"]), test["verdict"]]
        for name, test in summary["tests"].items()
    ]
    lines = [markdown_table(["test set", "MAE in the record", "MAE now", "verdict"], rows), ""]
    for name, test in summary["tests"].items():
        if noise := test.get("noise"):
            lines.append(
                f"{name}: two trainings differ by up to {noise['limit']:.2f} years (95 %; standard deviation {noise['std']:.2f}, "
                f"{noise['source']}: {noise['systems']} system(s), {noise['freedom']} degrees of freedom)"
            )
        elif test["verdict"] != "identical":
            lines.append(
                f"{name}: no records for an estimate of the training noise; judged by the record's interval, that of the images"
            )
    if summary["circumstances"]:
        lines.append("other circumstances: " + "; ".join(summary["circumstances"]))
    return "\n".join([*lines, f"verdict: {summary['verdict']} ({summary['run']})"])
