"""Coverage of the 95 % intervals of every figure, by simulation: the table of docs/explanation/statistics.md.

    python benchmarks/statistics/coverage.py [--repeats 300] [--resamples 300]

A cell is the share of simulated test sets whose interval holds the truth. Balanced figures are about the ages that the test
set has. `RMSE unmarked` is the coverage among test sets whose RMSE carries no mark of heavy tails, and the share of these.
"""

import argparse
from dataclasses import dataclass
from unittest import mock

import numpy as np
import pandas as pd

from agebench.metrics import gaps
from agebench.metrics.bootstrap import Floats, Ints
from agebench.metrics.evaluate import evaluate
from agebench.metrics.groups import AGE_BANDS, age_bands
from agebench.metrics.presets.nist_fate import nist
from agebench.metrics.schema import MetricValue


@dataclass(frozen=True)
class Design:
    """A kind of test set: rows, people (0: every image is a cluster), and the shape of the errors."""

    n: int
    people: int = 0
    shape: str = "normal"


DESIGNS = {
    "n=50": Design(50),
    "n=300": Design(300),
    "n=2,000": Design(2000),
    "82 people": Design(1002, 82),
    "82 people, t3": Design(1002, 82, "t3"),
    "n=50, skewed": Design(50, 0, "skewed"),
    "n=300, t3": Design(300, 0, "t3"),
}


def noise(shape: str, rng: np.random.Generator, n: int) -> Floats:
    """Draw errors of one shape, to be multiplied by the spread of the age."""
    if shape == "t3":
        heavy: Floats = rng.standard_t(3, n)
        return heavy
    if shape == "skewed":
        skewed: Floats = rng.gamma(1.5, 1, n) ** 1.5 * rng.choice([-1, 1], n)
        return skewed
    return rng.normal(size=n)


def draw(design: Design, rng: np.random.Generator) -> tuple[Floats, Floats, Ints]:
    """Draw ages, errors and people; with people, a person's errors share a part and their ages are near."""
    if not design.people:
        age = np.floor(rng.gamma(4, 8, design.n))
        return age, noise(design.shape, rng, design.n) * (2 + age / 20), np.arange(design.n)
    people = np.sort(rng.integers(0, design.people, design.n))
    age = np.floor(rng.integers(0, 20, design.people)[people] + rng.integers(0, 40, design.n)).astype(float)
    own = 0.5 * rng.normal(size=design.people)[people]
    return age, (own + noise(design.shape, rng, design.n)) * (2 + age / 20), people


@dataclass(frozen=True)
class Truth:
    """Population figures, and E|noise| to compute balanced figures for the ages at hand."""

    figures: dict[str, float]
    scale: float


def truth(design: Design) -> Truth:
    """Compute the population's figures from many draws; moments of t3 by hand, because its tails converge slowly."""
    rng = np.random.default_rng(123)
    large = Design(2_000_000, 2_000_000 if design.people else 0, design.shape)
    age, error, _ = draw(large, rng)
    absolute, spread = np.abs(error), 2 + age / 20
    second = {"normal": 1.0, "t3": 3.0}.get(design.shape, float(np.mean((error / spread) ** 2)))
    if design.people:
        second += 0.25 if design.shape in ("normal", "t3") else 0.0
    figures = {
        "mae": float(absolute.mean()),
        "rmse": float(np.sqrt(second * np.mean(spread**2))),
        "bias": 0.0,
        "cs5": float(np.mean(absolute <= 5)),
        "median_ae": float(np.median(absolute)),
        "p95_ae": float(np.quantile(absolute, 0.95)),
    }
    return Truth(figures, float(np.mean(absolute / spread)))


def balanced(age: Floats, cells: Ints, scale: float) -> float:
    """The expected mean over cells, given the ages of the rows."""
    return float(pd.Series(scale * (2 + age / 20)).groupby(cells).mean().mean())


def one(design: Design, known: Truth, seed: int, resamples: int) -> dict[str, float]:
    """Return whether each interval of one simulated test set holds the truth (1.0, 0.0; NaN: no answer)."""
    rng = np.random.default_rng(seed)
    age, error, people = draw(design, rng)
    gender = rng.integers(0, 2, people.max() + 1)[people]
    table = pd.DataFrame({"sample_id": np.arange(design.n).astype(str), "age": age, "age_pred": age + error})
    table["gender"] = np.where(gender == 1, "female", "male")
    if design.people:
        table["subject"] = people.astype(str)
    with mock.patch.object(gaps, "group_permutation_test", return_value=1.0):  # not needed here, and slow
        entry = evaluate(table, groups=["gender"], resamples=resamples, seed=seed)
    overall, female = entry.overall, entry.groups["gender"]["female"]
    scale = known.scale

    def held(figure: MetricValue, value: float) -> float:
        low, high = figure.ci_low, figure.ci_high
        return float((-np.inf if low is None else low) <= value <= (np.inf if high is None else high))

    result = {name: held(overall[name], value) for name, value in known.figures.items()}
    result["rmse unmarked"] = np.nan if "rmse" in entry.undercovering else result["rmse"]
    result["balanced_mae"] = held(overall["balanced_mae"], balanced(age, age.astype(int), scale))
    bands = age_bands(age, AGE_BANDS).codes
    result["balanced_mae_bands"] = held(overall["balanced_mae_bands"], balanced(age, bands, scale))
    layout = nist(table, resamples=resamples, seed=seed)
    result["NIST mean over cells"] = held(layout.mae, balanced(age, age.astype(int) * 2 + gender, scale))
    result["MAE of a group"] = held(female.mae, known.figures["mae"])
    result["RMSE of a group"] = held(female.rmse, known.figures["rmse"])
    gap = entry.gaps.get("gender")
    result["gap of two groups"] = held(gap.difference, 0.0) if gap else np.nan
    even = gap.age_standardized if gap else None
    result["gap at equal ages"] = held(even.difference, 0.0) if even else np.nan
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=300)
    parser.add_argument("--resamples", type=int, default=300)
    arguments = parser.parse_args()
    columns = {}
    for name, design in DESIGNS.items():
        known = truth(design)
        results = pd.DataFrame(
            [one(design, known, seed, arguments.resamples) for seed in range(arguments.repeats)], dtype=float
        )
        columns[name] = results.mean() * 100
        columns[name]["RMSE: share unmarked"] = 100 * results["rmse unmarked"].notna().mean()
        print(f"{name} done", flush=True)
    print(f"\n{arguments.repeats} repeats, {arguments.resamples} resamples; coverage in percent\n")
    print(pd.DataFrame(columns).round(1).to_markdown())


if __name__ == "__main__":
    main()
