"""`agebench demo`: a local web page with the estimates of a model."""

import argparse
import json
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from agebench.cli._numbers import integer
from agebench.cli.common_options import (
    add_json,
    add_model_option,
    add_registry,
    is_http_model,
    load_cards,
    print_default_model,
)
from agebench.utils.progress import silence

if TYPE_CHECKING:
    from agebench.registry.catalog import Catalog


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `agebench demo`."""
    add_model_option(parser)
    parser.add_argument(
        "--host",
        metavar="ADDRESS",
        default="127.0.0.1",
        help="address to listen on (default: 127.0.0.1, this machine only)",
    )
    parser.add_argument("--port", metavar="N", type=integer(1, 65535), help="default: the first free port from 7860 on")
    add_registry(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Open the model, serve the page until Ctrl-C."""
    from agebench.data.faces.detectors.base import open_detector
    from agebench.errors import UserError
    from agebench.inference.demo.gradio_app import serve
    from agebench.inference.demo.request_guard import LOOPBACK
    from agebench.inference.demo.session import DemoSession
    from agebench.inference.predictor import DEFAULT_COVERAGE, load

    if not arguments.host:
        raise UserError("--host: is empty; 127.0.0.1 is this machine only")
    if arguments.detector:
        open_detector(arguments.detector)
    model, cards = arguments.model or print_default_model(), load_cards(arguments)
    _refuse_http(model, cards)
    with load(model, trusted=arguments.allow_code_execution, device=arguments.device, cards=cards) as predictor:
        predictor.finder(arguments.align, detector=arguments.detector)  # refuses a model that takes no aligned faces
        if arguments.coverage is not None:
            predictor.interval(arguments.coverage)  # an explicit coverage is an error if it cannot be calibrated
        level = DEFAULT_COVERAGE if arguments.coverage is None else arguments.coverage
        demo = DemoSession(predictor, level=level, detector=arguments.detector, search=arguments.detect_size)
        place = {"host": arguments.host, "port": arguments.port, "framing": arguments.align}
        with _ended_by_signals(), serve(demo, **place) as address:
            print(json.dumps({"address": address}) if arguments.json else f"{address} (Ctrl-C ends it)", flush=True)
            if arguments.host not in LOOPBACK:
                print(
                    f"agebench: --host {arguments.host}: other hosts on the network can open this page", file=sys.stderr
                )
            with suppress(KeyboardInterrupt):
                _wait()
    print("agebench: ended; the images are deleted", file=sys.stderr)
    return 0


def _refuse_http(model: str, cards: "Catalog") -> None:
    """Refuse a model at an address: by the page, no image leaves this machine; and it asks at every camera frame."""
    from agebench.errors import UserError

    if is_http_model(model, cards):
        raise UserError(
            f"'{model}' is asked over HTTP: the page would send every face to it and spend its calls; `agebench predict {model} "
            "PHOTO` asks it once for each face"
        )


def _wait() -> None:
    """Wait until the process is interrupted."""
    with silence():
        threading.Event().wait()


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Treat SIGTERM and a closed terminal as Ctrl-C, so that images are deleted."""
    kinds = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = [signal.signal(kind, _stop) for kind in kinds]
    try:
        yield
    finally:
        for kind, handler in zip(kinds, before, strict=True):
            signal.signal(kind, handler)


def _stop(*_: object) -> None:
    raise KeyboardInterrupt
