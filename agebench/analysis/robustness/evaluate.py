"""Robustness of an estimator: errors under each corruption and strength, with intervals, overall and by group."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from agebench.analysis.robustness.corruptions import (
    CONSISTENCY_TRANSFORMS,
    CORRUPTIONS,
    Corruption,
    CorruptionContext,
    to_float_images,
    to_uint8,
)
from agebench.analysis.robustness.schema import (
    CleanMetrics,
    ConsistencyMetrics,
    CorruptionMetrics,
    CorruptionSummary,
    GroupRobustness,
    OverallCorruptionMetrics,
    RobustnessFile,
    RobustnessMethod,
)
from agebench.data.samples import Samples
from agebench.errors import AgebenchError
from agebench.estimators.base import AgeEstimator, InputSpec
from agebench.estimators.trained import TrainedEstimator, predict_tensor
from agebench.metrics.bootstrap import ClusterBootstrap, Floats
from agebench.metrics.clustered_rates import row_clusters, subject_codes
from agebench.metrics.confidence_intervals import metric_values
from agebench.metrics.groups import MIN_GROUP, Grouping, age_bands, groupings
from agebench.metrics.metric_specs import FigureKey
from agebench.metrics.point import has_ranges
from agebench.metrics.schema import AnalysisMetricValue
from agebench.runs.estimators import network_of
from agebench.training.dataloader import FaceDataset, derive_seed, iter_batches
from agebench.utils.progress import progress

BATCH_SIZE = 128


@dataclass(frozen=True)
class RobustnessPredictions:
    """Predicted ages of N faces in years: unchanged, corrupted, and under consistency transforms.

    Attributes:
        clean: (N,) predictions for the unchanged faces.
        corrupted: (strengths, N) predictions by name of the corruption.
        consistency: (variants, N) predictions by consistency transform: `mirror` and `small-shift`.
    """

    clean: Floats
    corrupted: dict[str, Floats]
    consistency: dict[str, Floats]


def predict_corrupted(
    estimator: AgeEstimator,
    data: FaceDataset,
    corruptions: Sequence[Corruption] = CORRUPTIONS,
    *,
    seed: int = 0,
    label: str = "",
) -> RobustnessPredictions:
    """Predict the ages of unchanged and corrupted faces.

    Each batch of faces is corrupted on the estimator's device.

    Args:
        estimator: any estimator.
        data: the faces, prepared as `estimator.input_spec` states.
        corruptions: the corruptions to apply, each at all its strengths.
        seed: the seed of the corruptions.
        label: the label of the progress bar.

    Returns:
        The predictions.

    Raises:
        AgebenchError: the estimator returned no estimate for a face.
    """
    passes = 1 + sum(len(corruption.severities) for corruption in corruptions)
    estimator = network_of(estimator) or estimator
    device = estimator.device if isinstance(estimator, TrainedEstimator) else torch.device("cpu")
    batches: dict[str, list[Tensor]] = {}
    with progress(total=len(data) * passes, label=label, unit="img") as bar:
        for number, (faces, _) in enumerate(iter_batches(data, np.arange(len(data)), BATCH_SIZE, device)):
            images = to_float_images(faces)
            batches.setdefault("clean", []).append(predict_tensor(estimator, faces)[None])
            for corruption in corruptions:
                batch_seed = derive_seed(seed, corruption.name, number)
                corrupted_faces = _corrupt(images, corruption, estimator.input_spec, batch_seed)
                ages = [predict_tensor(estimator, changed) for changed in corrupted_faces]
                batches.setdefault(corruption.name, []).append(torch.stack(ages))
                bar.update(len(faces) * len(corruption.severities))
            for name, make_variants in CONSISTENCY_TRANSFORMS.items():
                ages = [predict_tensor(estimator, to_uint8(variant)) for variant in make_variants(images)]
                batches.setdefault(name, []).append(torch.stack(ages))
            bar.update(len(faces))
    predictions = {name: torch.cat(ages, dim=1).cpu().double().numpy() for name, ages in batches.items()}
    for name, values in predictions.items():
        if n_failed := int((~np.isfinite(values)).sum()):
            raise AgebenchError(
                f"estimator '{estimator.info.name}' returned no estimate for {n_failed} of {values.size} faces under "
                f"'{name}'; errors under corruption are compared on the same faces, so that every face needs an estimate"
            )
    return RobustnessPredictions(
        predictions["clean"][0],
        {corruption.name: predictions[corruption.name] for corruption in corruptions},
        {name: predictions[name] for name in CONSISTENCY_TRANSFORMS},
    )


def _corrupt(images: Tensor, corruption: Corruption, framing: InputSpec, seed: int) -> Iterator[Tensor]:
    """Yield the batch at each strength; all strengths use the same random numbers."""
    for strength in corruption.severities:
        generator = torch.Generator().manual_seed(seed)
        draws = torch.rand(len(images), generator=generator)
        context = CorruptionContext(framing.crop_scale, draws, generator, framing.offset)
        yield to_uint8(corruption.change(images, strength, context))


def robustness_metrics(
    predictions: RobustnessPredictions,
    samples: Samples,
    corruptions: Sequence[Corruption] = CORRUPTIONS,
    *,
    resamples: int = 1000,
    seed: int = 0,
    minimum: int = MIN_GROUP,
    test: str = "",
) -> RobustnessFile:
    """Compute metrics with 95 % intervals; subjects are resampled if they are known, else images.

    `relative` is the mean MAE over the strengths divided by the MAE on the unchanged faces; 1 means no effect.
    `summary.relative_error` is its mean over all corruptions (after Hendrycks and Dietterich 2019, "Benchmarking neural
    network robustness to common corruptions and perturbations", who divide by another network's error). It is below 1 if
    corruptions shift the ages of a biased model towards the truth; `summary.change`, the mean absolute change of the
    predictions in years, is not affected by this.

    Args:
        predictions: the result of `predict_corrupted`.
        samples: the images of the faces, with their labels.
        corruptions: the corruptions that were applied.
        resamples: the number of bootstrap resamples; 0 for no intervals.
        seed: the seed of the bootstrap.
        minimum: the number of images below which a group is listed but not ranked.
        test: name of the dataset.

    Returns:
        The metrics.
    """
    table = samples.table
    group_sets = [age_bands(table["age"].to_numpy(float)), *groupings(table, samples.groups)]
    layout = _MetricLayout(corruptions)
    has_subjects, clusters = subject_codes(table) is not None, row_clusters(table)
    codes = [np.zeros(len(table), dtype=np.int64), *(grouping.codes for grouping in group_sets)]
    features = layout.features(predictions, table["age"].to_numpy(float))
    bootstrap = ClusterBootstrap(features, codes, clusters).replicates(layout.statistic, resamples=resamples, seed=seed)
    behind = [int(clusters.max()) + 1]
    behind += [int(count) for grouping in group_sets for count in grouping.cluster_counts(clusters)]
    every = metric_values(layout.keys(len(behind)), bootstrap, clusters=np.repeat(behind, layout.per_set))
    values = (
        AnalysisMetricValue(value=metric.value, ci_low=metric.ci_low, ci_high=metric.ci_high)
        for metric in every.values()
    )
    overall = layout.take(values)
    metrics = RobustnessFile(
        test=test,
        n=len(table),
        subjects=int(table["subject"].nunique()) if has_subjects else None,
        summary=CorruptionSummary(
            relative_error=overall.relative,
            change=overall.change,
            corruptions=[corruption.name for corruption in corruptions],
            strengths=max(len(corruption.severities) for corruption in corruptions),
        ),
        clean=overall.clean,
        corruptions={
            corruption.name: OverallCorruptionMetrics(
                title=corruption.title,
                strengths=list(corruption.severities),
                change=overall.changes[corruption.name],
                **dict(overall.corruptions[corruption.name]),
            )
            for corruption in corruptions
        },
        consistency=overall.consistency,
        groups={grouping.name: _group_entries(grouping, layout, values, minimum) for grouping in group_sets},
        method=RobustnessMethod(
            interval="bca",
            level=0.95,
            resamples=int(bootstrap.resampled.shape[1]),
            resampled="subjects" if has_subjects else "images",
            seed=seed,
        ),
    )
    return metrics.model_copy(update={"label_ranges": True}) if has_ranges(table) else metrics


def _group_entries(
    grouping: Grouping, layout: "_MetricLayout", values: Iterator[AnalysisMetricValue], minimum: int
) -> dict[str, GroupRobustness]:
    entries = {}
    for name, n in zip(grouping.names, grouping.counts, strict=True):
        metrics = layout.take(values)
        entries[name] = GroupRobustness(
            n=int(n),
            ranked=bool(n >= minimum),
            relative=metrics.relative,
            clean=metrics.clean,
            corruptions=metrics.corruptions,
        )
    return entries


@dataclass(frozen=True)
class _SetMetrics:
    """The metrics of one set of images.

    Attributes:
        relative: mean relative error over the corruptions.
        change: mean absolute change of the predictions, years.
        clean: errors on the unchanged faces.
        corruptions: errors by corruption.
        changes: mean absolute change of the predictions in years, by corruption and strength.
        consistency: effect of the consistency transforms.
    """

    relative: AnalysisMetricValue
    change: AnalysisMetricValue
    clean: CleanMetrics
    corruptions: dict[str, CorruptionMetrics]
    changes: dict[str, list[AnalysisMetricValue]]
    consistency: dict[str, ConsistencyMetrics]


class _MetricLayout:
    """The metrics of a set of images, their order, and their computation from sums over images."""

    def __init__(self, corruptions: Sequence[Corruption]) -> None:
        self.strengths = {corruption.name: len(corruption.severities) for corruption in corruptions}
        self.conditions = 1 + sum(self.strengths.values())  # the unchanged faces are the first condition
        self.per_set = 3 * self.conditions + len(CONSISTENCY_TRANSFORMS) + len(self.strengths) + 2

    def features(self, predictions: RobustnessPredictions, age: Floats) -> Floats:
        """Return the features to sum, (N, 1 + 3 * conditions + 2).

        Args:
            predictions: the predicted ages.
            age: (N,) the true ages.

        Returns:
            The columns: 1; |error|, error and |change| by condition; the mean |change| by consistency transform.
        """
        clean = predictions.clean
        ages = np.concatenate([clean[None], *predictions.corrupted.values()])
        error, change = ages - age, np.abs(ages - clean)
        consistency = [
            np.abs(variants - clean).mean(axis=0, keepdims=True) for variants in predictions.consistency.values()
        ]
        features: Floats = np.concatenate([np.ones((1, len(age))), np.abs(error), error, change, *consistency]).T
        return features

    def statistic(self, sums: Sequence[Floats]) -> Floats:
        """Compute the metrics (sets * per_set, b) from the sums (sets, F, b) of each grouping."""
        return np.concatenate([self._metrics(sum_).reshape(-1, sum_.shape[2]) for sum_ in sums])

    def _metrics(self, sums: Floats) -> Floats:
        means = sums[:, 1:] / sums[:, :1]
        mae = means[:, : self.conditions]
        ends = 1 + np.cumsum([0, *self.strengths.values()])
        over_strengths = [mae[:, start:stop].mean(axis=1, keepdims=True) for start, stop in itertools.pairwise(ends)]
        relative = np.concatenate(over_strengths, axis=1) / mae[:, :1]
        change = means[:, 2 * self.conditions + 1 : 3 * self.conditions].mean(axis=1, keepdims=True)
        metrics: Floats = np.concatenate([means, relative, relative.mean(axis=1, keepdims=True), change], axis=1)
        return metrics

    def keys(self, sets: int) -> list[FigureKey]:
        """Return one key per metric value, in the order of `statistic`."""
        count = self.conditions
        one = [*["mae"] * count, *["bias"] * count, *["mae"] * (count + len(CONSISTENCY_TRANSFORMS))]
        one += [*["ratio"] * (len(self.strengths) + 1), "mae"]
        return [(str(set_idx), str(idx), metric) for set_idx in range(sets) for idx, metric in enumerate(one)]

    def take(self, values: Iterator[AnalysisMetricValue]) -> _SetMetrics:
        """Consume the metric values of one set of images.

        Args:
            values: the metric values in the order of `statistic`.
        """
        set_values = list(itertools.islice(values, self.per_set))
        count = self.conditions
        mae, bias, change = (set_values[start * count : (start + 1) * count] for start in range(3))
        rest = iter(set_values[3 * count :])
        consistency = {name: ConsistencyMetrics(change=next(rest)) for name in CONSISTENCY_TRANSFORMS}
        corruptions, changes = {}, {}
        start = 1
        for name, strengths in self.strengths.items():
            inside = slice(start, start + strengths)
            corruptions[name] = CorruptionMetrics(relative=next(rest), mae=mae[inside], bias=bias[inside])
            changes[name] = change[inside]
            start += strengths
        clean = CleanMetrics(mae=mae[0], bias=bias[0])
        return _SetMetrics(next(rest), next(rest), clean, corruptions, changes, consistency)


def to_frame(predictions: RobustnessPredictions, samples: Samples) -> pd.DataFrame:
    """Convert predictions to a table.

    Args:
        predictions: the predicted ages in years.
        samples: the images of the faces, with their labels.

    Returns:
        One row per image: `sample_id`, `age`, `clean`, and one column `<corruption>-<number of the strength>` per condition.
    """
    columns = {"sample_id": samples.table["sample_id"], "age": samples.table["age"], "clean": predictions.clean}
    for name, ages in [*predictions.corrupted.items(), *predictions.consistency.items()]:
        columns |= {f"{name}-{number}": condition for number, condition in enumerate(ages, start=1)}
    return pd.DataFrame(columns)
