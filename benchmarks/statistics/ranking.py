"""Error rates and coverage of rankings from images: equal systems that are shown to differ, and ranks outside their intervals.

    python benchmarks/statistics/ranking.py [--repeats 400] [--resamples 500] [--systems 14]

Systems share the difficulty of each image and, where there are several seeds, an effect of each seed; beside these, each system
errs on each image in its own way and each training has its own effect. `family-wise` is the percentage of simulated test sets on
which any of the equal systems is shown to be better than another, 5 % at most. `ranks held` is the percentage, of a quarter as many
test sets, on which all rank intervals hold the true ranks of systems that are 0.1 years apart, 95 % at least.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from agebench.metrics.bootstrap import Floats, Ints
from agebench.metrics.ranking import Layout, RankingEstimate, SystemErrors, rank, resample_maes


@dataclass(frozen=True)
class Design:
    """One kind of test set and of trainings.

    Attributes:
        name: shown in the table.
        images: images of the test set.
        people: people on them; 0: each image is of another person.
        seeds: trainings of each system.
        spread: standard deviation of each system's own effect of a training, years; drawn for every system.
        common: standard deviation of the effect of a seed on all systems, years.
        held_out: share of the images that each seed holds out; 1: all seeds are tested on all images.
        tails: degrees of freedom of Student's distribution for single errors; 0: normal.
        other_spread: every second system was trained on another set, with this spread and with seeds of its own; None: none.
    """

    name: str
    images: int = 1000
    people: int = 0
    seeds: int = 3
    spread: Callable[[int, np.random.Generator], Floats] = lambda count, rng: np.zeros(count)
    common: float = 0.0
    held_out: float = 1.0
    tails: int = 0
    other_spread: float | None = None


def equal(spread: float) -> Callable[[int, np.random.Generator], Floats]:
    """Return a design's spread: all systems have the same."""
    return lambda count, rng: np.full(count, spread)


def unequal(low: float, high: float) -> Callable[[int, np.random.Generator], Floats]:
    """Return a design's spread: log-uniform between two limits."""
    return lambda count, rng: np.exp(rng.uniform(np.log(low), np.log(high), count))


def outlier(spread: float, factor: float) -> Callable[[int, np.random.Generator], Floats]:
    """Return a design's spread: that of one system is `factor` times that of the others."""
    return lambda count, rng: np.where(np.arange(count) == 0, factor, 1.0) * spread


DESIGNS = (
    Design("1 seed, 1,000 images", seeds=1),
    Design("1 seed, 82 people", people=82, seeds=1),
    Design("1 seed, 82 people, t3", people=82, seeds=1, tails=3),
    Design("3 seeds, no spread"),
    Design("3 seeds, spread 0.3", spread=equal(0.3), common=0.3),
    Design("3 seeds, spread 0.1 to 1", spread=unequal(0.1, 1.0), common=0.3),
    Design("3 seeds, one system 5 x 0.3", spread=outlier(0.3, 5.0)),
    Design("2 seeds, spread 0.1 to 1", seeds=2, spread=unequal(0.1, 1.0), common=0.3),
    Design("3 seeds, held-out fifths, spread 0.1", images=5000, held_out=0.2, spread=equal(0.1), common=0.2),
    Design("3 seeds, two training sets, spread 0.03 and 1", spread=equal(0.03), common=0.3, other_spread=1.0),
    Design("3 seeds, held-out fifths, 82 people", people=82, held_out=0.2, spread=unequal(0.03, 0.3)),
)


def simulate(
    design: Design, systems: int, rng: np.random.Generator, steps: float = 0.0
) -> tuple[list[SystemErrors], Ints]:
    """Simulate systems whose true MAEs are `steps` years apart, and the person on each image."""
    people = design.people or design.images
    clusters = rng.permutation(np.arange(design.images) % people)

    def noise(scale: float, *shape: int) -> Floats:
        drawn = rng.standard_t(design.tails, shape) / 3**0.5 if design.tails else rng.standard_normal(shape)
        return np.asarray(scale * drawn)

    image = 20 + noise(2.0, design.images) + noise(1.0, people)[clusters]
    spreads = design.spread(systems, rng)
    trainings = np.zeros(systems, dtype=int)
    if design.other_spread is not None:
        trainings[1::2] = 1
        spreads = np.where(trainings == 1, design.other_spread, spreads)
    common = rng.normal(0, 1, (2, design.seeds)) * design.common
    order = rng.permutation(people)
    parts = []
    for _ in range(design.seeds):
        held = rng.permutation(people)[: round(people * design.held_out)]
        parts.append(np.flatnonzero(np.isin(clusters, order[held])))
    made = []
    for system in range(systems):
        own = image + noise(1.0, design.images) + noise(0.5, people)[clusters]
        effects = common[trainings[system]] + spreads[system] * rng.standard_normal(design.seeds) + steps * system
        errors = tuple(own[part] + noise(1.0, len(part)) + effect for part, effect in zip(parts, effects, strict=True))
        training = ("train", "other")[trainings[system]]
        made.append(SystemErrors(str(system), training, tuple(range(design.seeds)), tuple(parts), errors))
    return made, clusters


def ranking(systems: Sequence[SystemErrors], clusters: Ints, resamples: int, seed: int) -> RankingEstimate:
    """Rank simulated systems."""
    return rank(Layout.of(systems), resample_maes(systems, clusters, resamples=resamples, seed=seed), seed=seed)


def family_wise(design: Design, systems: int, repeats: int, resamples: int, first: int = 0) -> float:
    """Return the share of simulated test sets on which equal systems are shown to differ."""
    shown = 0
    for repeat in range(first, first + repeats):
        simulated = simulate(design, systems, np.random.default_rng([repeat, 7]))
        shown += ranking(*simulated, resamples, repeat).pairs_shown > 0
    return shown / repeats


def ranks_covered(design: Design, systems: int, repeats: int, resamples: int) -> tuple[float, float]:
    """Return how often all rank intervals hold the true ranks, and the mean share of pairs shown to differ."""
    covered, shown = 0, 0
    truth = 1 + np.arange(systems)
    for repeat in range(repeats):
        simulated = simulate(design, systems, np.random.default_rng([repeat, 8]), steps=0.1)
        found = ranking(*simulated, resamples, repeat)
        covered += bool(np.all((found.rank_low <= truth) & (truth <= found.rank_high)))
        shown += found.pairs_shown
    return covered / repeats, shown / repeats / (systems * (systems - 1) / 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=400)
    parser.add_argument("--resamples", type=int, default=500)
    parser.add_argument("--systems", type=int, default=14)
    arguments = parser.parse_args()
    repeats, resamples, systems = arguments.repeats, arguments.resamples, arguments.systems
    print(f"{repeats} repeats, {resamples} resamples, {systems} systems; %")
    print("| design | family-wise error | ranks held | pairs shown |\n|---|---:|---:|---:|")
    for design in DESIGNS:
        error = family_wise(design, systems, repeats, resamples)
        covered, shown = ranks_covered(design, systems, repeats // 4, resamples)
        print(f"| {design.name} | {100 * error:.1f} | {100 * covered:.1f} | {100 * shown:.0f} |", flush=True)


if __name__ == "__main__":
    main()
