"""Error rates of the gaps in bias between groups, where bias depends on age in the same way in all groups.

    python benchmarks/statistics/bias_gap.py [--repeats 400] [--resamples 200] [--design n=400]

Estimates are pulled toward 40 years by a third, errors grow with age, and the first group is ten years younger. Two groupings, of
two and of four groups. `shown`: some grouping has a corrected p below 5 % (nominal 5 %). `interval`: some interval excludes 0 (at
most 5 %). `raw`: the same test without equal ages, for comparison. `power`: one group of four is estimated 1 year higher.
"""

import argparse

import numpy as np
import pandas as pd

from agebench.metrics.evaluate import evaluate
from agebench.metrics.fairness import group_permutation_test
from agebench.metrics.groups import grouping

DESIGNS = {"n=400": (400, 0), "n=2,000": (2000, 0), "100 people, 400": (400, 100), "300 people, 2,000": (2000, 300)}
LEVEL = 0.05


def predictions(n: int, people: int, seed: int, extra: float = 0.0) -> pd.DataFrame:
    """Simulate one system whose first group is younger; `extra` years are added to the estimates of the group `a`."""
    rng = np.random.default_rng(seed)
    units = people or n
    subject = rng.integers(0, units, n) if people else np.arange(n)
    side = rng.choice(["young", "old"], units)[subject]
    age = np.clip(rng.normal(np.where(side == "young", 35, 45), 12, n), 1, 90).round()
    kind = rng.choice(list("abcd"), units)[subject]
    errors = rng.normal(0, 2, units)[subject] * bool(people) + rng.normal(0, 1, n) * (2 + age / 20)
    estimate = age + (40 - age) / 3 + errors + extra * (kind == "a")
    table = {"sample_id": np.arange(n).astype(str), "age": age, "age_pred": estimate, "side": side, "kind": kind}
    return pd.DataFrame(table | ({"subject": subject.astype(str)} if people else {}))


def claims(table: pd.DataFrame, resamples: int, seed: int) -> tuple[bool, bool]:
    """Return whether some grouping has a corrected p below 5 %, and whether some interval excludes 0."""
    gaps = evaluate(table, groups=["side", "kind"], resamples=resamples, seed=seed).gaps
    found = [gap.bias for gap in gaps.values() if gap.bias is not None]
    shown = any(bias.p_holm is not None and bias.p_holm < LEVEL for bias in found)
    return shown, any((bias.difference.ci_low or 0.0) > 0 for bias in found)


def raw_claim(table: pd.DataFrame, permutations: int, seed: int) -> bool:
    """Return whether the test of the young and the old without equal ages shows a difference."""
    sides = grouping(table, "side")
    clusters = table["subject"].astype(int).to_numpy() if "subject" in table else np.arange(len(table))
    errors = (table["age_pred"] - table["age"]).to_numpy()
    p = group_permutation_test(errors, sides, np.arange(2), clusters, signed=True, permutations=permutations, seed=seed)
    return p < LEVEL


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=400)
    parser.add_argument("--resamples", type=int, default=200)
    parser.add_argument("--design", choices=DESIGNS, action="append", help="repeatable; default: all designs")
    arguments = parser.parse_args()
    print(f"{arguments.repeats} repeats, {arguments.resamples} resamples; percent")
    print("| design | shown | interval | raw | power |\n|---|---:|---:|---:|---:|")
    for name in arguments.design or DESIGNS:
        design, counts = DESIGNS[name], np.zeros(4)
        for repeat in range(arguments.repeats):
            table = predictions(*design, repeat)
            planted = predictions(*design, repeat, extra=1.0)
            counts += [
                *claims(table, arguments.resamples, repeat),
                raw_claim(table, arguments.resamples, repeat),
                claims(planted, arguments.resamples, repeat)[0],
            ]
        print(f"| {name} | " + " | ".join(f"{100 * count / arguments.repeats:.1f}" for count in counts) + " |")


if __name__ == "__main__":
    main()
