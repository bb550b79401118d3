"""False positive rate of the permutation test of equal errors, where groups differ in spread but not in MAE.

    python benchmarks/statistics/equality_test.py [--repeats 300] [--permutations 199] [--n 1000]

Every cell is a share of tests with p <= 0.05; 5 % is nominal. The Monte-Carlo error of 300 repeats is 1.3 points.
"""

import argparse
import functools
from collections.abc import Callable

import numpy as np

from agebench.metrics.bootstrap import Floats, Ints
from agebench.metrics.fairness import group_permutation_test
from agebench.metrics.groups import Grouping


def normal(rng: np.random.Generator, n: int) -> Floats:
    """Draw errors with E|e| = 1."""
    return rng.normal(0, np.sqrt(np.pi / 2), n)


def t3(rng: np.random.Generator, n: int) -> Floats:
    """Draw errors of Student's t with 3 degrees of freedom, E|e| = 1."""
    errors: Floats = rng.standard_t(3, n) / (2 * np.sqrt(3) / np.pi)
    return errors


def gross(rng: np.random.Generator, n: int) -> Floats:
    """Draw 95 % small and 5 % gross errors, E|e| = 1."""
    spread = np.where(rng.random(n) < 0.05, 10, 1)
    errors: Floats = rng.normal(0, 1, n) * spread / (np.sqrt(2 / np.pi) * 1.45)
    return errors


def narrow(rng: np.random.Generator, n: int) -> Floats:
    """Draw errors near +-1, E|e| = 1."""
    return rng.choice([-1, 1], n) * rng.uniform(0.8, 1.2, n)


SHAPES: dict[str, tuple[Callable[[np.random.Generator, int], Floats], Callable[[np.random.Generator, int], Floats]]] = {
    "normal": (normal, normal),
    "t3": (t3, t3),
    "gross errors": (gross, gross),
    "narrow, one group wide": (narrow, normal),
    "narrow, one group gross": (narrow, gross),
}


def labels_of(rng: np.random.Generator, units: int, groups: int, first: float) -> Ints:
    """Draw groups 0 … groups - 1; group 0 holds the share `first`."""
    rest = rng.integers(1, groups, units)
    return np.where(rng.random(units) < first, 0, rest)


def p_value(shape: str, groups: int, first: float, design: str, n: int, permutations: int, seed: int) -> float:
    """Simulate one test set of equal MAEs and test it."""
    rng = np.random.default_rng(seed)
    units = n if design == "images" else n // 4
    unit_labels = labels_of(rng, units, groups, first)
    clusters = np.arange(units) if design == "images" else np.repeat(np.arange(units), 4)
    labels = unit_labels[clusters]
    draw_common, draw_first = SHAPES[shape]
    errors = np.where(labels == 0, draw_first(rng, len(labels)), draw_common(rng, len(labels)))
    if design == "people":
        # A person's images share a factor with mean 1.
        errors = errors * rng.uniform(0.5, 1.5, units)[clusters]
    grouping = Grouping("group", tuple(map(str, range(groups))), labels)
    # The shuffles must not use the stream that drew the labels.
    own_seed = seed + 1_000_000
    return group_permutation_test(
        np.abs(errors), grouping, np.arange(groups), clusters, permutations=permutations, seed=own_seed
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=300)
    parser.add_argument("--permutations", type=int, default=199)
    parser.add_argument("--n", type=int, default=1000)
    parser.add_argument("--first-seed", type=int, default=5000)
    arguments = parser.parse_args()
    print(f"n = {arguments.n}, {arguments.repeats} repeats, {arguments.permutations} permutations; false positives, %")
    designs = [(2, 0.5, "images"), (2, 0.1, "images"), (10, 0.1, "images"), (2, 0.25, "people")]
    print(
        "| errors | " + " | ".join(f"{groups} groups, first {share:.0%}, {of}" for groups, share, of in designs) + " |"
    )
    print("|---|" + "---:|" * len(designs))
    for shape in SHAPES:
        rates = []
        for groups, first, design in designs:
            draw = functools.partial(p_value, shape, groups, first, design, arguments.n, arguments.permutations)
            rates.append(
                np.mean(
                    [
                        draw(seed) <= 0.05
                        for seed in range(arguments.first_seed, arguments.first_seed + arguments.repeats)
                    ]
                )
            )
        print(f"| {shape} | " + " | ".join(f"{100 * rate:.1f}" for rate in rates) + " |", flush=True)


if __name__ == "__main__":
    main()
