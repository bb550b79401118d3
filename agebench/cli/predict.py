"""`agebench predict`: ages for images, shards, videos and cameras."""

import argparse
import io
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agebench.cli._help import add_renamed
from agebench.cli._numbers import age, count, legal_age
from agebench.cli.common_options import (
    add_cluster_options,
    add_json,
    add_model_option,
    add_registry,
    is_http_model,
    load_cards,
    open_cluster,
    print_default_model,
)

if TYPE_CHECKING:
    from agebench.inference.batch_predict import PredictOptions, PredictSummary
    from agebench.inference.input_sources import InputItem
    from agebench.inference.predictor import Predictor
    from agebench.inference.writers import PredictionSettings
    from agebench.metrics.schema import CalibratedInterval
    from agebench.registry.catalog import Catalog
    from agebench.utils.ray_cluster import RayCluster


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `agebench predict`."""
    add_model_option(parser)
    parser.add_argument(
        "inputs",
        metavar="INPUT",
        nargs="*",
        help="an image, a folder, a pattern ('photos/*.jpg'), a shard (.tar, .parquet), a video, camera:0, or - for paths on "
        "standard input",
    )
    parser.add_argument(
        "--out",
        metavar="FILE",
        help=".csv, .json or .parquet, or FOLDER/ for a file of each shard, where the same command continues (default: CSV on "
        "standard output)",
    )
    add_renamed(
        parser,
        "--annotate-dir",
        "--draw",
        metavar="DIR",
        type=Path,
        help="write images and videos with boxes and ages",
    )
    parser.add_argument(
        "--threshold", type=legal_age, metavar="AGE", help="decide whether each person is over this age"
    )
    parser.add_argument(
        "--challenge",
        type=age,
        metavar="AGE",
        help="estimate from which a person passes (default: 7 years above the threshold)",
    )
    parser.add_argument("--frames", type=count, metavar="N", help="of a video or camera, only the first N")
    add_renamed(
        parser,
        "--detect-every",
        "--every",
        type=count,
        metavar="N",
        default=1,
        help="of a video or camera, detect faces in every N-th frame only; in between, boxes are kept",
    )
    parser.add_argument(
        "--workers", type=count, metavar="N", help="processes that detect faces (default: one for each core)"
    )
    add_cluster_options(parser, "shards and groups of images")
    parser.rest = "inputs"  # type: ignore[attr-defined]
    add_registry(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Estimate ages in all inputs and write the rows; print intervals and error rates to standard error."""
    _check(arguments)
    from agebench.data.faces.detectors.base import open_detector
    from agebench.inference.input_sources import expand_inputs, refuse_videos
    from agebench.inference.part_files import check_inputs, check_output
    from agebench.utils.io import check_folder

    check_output(arguments.out)
    if arguments.annotate_dir is not None:
        check_folder(arguments.annotate_dir, "--annotate-dir")
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")  # file names are bytes, which need not be valid text
    model = _take_model(arguments)
    left_out: Counter[str] = Counter()
    parts = expand_inputs(
        arguments.inputs, sys.stdin, left_out
    )  # before the model is opened, so that errors appear at once
    check_inputs(arguments.out, parts, annotated=arguments.annotate_dir is not None)
    if arguments.executor == "ray":
        refuse_videos(parts)
    if arguments.detector:
        open_detector(arguments.detector)
    from agebench.inference.batch_predict import PredictOptions
    from agebench.inference.formatting import format_gate, format_interval, format_summary, format_timing
    from agebench.inference.predictor import DEFAULT_COVERAGE, load
    from agebench.inference.video import check_videos
    from agebench.inference.writers import PredictionSettings, output_columns

    cards = load_cards(arguments)
    if arguments.executor == "ray":
        _refuse_http(model, cards)
    with (
        load(model, trusted=arguments.allow_code_execution, device=arguments.device, cards=cards) as predictor,
        open_cluster(arguments) as cluster,
    ):
        level = DEFAULT_COVERAGE if arguments.coverage is None else arguments.coverage
        interval = _interval(predictor, level, asked=arguments.coverage is not None)
        gate = predictor.gate(arguments.threshold, arguments.challenge) if arguments.threshold is not None else None
        for line in (interval and format_interval(interval), gate and format_gate(gate)):
            if line:
                print(line, file=sys.stderr)
        finder = predictor.finder(arguments.align, detector=arguments.detector)
        detector = finder.spec.detector if finder.spec.mode == "detect" else ""
        if detector:
            open_detector(detector)  # now, as videos: what is missing is found before hours of work
        check_videos(parts)
        options = PredictOptions(
            faces=arguments.align,
            level=level if interval else None,
            detector=detector,
            search=arguments.detect_size,
            workers=arguments.workers,
            challenge=gate.challenge if gate else None,
            draw=arguments.annotate_dir,
            frames=arguments.frames,
            every=arguments.detect_every,
        )
        names = output_columns(video=any(part.kind == "video" for part in parts), gate=gate is not None)
        settings = PredictionSettings(model, interval, gate)
        tally = _predict(arguments, predictor, parts, options, names, settings, cluster, cards)
    tally.left_out = left_out
    for timing in tally.videos:
        print(format_timing(timing), file=sys.stderr)
    print(format_summary(tally), file=sys.stderr)
    return _code(tally)


def _refuse_http(model: str, cards: "Catalog") -> None:
    """Refuse a model at an address on a cluster: its calls are counted and its answers kept on one machine."""
    from agebench.errors import UserError

    if is_http_model(model, cards):
        raise UserError(f"--executor ray: '{model}' is asked over HTTP, by one machine at a time; leave out --executor")


def _predict(
    arguments: argparse.Namespace,
    predictor: "Predictor",
    parts: "list[InputItem]",
    options: "PredictOptions",
    names: list[str],
    settings: "PredictionSettings",
    cluster: "RayCluster | None",
    cards: "Catalog",
) -> "PredictSummary":
    """Predict on this machine or the cluster, into a file, a folder of files, or standard output."""
    from agebench.inference.batch_predict import Compute, LocalCompute, predict_all
    from agebench.inference.part_files import PartFolder, is_folder, predict_parts
    from agebench.runs.estimators import content_digest

    compute: Compute = LocalCompute(predictor, options)
    if cluster is not None:
        from agebench.inference.cluster_predict import ClusterCompute, PredictTask
        from agebench.registry.catalog import user_folders

        registry, trusted = tuple(user_folders(arguments.registry)), arguments.allow_code_execution
        compute = ClusterCompute(cluster, PredictTask(settings.model, options, registry, trusted, arguments.device))
    if is_folder(arguments.out):
        digest = content_digest(settings.model, cards)
        folder = PartFolder(Path(arguments.out), names, settings, options, digest)
        return predict_parts(folder, parts, compute)
    with _output(arguments, names, settings) as write:
        return predict_all(predictor, parts, options, write, compute)


def _take_model(arguments: argparse.Namespace) -> str:
    """Return the model; a first word that is none becomes an input, and the model is the one that ships with agebench."""
    from agebench.errors import UserError
    from agebench.runs.estimators import is_model

    model: str | None = arguments.model
    # A word that does not exist is a mistyped model if inputs follow it.
    is_input = model is not None and (Path(model).exists() or any(mark in model for mark in "*?[:") or model == "-")
    if model is None or (not is_model(model, load_cards(arguments)) and (is_input or not arguments.inputs)):
        arguments.inputs = [*([model] if model is not None else []), *arguments.inputs]
        model = print_default_model() if arguments.inputs else None
    if model is None or not arguments.inputs:
        raise UserError(
            "which images? Give an image, a folder, a pattern, a video, camera:0, or - for paths on standard input"
        )
    return model


def _check(arguments: argparse.Namespace) -> None:
    from agebench.errors import UserError

    if arguments.executor == "ray":
        from agebench.utils.ray_cluster import require_ray

        require_ray()
        if arguments.workers is not None:
            raise UserError("--workers is for --executor local; on Ray, --cpus is the number of processes of each task")
    if arguments.challenge is not None and arguments.threshold is None:
        raise UserError("--challenge needs an age to decide on. Give --threshold, e.g. --threshold 18")


def _interval(predictor: "Predictor", level: float, *, asked: bool) -> "CalibratedInterval | None":
    """Return the interval; if it cannot be calibrated, print a message, or raise if it was requested."""
    from agebench.metrics.guarantees import CalibrationError

    try:
        return predictor.interval(level)
    except CalibrationError as error:
        if asked:
            raise
        print(f"agebench: {error}", file=sys.stderr)
        return None


def _output(arguments: argparse.Namespace, names: list[str], about: "PredictionSettings") -> Any:
    from agebench.inference.writers import open_writer, text_output

    if arguments.out is not None:
        return open_writer(Path(arguments.out), names, about)
    return text_output(sys.stdout, names, about if arguments.json else None)


def _code(tally: "PredictSummary") -> int:
    """Return 1 if no age was estimated, now or by an earlier call."""
    return 0 if tally.faces or tally.finished_before else 1
