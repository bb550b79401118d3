"""`--limit`: a seeded, stratified subset that is recorded, marked, and never ranked."""

import numpy as np
import pandas as pd
import pytest

from agebench.data.samples import Samples, validate_samples
from agebench.leaderboard.schema import parse_record
from agebench.leaderboard.systems import excludes
from agebench.metrics.groups import age_bands
from agebench.runs.datasets import limit_samples


@pytest.fixture
def samples() -> Samples:
    ages = np.r_[np.full(500, 5.0), np.full(300, 30.0), np.full(200, 70.0)]
    ids = [f"s{number:04}" for number in range(len(ages))]
    return validate_samples(pd.DataFrame({"sample_id": ids, "path": ids, "age": ages}))


def test_subset_keeps_the_shares_of_age_bands(samples: Samples) -> None:
    subset = limit_samples(samples, 100, name="a")
    counts = np.bincount(age_bands(subset.table["age"].to_numpy(float)).codes)
    assert len(subset) == 100
    assert np.abs(counts[counts > 0] - [50, 30, 20]).max() <= 1
    assert set(subset.rejected["code"]) == {"excluded"}
    assert len(subset.rejected) == 900


def test_subset_depends_on_seed_and_not_on_order(samples: Samples) -> None:
    shuffled = Samples(samples.table.sample(frac=1, random_state=3).reset_index(drop=True), samples.groups)
    ids = [set(limit_samples(part, 100, name="a").table["sample_id"]) for part in (samples, shuffled)]
    assert ids[0] == ids[1]
    assert ids[0] != set(limit_samples(samples, 100, name="a", seed=1).table["sample_id"])
    assert ids[0] != set(limit_samples(samples, 100, name="b").table["sample_id"])


@pytest.mark.parametrize("limit", [0, 1000, 2000])
def test_a_large_or_no_limit_keeps_all(limit: int, samples: Samples) -> None:
    assert limit_samples(samples, limit, name="a") is samples


def test_a_limited_record_is_never_ranked() -> None:
    limited, whole = (
        parse_record(
            {
                "id": "a",
                "config": {"data": data},
                "model": {"name": "m", "head": "coral"},
                "metrics": {"train": "utk", "tests": {}},
                "sha256": "",
                "predictions": {},
            }
        )
        for data in ({"limit": 100}, {})
    )
    assert excludes(limited)
    assert not excludes(whole)
