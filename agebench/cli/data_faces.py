"""`agebench data align`: align the faces of a dataset, and report failures by group."""

import argparse
import json
from pathlib import Path
from typing import Any

from agebench.cli.common_options import add_cluster_options, load_cards, open_cluster


def add_action(actions: Any) -> argparse.ArgumentParser:
    """Add the action and its options."""
    parser: argparse.ArgumentParser = actions.add_parser(
        "align", aliases=["faces"], help="align the faces; report failures by group, and images before and after"
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
    add_cluster_options(parser, "groups of images")
    parser.set_defaults(act=run)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Align the faces, write the report, print failures by group."""
    from agebench.config.run import FacesConfig
    from agebench.config.toml_io import deep_merge, parse_setting, validate_model
    from agebench.errors import UserError

    card = load_cards(arguments).datasets.get(arguments.name)
    settings: dict[str, Any] = {}
    for text in arguments.set:
        settings = deep_merge(settings, parse_setting(text))
    if set(settings) - {"faces"}:
        raise UserError(f"--set {min(set(settings) - {'faces'})}: only faces.… can be set here; the size is --size")
    config = validate_model(FacesConfig, settings.get("faces", {}), source="--set faces")
    if not 16 <= arguments.size <= 1024:
        raise UserError(f"--size {arguments.size}: must lie between 16 and 1024 pixels")
    if arguments.limit is not None and arguments.limit < 1:
        raise UserError(f"--limit {arguments.limit}: must be 1 or more images")
    from agebench.data.dataset import open_dataset
    from agebench.data.faces.cache import load_or_build_face_cache
    from agebench.data.samples import evenly_spaced
    from agebench.metrics.failure_to_process import failures_to_process
    from agebench.reports.alignment import summary_text, write_alignment_report
    from agebench.runs.resolve import alignment_spec
    from agebench.utils.io import check_folder

    out = arguments.out or Path("faces") / card.name
    check_folder(out)
    spec = alignment_spec(config, card, arguments.size)
    source = open_dataset(card)
    samples = evenly_spaced(source.samples, arguments.limit)
    with open_cluster(arguments) as cluster:
        faces = load_or_build_face_cache(source.reader, samples, spec, name=card.name, cluster=cluster)
    figures = failures_to_process(samples.table, samples.table["sample_id"].isin(faces.rejected), samples.groups)
    about = {"dataset": card.name, **spec.summary(), "failure_to_process": figures.to_json()}
    report = write_alignment_report(out, about, source.reader, samples, faces)
    print(
        json.dumps(about | {"report": str(report)}, indent=2)
        if arguments.json
        else f"{summary_text(about)}\n\nreport: {report}"
    )
    return 0
