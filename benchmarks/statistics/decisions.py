"""Error rates of the figures that decide: paired differences, margins, requirements, and the interval of F2.

    python benchmarks/statistics/decisions.py [--repeats 200] [--resamples 200] [--part margins]

Two systems whose errors share the image's and the person's part. `shown`: two equal systems are shown to differ (nominal 5 %).
`equivalent`: equivalence is claimed although the true difference is at the margin (at most 5 %). `false shown`, `false refuted`: a
requirement exactly at the truth (at most 2.5 % each). `covers`: intervals that hold the truth (nominal 95 %).
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from agebench.metrics.age_gates import Gate, age_gates
from agebench.metrics.evaluate import evaluate
from agebench.metrics.gaps import worst_group
from agebench.metrics.paired_figures import FigureKind, FigureOptions, compare_figures
from agebench.metrics.requirements import Verdict, check_requirements, parse_requirement
from agebench.metrics.schema import FigureDifference, TestResult

GATE = Gate(18, 20.0)
SHIFT = 1.2
DESIGNS = {"n=400": (400, 0), "n=2,000": (2000, 0), "100 people, 400": (400, 100), "300 people, 2,000": (2000, 300)}
FIGURES = ("mae", "bias", "cs5", "fpr(18@20)", "fnr(18@20)", "gap(group)")
EQUIVALENCE = ("mae", "bias", "cs5", "fpr(18@20)", "fnr(18@20)")
PARTS = ("pairs", "margins", "requirements")
LIMITS = ("mae", "cs5", "fpr(18@20)", "fpr(18@20, age 17)", "gap(group)", "mae(every group)")


@dataclass
class Rates:
    """Counts of claims by row of the table."""

    claims: dict[str, int] = field(default_factory=dict)
    of: dict[str, int] = field(default_factory=dict)

    def add(self, name: str, claim: bool) -> None:
        """Count one case."""
        self.claims[name] = self.claims.get(name, 0) + bool(claim)
        self.of[name] = self.of.get(name, 0) + 1


def systems(n: int, people: int, seed: int, shift: float) -> list[pd.DataFrame]:
    """Simulate two systems on the same images; the second is biased by `shift` years."""
    rng = np.random.default_rng(seed)
    subject = rng.integers(0, people, n) if people else np.arange(n)
    age = rng.integers(10, 40, n).astype(float)
    shared = rng.normal(0, 2, people or n)[subject] + rng.normal(0, 2, n)
    labels = pd.DataFrame({"sample_id": np.arange(n).astype(str), "age": age, "subject": subject.astype(str)})
    labels["group"] = rng.choice(list("abcd"), people or n)[subject]
    return [labels.assign(age_pred=age + shared + rng.normal(0, 2, n) + bias) for bias in (0.0, shift)]


def differences(
    tables: Sequence[pd.DataFrame], resamples: int, seed: int, margins: Mapping[FigureKind, float]
) -> dict[str, FigureDifference]:
    """Compare the two systems."""
    options = FigureOptions(gates=(GATE,), groups=("group",), resamples=resamples, seed=seed, margins=margins)
    return compare_figures({"a": [tables[0]], "b": [tables[1]]}, {}, options).differences[0]


def evaluated(table: pd.DataFrame, resamples: int, seed: int) -> TestResult:
    """Metrics and gates of one system."""
    entry = evaluate(table, groups=["group"], resamples=resamples, seed=seed)
    gates = age_gates(table, legal_ages=(18,), gates=[GATE], groups=["group"], resamples=resamples, seed=seed)
    return entry.model_copy(update={"age_gates": gates})


def number(value: float | None) -> float:
    """Return a number; NaN for a missing one."""
    return float("nan") if value is None else value


def truths() -> tuple[dict[str, float], dict[str, float], float]:
    """Differences of the biased system, figures of the unbiased one, and its F2; of 400,000 images of as many people."""
    large = systems(400_000, 0, 10**6, SHIFT)
    found = differences(large, 0, 0, {})
    entry = evaluated(large[0], 0, 0)
    figures = {"mae": entry.overall["mae"].value, "cs5": entry.overall["cs5"].value, "gap(group)": 0.0}
    gate = entry.age_gates["18"]
    assert gate.detection is not None  # of so many images
    figures |= {"fpr(18@20)": gate.challenge["20"].fpr.value, "fpr(18@20, age 17)": gate.by_age["20"]["17"].fpr.value}
    figures["mae(every group)"] = figures["mae"]
    values = {key: float(value) for key, value in figures.items() if value is not None}
    differs = {key: abs(number(one.difference.value)) for key, one in found.items()}
    return differs, values, number(gate.detection.f2.value)


def simulate(
    design: tuple[int, int],
    truth: tuple[dict[str, float], dict[str, float], float],
    repeats: int,
    resamples: int,
    parts: tuple[str, ...] = PARTS,
) -> Rates:
    """Count the claims of one design."""
    by_key, figures, f2 = truth
    margins = {FigureKind(key.partition("(")[0]): by_key[key] for key in EQUIVALENCE}
    rates = Rates()
    for repeat in range(repeats):
        equal = systems(*design, repeat, 0.0)
        if "pairs" in parts:
            for key, difference in differences(equal, resamples, repeat, {}).items():
                if key in FIGURES:
                    rates.add(f"{key}: shown, equal systems", difference.shown)
        if "margins" in parts:
            for key, difference in differences(systems(*design, repeat, SHIFT), resamples, repeat, margins).items():
                if key in EQUIVALENCE:
                    rates.add(
                        f"{key}: equivalent, at the margin",
                        difference.margin is not None and difference.margin.equivalent,
                    )
        if "requirements" not in parts:
            continue
        entry = evaluated(equal[0], resamples, repeat)
        for key in LIMITS:
            (result,) = check_requirements(entry, [parse_requirement(f"{key}<={float(figures[key])!r}")])
            if key != "gap(group)":
                rates.add(f"{key}: false shown", result.verdict == Verdict.SHOWN.value)
            rates.add(f"{key}: false refuted", result.verdict == Verdict.REFUTED.value)
        rates.add(
            "worst group of four: shown, equal groups", (worst := worst_group(entry.gaps)) is not None and worst.shown
        )
        detection = entry.age_gates["18"].detection
        if detection is not None:
            rates.add(
                "F2 at 1 % false adults: covers", number(detection.f2.ci_low) <= f2 <= number(detection.f2.ci_high)
            )
    return rates


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=200)
    parser.add_argument("--resamples", type=int, default=200)
    parser.add_argument("--part", choices=PARTS, action="append", help="repeatable; default: all parts")
    parser.add_argument("--design", choices=DESIGNS, action="append", help="repeatable; default: all designs")
    arguments = parser.parse_args()
    truth, parts = truths(), tuple(arguments.part or PARTS)
    results = {
        name: simulate(DESIGNS[name], truth, arguments.repeats, arguments.resamples, parts)
        for name in arguments.design or DESIGNS
    }
    print(f"{arguments.repeats} repeats, {arguments.resamples} resamples; percent")
    print("| claim | " + " | ".join(results) + " |\n|---|" + "---:|" * len(results))
    for row in dict.fromkeys(key for rates in results.values() for key in rates.of):
        cells = [
            f"{100 * rates.claims[row] / rates.of[row]:.1f}" if rates.of.get(row, 0) >= arguments.repeats / 2 else "–"
            for rates in results.values()
        ]
        print(f"| {row} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
