"""Loss and gradient of every head against plain cross-entropy, in one run.

python benchmarks/perf/heads.py [--batch 256] [--ages 100] [--rounds 200]
"""

import argparse
import statistics
import time
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F

from agebench.models import heads


def seconds(works: Sequence[Callable[[], None]], rounds: int) -> list[float]:
    """Median seconds of one call of each, in turns, so that other work of the machine falls on all of them."""
    found: list[list[float]] = [[] for _ in works]
    for turn in range(rounds + 3):
        for work, times in zip(works, found, strict=True):
            start = time.perf_counter()
            work()
            if turn >= 3:
                times.append(time.perf_counter() - start)
    return [statistics.median(times) for times in found]


def main() -> None:
    """One line a head: microseconds, and how many times cross-entropy's beside it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--ages", type=int, default=100, help="the last age; K is one more")
    parser.add_argument("--rounds", type=int, default=200)
    options = parser.parse_args()
    torch.set_num_threads(1)
    age = torch.rand(options.batch) * options.ages
    classes = age.round().long()

    def cross_entropy() -> None:
        logits.grad = None
        torch.autograd.backward(F.cross_entropy(logits, classes))

    logits = torch.randn(options.batch, options.ages + 1, requires_grad=True)
    for name in heads.names():
        head = heads.create(name, in_features=8, ages=(0, options.ages)).train()

        says = torch.randn(options.batch, head.out_features, requires_grad=True)

        def step(head: heads.Head = head, says: torch.Tensor = says) -> None:
            says.grad = None
            torch.autograd.backward(head.loss(says, age))

        plain, taken = seconds([cross_entropy, step], options.rounds)
        print(f"{name:16} {taken * 1e6:8.0f} µs   {taken / plain:5.1f} x cross-entropy's {plain * 1e6:.0f} µs")


if __name__ == "__main__":
    main()
