"""`agebench predict`: ages for images, videos and cameras."""

import argparse
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agebench.cli.common_options import add_json, add_model_option, add_registry, load_cards

if TYPE_CHECKING:
    from agebench.inference.batch_predict import PredictSummary
    from agebench.inference.predictor import Predictor


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `agebench predict`."""
    add_model_option(parser)
    parser.add_argument(
        "inputs",
        metavar="INPUT",
        nargs="+",
        help="an image, a folder, a pattern ('photos/*.jpg'), a video, camera:0, or - for paths on standard input",
    )
    parser.add_argument(
        "--out", metavar="FILE", type=Path, help=".csv, .json or .parquet (default: CSV on standard output)"
    )
    parser.add_argument("--draw", metavar="DIR", type=Path, help="write pictures and videos with boxes and ages")
    parser.add_argument("--threshold", type=int, metavar="AGE", help="decide who is over this age")
    parser.add_argument(
        "--challenge",
        type=float,
        metavar="AGE",
        help="the estimate from which on (default: 7 years above the threshold)",
    )
    parser.add_argument("--frames", type=int, metavar="N", help="of a video or camera, only the first N")
    parser.add_argument(
        "--every",
        type=int,
        metavar="N",
        default=1,
        help="of a video or camera, look for faces in every N-th frame only; between, they are taken to stay where they are",
    )
    parser.add_argument("--workers", type=int, metavar="N", help="processes that find faces (default: one a core)")
    add_registry(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Open the model, look at all that is given, write the rows; what they are worth goes to standard error."""
    _check(arguments)
    from agebench.data.faces.detectors.base import open_detector
    from agebench.inference.input_sources import expand_inputs
    from agebench.utils.io import check_file, check_folder

    parts = expand_inputs(arguments.inputs, sys.stdin)  # before the model: what is wrong fails at once
    if arguments.detector:
        open_detector(arguments.detector)
    if arguments.out is not None:
        from agebench.inference.writers import check_suffix

        check_suffix(arguments.out)
        check_file(arguments.out)
    if arguments.draw is not None:
        check_folder(arguments.draw, "--draw")
    from agebench.inference.batch_predict import PredictOptions, predict_all
    from agebench.inference.formatting import format_gate, format_interval, format_summary, format_timing
    from agebench.inference.predictor import DEFAULT_COVERAGE, load
    from agebench.inference.writers import output_columns

    with load(
        arguments.model, trusted=arguments.trusted, device=arguments.device, cards=load_cards(arguments)
    ) as predictor:
        level = DEFAULT_COVERAGE if arguments.level is None else arguments.level
        interval = _interval(predictor, level, asked=arguments.level is not None)
        gate = predictor.gate(arguments.threshold, arguments.challenge) if arguments.threshold is not None else None
        for promise, words in ((interval, format_interval), (gate, format_gate)):
            if promise:
                print(words(promise), file=sys.stderr)
        options = PredictOptions(
            faces=arguments.faces,
            level=level if interval else None,
            detector=arguments.detector,
            search=arguments.search,
            workers=arguments.workers,
            challenge=gate["challenge"] if gate else None,
            draw=arguments.draw,
            frames=arguments.frames,
            every=arguments.every,
        )
        names = output_columns(video=any(part.kind == "video" for part in parts), gate=gate is not None)
        about = {"model": arguments.model, "interval": interval, "gate": gate}
        with ExitStack() as stack:
            tally = predict_all(predictor, parts, options, stack.enter_context(_output(arguments, names, about)))
    for timing in tally.videos:
        print(format_timing(timing), file=sys.stderr)
    print(format_summary(tally), file=sys.stderr)
    return _code(tally)


def _check(arguments: argparse.Namespace) -> None:
    from agebench.errors import UserError

    if arguments.challenge is not None and arguments.threshold is None:
        raise UserError("--challenge decides who is over an age: which one? --threshold 18")
    for name, least in (("search", 0), ("frames", 1), ("every", 1), ("workers", 1), ("threshold", 1)):
        value = getattr(arguments, name)
        if value is not None and value < least:
            raise UserError(f"--{name} {value}: must be {least} or more")


def _interval(predictor: "Predictor", level: float, *, asked: bool) -> dict[str, Any] | None:
    """What is promised; where nothing can be, that is said, and refused only if it was asked for."""
    from agebench.metrics.guarantees import CalibrationError

    try:
        return predictor.interval(level)
    except CalibrationError as error:
        if asked:
            raise
        print(f"agebench: {error}", file=sys.stderr)
        return None


def _output(arguments: argparse.Namespace, names: list[str], about: dict[str, Any]) -> Any:
    from agebench.inference.writers import open_writer, text_output

    if arguments.out is not None:
        return open_writer(arguments.out, names, about)
    return text_output(sys.stdout, names, about if arguments.json else None)


def _code(tally: "PredictSummary") -> int:
    """1 where there was something to look at, and not one age came of it."""
    return 0 if tally.faces else 1
