"""`agebench predict`: ages for images, videos and cameras."""

import argparse
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agebench.cli.options import add_json, add_model, add_registry, cards

if TYPE_CHECKING:
    from agebench.deploy.job import Tally
    from agebench.deploy.predictor import Predictor


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `agebench predict`."""
    add_model(parser)
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
    from agebench.data.detectors import open_detector
    from agebench.deploy.inputs import find_inputs
    from agebench.files import check_file, check_folder

    parts = find_inputs(arguments.inputs, sys.stdin)  # before the model: what is wrong fails at once
    if arguments.detector:
        open_detector(arguments.detector)
    if arguments.out is not None:
        from agebench.deploy.writing import check_suffix

        check_suffix(arguments.out)
        check_file(arguments.out)
    if arguments.draw is not None:
        check_folder(arguments.draw, "--draw")
    from agebench.deploy.job import Job, work
    from agebench.deploy.predictor import LEVEL, load
    from agebench.deploy.words import gate_in_words, interval_in_words, tally_in_words, timing_in_words
    from agebench.deploy.writing import columns

    with load(arguments.model, trusted=arguments.trusted, device=arguments.device, cards=cards(arguments)) as predictor:
        level = LEVEL if arguments.level is None else arguments.level
        interval = _interval(predictor, level, asked=arguments.level is not None)
        gate = predictor.gate(arguments.threshold, arguments.challenge) if arguments.threshold is not None else None
        for promise, words in ((interval, interval_in_words), (gate, gate_in_words)):
            if promise:
                print(words(promise), file=sys.stderr)
        job = Job(
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
        names = columns(video=any(part.kind == "video" for part in parts), gate=gate is not None)
        about = {"model": arguments.model, "interval": interval, "gate": gate}
        with ExitStack() as stack:
            tally = work(predictor, parts, job, stack.enter_context(_output(arguments, names, about)))
    for timing in tally.videos:
        print(timing_in_words(timing), file=sys.stderr)
    print(tally_in_words(tally), file=sys.stderr)
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
    from agebench.deploy.models import NoCalibration

    try:
        return predictor.interval(level)
    except NoCalibration as error:
        if asked:
            raise
        print(f"agebench: {error}", file=sys.stderr)
        return None


def _output(arguments: argparse.Namespace, names: list[str], about: dict[str, Any]) -> Any:
    from agebench.deploy.writing import open_output, text_output

    if arguments.out is not None:
        return open_output(arguments.out, names, about)
    return text_output(sys.stdout, names, about if arguments.json else None)


def _code(tally: "Tally") -> int:
    """1 where there was something to look at, and not one age came of it."""
    return 0 if tally.faces else 1
