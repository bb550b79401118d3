"""Metrics of auxiliary targets such as gender: accuracy overall, by class and by group."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from agebench.metrics.bootstrap import ClusterBootstrap, Floats, Ints
from agebench.metrics.clustered_rates import row_clusters
from agebench.metrics.confidence_intervals import exact_at_edges, metric_values
from agebench.metrics.groups import MIN_GROUP, Grouping, age_bands, groupings
from agebench.metrics.metric_specs import FigureKey
from agebench.metrics.prediction_format import PRED, canonical
from agebench.metrics.schema import ClassRecall, MetricValue, TaskGroupMetrics, TaskMetrics


def evaluate_tasks(
    table: pd.DataFrame,
    tasks: Sequence[str],
    *,
    groups: Sequence[str] = (),
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, TaskMetrics]:
    """Compute the metrics of every target: shares, each with its 95 % bootstrap interval.

    Args:
        table: predictions with the columns TASK and TASK_pred of each task, age, and where there are any subject and groups.
        tasks: names of columns.
        groups: the columns to group by, as in `evaluate`; a task's own column is shown by its classes instead.
        resamples: bootstrap samples; 0: no intervals.
        seed: of these.
    """
    table = canonical(table)
    return {name: _one(table, name, groups, resamples, seed) for name in tasks}


def _one(table: pd.DataFrame, name: str, groups: Sequence[str], resamples: int, seed: int) -> TaskMetrics:
    known = table[name].notna() if name in table else pd.Series(False, index=table.index)
    labelled = table[known].reset_index(drop=True)
    n_unknown = int((~known).sum())
    if not len(labelled):
        return TaskMetrics(n=0, n_unknown=n_unknown)
    true = labelled[name].astype("str").to_numpy(object)
    codes, classes = pd.factorize(true, sort=True)
    hits = (true == labelled[name + PRED].astype("str").to_numpy(object)).astype(np.float32)
    clusters = row_clusters(labelled)
    shown = [age_bands(labelled["age"].to_numpy(float)), *_others(labelled, name, groups)]
    every = _figures(hits, codes, list(classes), shown, clusters, resamples, seed)
    counts = np.bincount(codes)
    return TaskMetrics(
        n=len(labelled),
        n_unknown=n_unknown,
        majority=float(counts.max() / counts.sum()),
        accuracy=every["accuracy",],
        balanced_accuracy=every["balanced_accuracy",],
        classes={
            str(label): ClassRecall(n=int(counts[index]), recall=every[str(label), "recall"])
            for index, label in enumerate(classes)
        },
        groups={
            grouping.name: {
                group: TaskGroupMetrics(
                    n=int(n),
                    eligible=bool(n >= MIN_GROUP),
                    accuracy=every[grouping.name, group, "accuracy"],
                    balanced_accuracy=every[grouping.name, group, "balanced_accuracy"],
                )
                for group, n in zip(grouping.names, grouping.counts, strict=True)
            }
            for grouping in shown
        },
    )


def _others(table: pd.DataFrame, name: str, groups: Sequence[str]) -> list[Grouping]:
    return [made for made in groupings(table, groups) if name not in made.name.split("*")]


def _figures(
    hits: Floats,
    codes: Ints,
    classes: list[str],
    shown: Sequence[Grouping],
    clusters: Ints,
    resamples: int,
    seed: int,
) -> dict[FigureKey, MetricValue]:
    """All metrics by key: overall, of each class, then of each group; see `_shares` for their order."""
    of_class = np.eye(len(classes), dtype=np.float32)[codes]
    sampler = ClusterBootstrap(
        np.hstack([of_class, of_class * hits[:, None]]),
        [np.zeros(len(hits), dtype=np.int64), *(grouping.codes for grouping in shown)],
        clusters,
    )
    keys: list[FigureKey] = [("accuracy",), ("balanced_accuracy",), *((str(label), "recall") for label in classes)]
    for grouping in shown:
        for metric in ("accuracy", "balanced_accuracy"):
            keys += [(grouping.name, group, metric) for group in grouping.names]

    def statistic(sums: Sequence[Floats]) -> Floats:
        whole, balanced, recalls = _shares(sums[0])
        parts = [whole, balanced, recalls[0]]
        for of in sums[1:]:
            parts += _shares(of)[:2]
        return np.concatenate(parts)

    found = sampler.replicates(statistic, resamples=resamples, seed=seed)
    sizes = _sizes(codes, classes, shown, clusters)
    every = metric_values(keys, found, clusters=np.array(sizes))
    return {key: exact_at_edges(every[key], size) for key, size in zip(keys, sizes, strict=True)}


def _shares(sums: Floats) -> tuple[Floats, Floats, Floats]:
    """Sums (sets, 2 C, b) -> accuracy and balanced accuracy (sets, b), and each class's share recognized (sets, C, b)."""
    width = sums.shape[1] // 2
    count, hit = sums[:, :width], sums[:, width:]
    recalls = hit / count
    present = count > 0
    balanced = np.where(present, recalls, 0).sum(axis=1) / present.sum(axis=1)
    return hit.sum(axis=1) / count.sum(axis=1), balanced, recalls


def _sizes(codes: Ints, classes: list[str], shown: Sequence[Grouping], clusters: Ints) -> list[int]:
    """Return the number of clusters behind each figure, in the order of the keys."""
    sizes: list[int] = [int(clusters.max()) + 1] * 2 + Grouping("", tuple(classes), codes).cluster_counts(
        clusters
    ).tolist()
    for grouping in shown:
        sizes += grouping.cluster_counts(clusters).tolist() * 2
    return sizes
