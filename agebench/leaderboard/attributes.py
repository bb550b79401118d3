"""Accuracy of a system on other targets than the age, such as gender."""

from collections.abc import Mapping
from dataclasses import dataclass

from agebench.leaderboard.systems import System, pool_seeds
from agebench.metrics.schema import MetricValue


@dataclass(frozen=True)
class AttributeAccuracy:
    """The accuracy of a system on one target of a test set, the mean over the seeds.

    Attributes:
        target: the target.
        n: labeled images of the first seed.
        accuracy: share of right answers.
        recalls: class -> share of its images that were given it.
        majority: share of the most frequent class, the accuracy of always answering it.
    """

    target: str
    n: int
    accuracy: MetricValue
    recalls: Mapping[str, MetricValue]
    majority: float | None


def attribute_accuracies(row: System, test: str) -> list[AttributeAccuracy]:
    """Return the accuracy on every target that all seeds answer and that the test set labels.

    Args:
        row: the system.
        test: the test set.
    """
    entries = row.test_entries(test)
    found = []
    for target, first in entries[0].tasks.items():
        by_seed = [entry.tasks[target] for entry in entries if target in entry.tasks]
        if len(by_seed) < len(entries) or not all(metrics.n for metrics in by_seed):
            continue
        recalls = {
            name: pool_seeds([metrics.classes[name].recall for metrics in by_seed])
            for name in first.classes
            if all(name in metrics.classes for metrics in by_seed)
        }
        accuracy = pool_seeds([metrics.accuracy for metrics in by_seed])
        found.append(AttributeAccuracy(target, first.n, accuracy, recalls, first.majority))
    return found
