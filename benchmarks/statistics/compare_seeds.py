"""False positive rate of `compare` for two equal systems of several seeds each.

    python benchmarks/statistics/compare_seeds.py [--repeats 400] [--resamples 300]

The MAEs of trainings differ by `spread` years, beside noise of each training on each image. A rate of 5 % is nominal.
"""

import argparse

import numpy as np

from agebench.metrics.comparison import PairedErrors, compare_systems


def paired(seeds: int, spread: float, n: int, rng: np.random.Generator) -> PairedErrors:
    """Simulate two systems of the same kind on the same images."""
    images = rng.normal(20, 2, n)
    errors = tuple(np.abs(images + rng.normal(0, 1, (seeds, n)) + rng.normal(0, spread, (seeds, 1))) for _ in range(2))
    return PairedErrors(("a", "b"), errors, np.arange(n), False, 0, np.full(n, 30.0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=400)
    parser.add_argument("--resamples", type=int, default=300)
    arguments = parser.parse_args()
    print(f"{arguments.repeats} repeats, {arguments.resamples} resamples; differences shown, %")
    print("| seeds | n | spread 0 | 0.02 | 0.1 | 0.5 |\n|---|---|---:|---:|---:|---:|")
    for seeds, n in ((1, 200), (2, 200), (3, 200), (3, 2000), (5, 200)):
        rates = []
        for spread in (0.0, 0.02, 0.1, 0.5):
            shown = 0
            for repeat in range(arguments.repeats):
                systems = paired(seeds, spread if seeds > 1 else 0.0, n, np.random.default_rng(repeat))
                result = compare_systems(systems, resamples=arguments.resamples, seed=repeat + 10**6)
                shown += result.pairs[0].shown
            rates.append(100 * shown / arguments.repeats)
        print(f"| {seeds} | {n:,} | " + " | ".join(f"{rate:.1f}" for rate in rates) + " |", flush=True)


if __name__ == "__main__":
    main()
