"""Training noise: the variance of a system's results over seeds, and the difference of two trainings that it allows."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from pydantic import JsonValue
from scipy import stats

from agebench.leaderboard.schema import Record
from agebench.leaderboard.systems import System, group_into_systems

LEVEL = 0.95
# A variance of fewer seeds is too uncertain: of two, the limit is 18 standard deviations.
FEWEST_SEEDS = 3


class NoiseSource(StrEnum):
    """The records that an estimate of the training noise comes from."""

    SYSTEM = "seeds of the same system"
    POOLED = "seeds of all systems on the same data"


@dataclass(frozen=True)
class TrainingNoise:
    """The training noise of one system's MAE on one test set.

    Seeds change the initial weights, the order of the images, and which images train. A repetition with the same seed changes
    less than that, so that the noise is an upper bound.

    Attributes:
        source: the records that it was estimated from.
        std: standard deviation over seeds, years.
        freedom: degrees of freedom of that estimate.
        n_systems: number of systems that contributed.
    """

    source: NoiseSource
    std: float
    freedom: int
    n_systems: int

    @property
    def limit(self) -> float:
        """The largest difference of two trainings, years, that 95 % of pairs stay within."""
        return float(stats.t.ppf((1 + LEVEL) / 2, self.freedom)) * self.std * math.sqrt(2)


def training_noise(record: Record, records: Iterable[Record], test: str) -> TrainingNoise | None:
    """Estimate the training noise of a system's MAE.

    Args:
        record: a record of the system.
        records: records of this and of other systems.
        test: the test set.

    Returns:
        The standard deviation over the system's own seeds where it has three or more, else pooled over the systems that were
        trained and tested on the same data, with as much of the backbone frozen as the system; None where no system has two
        seeds, or the record trains nothing.
    """
    if record.metrics.train is None:
        return None
    systems = group_into_systems({entry.id: entry for entry in [*records, record]}.values())
    own = next(system for system in systems if record.id in {entry.id for entry in system.records})
    values = _seed_values(own, test)
    if len(values) >= FEWEST_SEEDS:
        return TrainingNoise(NoiseSource.SYSTEM, float(np.std(values, ddof=1)), len(values) - 1, 1)
    samples = [
        _seed_values(system, test)
        for system in systems
        if system.train == own.train
        and _frozen(system) == _frozen(own)
        and _division(system) == _division(own)
        and test in system.tests
    ]
    samples = [sample for sample in samples if len(sample) > 1]
    freedom = sum(len(sample) - 1 for sample in samples)
    if freedom < FEWEST_SEEDS - 1:
        return None
    squares = sum(float(np.var(sample)) * len(sample) for sample in samples)
    return TrainingNoise(NoiseSource.POOLED, math.sqrt(squares / freedom), freedom, len(samples))


def _seed_values(system: System, test: str) -> list[float]:
    """Return the MAE of each seed that has a test set."""
    if test not in system.tests:
        return []
    values = [entry.metric("mae").value for entry in system.test_entries(test)]
    return [value for value in values if value is not None]


def _division(system: System) -> dict[str, JsonValue]:
    """Return how the training set is limited and divided; seeds and test sets may differ."""
    data = system.records[0].settings.get("data")
    return {key: value for key, value in data.items() if key != "test"} if isinstance(data, dict) else {}


def _frozen(system: System) -> tuple[str, int]:
    """Return what the training leaves as it was: `backbone` or nothing, and how many of its layers."""
    recipe = system.records[0].settings.get("train")
    return (str(recipe.get("freeze", "")), int(recipe.get("frozen_layers", 0))) if isinstance(recipe, dict) else ("", 0)
