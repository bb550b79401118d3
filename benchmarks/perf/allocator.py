"""The gain on a CPU from freed memory that the C library keeps (`agebench.utils.allocator`), in one run.

    OMP_NUM_THREADS=1 python benchmarks/perf/allocator.py [--models mobilefacenet efficientnet_lite0] [--rounds 3]

Processes with glibc's own thresholds and processes that keep freed memory take turns: what a process has allocated before decides
how much memory it returns. Each process either trains some batches as `agebench run` does, or predicts some batches of 64
images. The table gives the medians of the rounds.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from training import through_the_engine

from agebench.models.age_model import create_model
from agebench.registry.catalog import load_catalog

BATCHES, IMAGES = 6, 64
WORKS = ("training", "prediction")


def measure(name: str, work: str) -> float:
    """Milliseconds an image."""
    card = load_catalog().network(name)
    if work == "training":
        with tempfile.TemporaryDirectory() as folder:
            return 1000 / through_the_engine(card, torch.device("cpu"), BATCHES, Path(folder))
    model = create_model(card).to(memory_format=torch.channels_last).eval()
    images = torch.randn(IMAGES, 3, card.size, card.size).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        model(images)
        start = time.perf_counter()
        for _ in range(BATCHES):
            model(images)
    return 1000 * (time.perf_counter() - start) / BATCHES / IMAGES


def measure_in_process(name: str, work: str, setting: dict[str, str]) -> float:
    """`measure` in a process of its own, with a setting of the allocator in its environment."""
    words = [sys.executable, __file__, "--measure", name, work]
    return float(subprocess.run(words, env=os.environ | setting, check=True, stdout=subprocess.PIPE, text=True).stdout)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=["mobilefacenet", "efficientnet_lite0"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(measure(*options.measure))
        return
    # The variables of glibc for the thresholds that `keep_freed_memory` sets.
    kept = {"MALLOC_MMAP_THRESHOLD_": str(1 << 30), "MALLOC_TRIM_THRESHOLD_": str(1 << 40)}
    print("| model | work | as glibc does, ms an image | memory kept, ms an image | ratio |\n|---|---|---:|---:|---:|")
    for name in options.models:
        for work in WORKS:
            pairs = [[measure_in_process(name, work, setting) for setting in ({}, kept)] for _ in range(options.rounds)]
            before, after = (statistics.median(times) for times in zip(*pairs, strict=True))
            ratio = statistics.median(without / with_it for without, with_it in pairs)
            print(f"| `{name}` | {work} | {before:.2f} | {after:.2f} | {ratio:.2f} |", flush=True)


if __name__ == "__main__":
    main()
