"""Coverage of the gap's interval where all groups are equal: the pair is selected, so 0 must be inside in 95 %.

    python benchmarks/statistics/selected_gap.py [--repeats 200] [--resamples 500]

`pair` is the coverage of the worst pair's interval at equal ages, `all pairs` the simultaneous coverage of all pairs in
all groupings (every group is in the set of possibly worst groups), `raw` the latter without strata.
"""

import argparse
from collections.abc import Mapping
from unittest import mock

import numpy as np
import pandas as pd

from agebench.metrics import gaps
from agebench.metrics.evaluate import evaluate
from agebench.metrics.schema import GroupDifference

GROUPS = 8


def predictions(design: str, seed: int) -> pd.DataFrame:
    """Simulate a test set on which 8 groups, and two halves, do not differ."""
    rng = np.random.default_rng(seed)
    n = {"n=300": 300, "n=2000": 2000, "n=300 t3": 300, "82 people": 1002, "82 people t3": 1002}[design]
    people = rng.integers(0, 82, n) if "people" in design else np.arange(n)
    age = rng.integers(20, 40, people.max() + 1)[people] + rng.integers(0, 5, n)
    noise = rng.standard_t(3, n) if "t3" in design else rng.normal(size=n)
    own = rng.normal(0, 1, people.max() + 1)[people] if "people" in design else 0
    error = (noise + own) * (2 + age / 20)
    table = pd.DataFrame({"sample_id": np.arange(n).astype(str), "age": age.astype(float), "age_pred": age + error})
    if "people" in design:
        table["subject"] = people.astype(str)
    table["group"] = (people % GROUPS).astype(str)
    table["half"] = np.where(rng.permutation(people.max() + 1)[people] % 2 == 0, "a", "b")
    return table


def covered(design: str, seed: int, resamples: int) -> tuple[bool, bool, bool]:
    """Return whether the pair's interval holds 0 at equal ages, all pairs' intervals do, and all raw pairs' do."""
    with mock.patch.object(gaps, "group_permutation_test", return_value=1.0):  # not needed here, and slow
        found = evaluate(predictions(design, seed), groups=["group", "half"], resamples=resamples, seed=seed).gaps
    even = {name: gap.age_standardized or gap for name, gap in found.items()}
    sizes = {"group": GROUPS, "half": 2}

    def every(parts: Mapping[str, GroupDifference]) -> bool:
        ranked = {name: len(part.excess or ()) for name, part in parts.items()}
        assert all(ranked[name] <= sizes[name] for name in ranked)
        return all(len(part.worst_groups or ()) == ranked[name] for name, part in parts.items())

    return (even["group"].difference.ci_low or 0) <= 0, every(even), every(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=200)
    parser.add_argument("--resamples", type=int, default=500)
    arguments = parser.parse_args()
    print(f"{arguments.repeats} repeats, {arguments.resamples} resamples; coverage, %")
    print("| design | pair | all pairs | all pairs, raw |\n|---|---:|---:|---:|")
    for design in ("n=300", "n=300 t3", "n=2000", "82 people", "82 people t3"):
        held = [covered(design, seed, arguments.resamples) for seed in range(arguments.repeats)]
        print(f"| {design} | " + " | ".join(f"{100 * rate:.1f}" for rate in np.mean(held, axis=0)) + " |", flush=True)


if __name__ == "__main__":
    main()
