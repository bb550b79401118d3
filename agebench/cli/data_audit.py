"""`agebench data audit`: copies, contradictions and pictures that are no good, in a dataset and between datasets."""

import argparse
import json
from pathlib import Path
from typing import Any

from agebench.cli.common_options import load_cards


def add_action(actions: Any) -> argparse.ArgumentParser:
    """The action and its options."""
    parser: argparse.ArgumentParser = actions.add_parser(
        "audit", help="copies, labels that contradict one another, doubtful ages, poor pictures; a report with pictures"
    )
    parser.add_argument("name", help="the dataset")
    parser.add_argument(
        "--against",
        metavar="DATASET",
        action="append",
        default=[],
        help="also look for copies in this one (repeatable)",
    )
    parser.add_argument(
        "--faces",
        metavar="N",
        type=int,
        default=0,
        help="look for faces in N of the images (default: in none; it is slow)",
    )
    parser.add_argument("--detector", metavar="NAME", default="dlib", help="for --faces (default: dlib)")
    parser.add_argument("--out", metavar="DIR", type=Path, help="where the report goes (default: audits/<name>)")
    parser.set_defaults(act=run)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Audit, write the report, print the counts."""
    from agebench.errors import UserError

    found = load_cards(arguments).datasets
    card = found.get(arguments.name)
    others = [found.get(name) for name in dict.fromkeys(arguments.against)]
    if arguments.name in arguments.against:
        raise UserError(
            f"--against {arguments.name}: a dataset is held against itself anyway; name another one, or leave it out"
        )
    if arguments.faces < 0:
        raise UserError(f"--faces {arguments.faces}: how many images to look at, 0 or more")
    from agebench.data.audit.run import run_audit
    from agebench.data.dataset import open_dataset
    from agebench.data.faces.detectors.base import open_detector
    from agebench.data.storage.locate import locate
    from agebench.reports.audit import audit_summary, counts_text, write_audit
    from agebench.utils.io import check_folder

    out = arguments.out or Path("audits") / arguments.name
    check_folder(out)
    for each in (card, *others):  # before hours of work on the first
        locate(each)
    open_detector(arguments.detector)
    sources = [open_dataset(each) for each in (card, *others)]
    findings = run_audit(sources[0], sources[1:], faces=arguments.faces, detector=arguments.detector)
    report = write_audit(out, findings, sources)
    if arguments.json:
        print(json.dumps(audit_summary(findings) | {"report": str(report)}, indent=2))
    else:
        print(f"{counts_text(findings)}\n\nreport: {report}")
    return 0
