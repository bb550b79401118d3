"""`agebench export`: a run's model as files that do not need agebench."""

import argparse
import json
import sys
from pathlib import Path

from agebench.cli._numbers import seed
from agebench.cli.common_options import add_code_execution, add_json, add_registry, load_cards


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `agebench export`."""
    parser.add_argument(
        "folder",
        metavar="RUN",
        type=Path,
        help="the folder of a finished run; for --web also agebench-base, or an exported .onnx or .ts file",
    )
    parser.add_argument(
        "--format",
        metavar="NAMES",
        type=_words,
        default="torchscript,onnx,pt2",
        help="any of torchscript, onnx, pt2, with commas between them (default: all)",
    )
    parser.add_argument(
        "--precision",
        metavar="NAMES",
        type=_words,
        default="fp32",
        help="any of fp32, bf16, fp16, int8; lower ones are tested on the run's test sets first (default: fp32)",
    )
    parser.add_argument(
        "--verify",
        metavar="MODEL",
        help="write nothing; compare an exported file, or any other estimator, with the run on its test sets",
    )
    parser.add_argument("--out", metavar="DIR", type=Path, help="folder of the files (default: RUN/export)")
    parser.add_argument(
        "--images",
        type=int,
        metavar="N",
        help="compare on at most N evenly spaced images of each test set (default: all)",
    )
    parser.add_argument("--resamples", type=int, default=1000, metavar="N", help="bootstrap samples (default: 1000)")
    parser.add_argument("--seed", type=seed, default=0, metavar="N", help="seed of all random choices (default: 0)")
    parser.add_argument(
        "--device", metavar="NAME", default="auto", help="device of --verify: auto, cpu, cuda, … (default: auto)"
    )
    add_code_execution(parser)
    parser.add_argument(
        "--release",
        action="store_true",
        help="write the run's model as the one that ships with agebench (at most 8 MB), into the package or --out",
    )
    parser.add_argument(
        "--web",
        metavar="DIR",
        type=Path,
        help="write a static page on which the model runs in the visitor's browser, with onnxruntime-web from npm",
    )
    parser.add_argument(
        "--web-runtime",
        metavar="FILE",
        type=Path,
        help="the archive that `npm pack` of onnxruntime-web wrote, for machines without npm (default: npm fetches it)",
    )
    add_registry(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Write the files or verify an estimator, print the table; return 1 if an accuracy check fails."""
    from agebench.errors import UserError

    if arguments.release:
        return _release(arguments)
    if arguments.web:
        return _web(arguments)
    if arguments.resamples < 100:
        raise UserError(f"--resamples {arguments.resamples}: give 100 or more: the accuracy check needs intervals")
    if arguments.images is not None and arguments.images < 2:
        raise UserError(f"--images {arguments.images}: give 2 or more")
    if arguments.verify:
        return _verify(arguments)
    from agebench.reports.sections.export import export_text
    from agebench.runs.export import export_run, plan_exports
    from agebench.runs.run_dir import RunDir
    from agebench.utils.io import check_folder

    options = {"images": arguments.images, "resamples": arguments.resamples, "seed": arguments.seed}
    plan = plan_exports(arguments.format, arguments.precision, **options)
    folder = RunDir(arguments.folder)
    out = arguments.out or folder.path / "export"
    if arguments.out or folder.path.is_dir():
        check_folder(out)
    result = export_run(folder, load_cards(arguments), plan, out)
    print(json.dumps(result.to_json(), indent=2, allow_nan=False) if arguments.json else export_text(result))
    for entry in result.impossible:
        print(f"not written: {entry.file}: {entry.reason}", file=sys.stderr)
    for entry in result.refused:
        print(f"refused: {entry.file}: {entry.reason}", file=sys.stderr)
    print(f"files: {out}", file=sys.stderr)
    return 1 if result.refused else 0


def _verify(arguments: argparse.Namespace) -> int:
    from agebench.runs.accuracy import verify_estimator
    from agebench.runs.estimators import AnalysisSubject
    from agebench.runs.run_dir import RunDir

    catalog = load_cards(arguments)
    subject = AnalysisSubject(arguments.verify, catalog, arguments.device, trusted=arguments.allow_code_execution)
    options = {"images": arguments.images, "resamples": arguments.resamples, "seed": arguments.seed}
    check = verify_estimator(RunDir(arguments.folder), subject, **options)
    print(json.dumps(check.to_json(), indent=2, allow_nan=False) if arguments.json else check.to_text())
    return 0 if check.passed else 1


def _release(arguments: argparse.Namespace) -> int:
    from agebench.estimators.released import released_dir
    from agebench.runs.release import release_run
    from agebench.runs.run_dir import RunDir

    out = arguments.out or released_dir()
    described = release_run(RunDir(arguments.folder), load_cards(arguments), out)
    if arguments.json:
        print(described.model_dump_json(indent=2))
    else:
        print(f"{described.summary()}\n{out / described.file}: {described.size_bytes:,} bytes, {described.precision}")
    return 0


def _web(arguments: argparse.Namespace) -> int:
    from agebench.runs.web_page import export_web_page
    from agebench.utils.io import check_folder

    check_folder(arguments.web, "--web")
    settings = export_web_page(
        str(arguments.folder),
        load_cards(arguments),
        arguments.web,
        trusted=arguments.allow_code_execution,
        archive=arguments.web_runtime,
    )
    if arguments.json:
        print(settings.model_dump_json(indent=2, by_alias=True))
    else:
        print(f"{settings.model.name}: {settings.model.title}; visitors load {settings.download_bytes / 1e6:.0f} MB")
    print(
        f"page: {arguments.web}; to open it: python -m http.server --bind 127.0.0.1 --directory {arguments.web} 8000",
        file=sys.stderr,
    )
    return 0


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]
