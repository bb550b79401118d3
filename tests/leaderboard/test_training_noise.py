from typing import Any

import numpy as np
import pytest

from agebench.leaderboard.schema import Record
from agebench.leaderboard.training_noise import NoiseSource, TrainingNoise, training_noise


def record(
    head: str, seed: int, mae: float, *, train: str | None = "utk", freeze: str = "", test_share: float = 0.2
) -> Record:
    entry: dict[str, Any] = {
        "n": 100,
        "overall": {"mae": {"value": mae, "low": mae - 1, "high": mae + 1}},
        "groups": {},
    }
    content = {
        "id": f"{head}-{freeze}-{seed}",
        "sha256": "",
        "predictions": {},
        "config": {"seed": seed, "head": head, "train": {"freeze": freeze}, "data": {"test_share": test_share}},
        "model": {"name": "m", "head": head},
        "metrics": {"train": train, "tests": {"fgnet": entry}},
    }
    return Record.from_json(content)


def test_three_seeds_of_the_system_tell_its_noise() -> None:
    records = [record("a", seed, mae) for seed, mae in enumerate((6.0, 6.5, 7.0))]
    others = [record("b", seed, mae) for seed, mae in enumerate((5.0, 9.0))]
    noise = training_noise(records[0], [*records, *others], "fgnet")
    assert noise is not None
    assert (noise.source, noise.freedom, noise.n_systems) == (NoiseSource.SYSTEM, 2, 1)
    assert noise.std == pytest.approx(0.5)
    assert noise.limit == pytest.approx(4.3027 * 0.5 * np.sqrt(2), rel=1e-4)


def test_fewer_seeds_are_pooled_with_systems_on_the_same_data() -> None:
    mine = record("a", 0, 6.0)
    others = [record("b", seed, mae) for seed, mae in enumerate((5.0, 6.0))]
    others += [record("c", seed, mae) for seed, mae in enumerate((8.0, 8.0, 8.6))]
    elsewhere = [record("d", seed, mae, train="fgnet") for seed, mae in enumerate((1.0, 99.0))]
    frozen = [record("e", seed, mae, freeze="backbone") for seed, mae in enumerate((1.0, 99.0))]
    divided = [record("f", seed, mae, test_share=0.9) for seed, mae in enumerate((1.0, 99.0))]
    noise = training_noise(mine, [mine, *others, *elsewhere, *frozen, *divided], "fgnet")
    assert noise is not None
    assert (noise.source, noise.freedom, noise.n_systems) == (NoiseSource.POOLED, 3, 2)
    assert noise.std == pytest.approx(np.sqrt((0.5 + 0.24) / 3))


def test_nothing_is_told_without_seeds_or_without_training() -> None:
    mine = record("a", 0, 6.0)
    assert training_noise(mine, [mine, record("b", 0, 5.0)], "fgnet") is None
    external = record("x", 0, 6.0, train=None)
    assert training_noise(external, [external, *(record("a", seed, 6.0 + seed) for seed in range(4))], "fgnet") is None


@pytest.mark.parametrize("n_seeds", [3, 5])
def test_the_limit_holds_95_percent_of_repetitions(n_seeds: int) -> None:
    """20,000 repetitions: the estimate from n seeds, and the difference of two further trainings."""
    rng = np.random.default_rng(0)
    seeds = rng.normal(5, 0.3, (20_000, n_seeds))
    pairs = rng.normal(5, 0.3, (20_000, 2))
    per_std = TrainingNoise(NoiseSource.SYSTEM, 1.0, n_seeds - 1, 1).limit
    is_within = np.abs(pairs[:, 0] - pairs[:, 1]) <= per_std * seeds.std(axis=1, ddof=1)
    assert is_within.mean() == pytest.approx(0.95, abs=0.006)
