"""`agebench data faces`: how a dataset's faces are brought to the template, in how many that fails, and for whom."""

import argparse
import json
from pathlib import Path
from typing import Any

from agebench.cli.options import cards, check_out


def add_action(actions: Any) -> argparse.ArgumentParser:
    """The action and its options."""
    parser: argparse.ArgumentParser = actions.add_parser(
        "faces", help="find and align the faces; failures by group, and pictures before and after"
    )
    parser.add_argument("name", help="the dataset")
    parser.add_argument("--size", type=int, default=112, metavar="PX", help="side of the prepared faces (default: 112)")
    parser.add_argument(
        "--limit", type=int, metavar="N", help="only N of the images, evenly spaced (default: all of them)"
    )
    parser.add_argument(
        "--set",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="as in `agebench run`: faces.mode, faces.detector, faces.coverage (repeatable)",
    )
    parser.add_argument("--out", metavar="DIR", type=Path, help="where the report goes (default: faces/<name>)")
    parser.set_defaults(act=run)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Prepare, write the report, print failures by group."""
    from agebench.errors import UserError
    from agebench.registry.cards import merge, validated
    from agebench.runs.config import FacesConfig, parse_setting

    card = cards(arguments).datasets.get(arguments.name)
    settings: dict[str, Any] = {}
    for text in arguments.set:
        settings = merge(settings, parse_setting(text))
    if set(settings) - {"faces"}:
        raise UserError(f"--set {min(set(settings) - {'faces'})}: here only faces.… can be set; the size is --size")
    config = validated(FacesConfig, settings.get("faces", {}), source="--set faces")
    if not 16 <= arguments.size <= 1024:
        raise UserError(f"--size {arguments.size}: must lie between 16 and 1024 pixels")
    if arguments.limit is not None and arguments.limit < 1:
        raise UserError(f"--limit {arguments.limit}: how many images, 1 or more")
    folder = arguments.out or Path("faces") / card.name
    check_out(folder)
    from agebench.data.cache import build_faces
    from agebench.data.findings import open_source, spread_out
    from agebench.evaluation.failures import failures_to_process
    from agebench.reports.faces_report import summary_table, write_faces

    spec = config.spec(card, arguments.size)
    source = open_source(card)
    samples = spread_out(source.samples, arguments.limit)
    faces = build_faces(source.reader, samples, spec, name=card.name)
    figures = failures_to_process(samples.table, samples.table["sample_id"].isin(faces.refused), samples.groups)
    about = {"dataset": card.name, **spec.describe(), "failure_to_process": figures}
    report = write_faces(folder, about, source.reader, samples, faces)
    print(
        json.dumps(about | {"report": str(report)}, indent=2)
        if arguments.json
        else f"{summary_table(about)}\n\nreport: {report}"
    )
    return 0
