"""`agebench data audit`: duplicates, label conflicts and poor images, in a dataset and between datasets."""

import argparse
import json
from pathlib import Path
from typing import Any

from agebench.cli.common_options import load_cards


def add_action(actions: Any) -> argparse.ArgumentParser:
    """Add the action and its options."""
    parser: argparse.ArgumentParser = actions.add_parser(
        "audit", help="report duplicates, label conflicts, implausible ages and poor images"
    )
    parser.add_argument("name", help="the dataset")
    parser.add_argument(
        "--against",
        metavar="DATASET",
        action="append",
        default=[],
        help="also search duplicates in this dataset (repeatable)",
    )
    parser.add_argument(
        "--faces",
        metavar="N",
        type=int,
        default=0,
        help="detect faces in N of the images (default: none; it is slow)",
    )
    parser.add_argument("--detector", metavar="NAME", default="", help="for --faces (default: yunet, else dlib)")
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
            f"--against {arguments.name}: a dataset is always compared with itself; name a different dataset, or omit --against"
        )
    if arguments.faces < 0:
        raise UserError(f"--faces {arguments.faces}: must be 0 or more images")
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
    if arguments.detector:
        open_detector(arguments.detector)
    sources = [open_dataset(each) for each in (card, *others)]
    findings = run_audit(sources[0], sources[1:], faces=arguments.faces, detector=arguments.detector)
    report = write_audit(out, findings, sources)
    if arguments.json:
        print(json.dumps(audit_summary(findings) | {"report": str(report)}, indent=2))
    else:
        print(f"{counts_text(findings)}\n\nreport: {report}")
    return 0
