"""How much worse a model gets as photographs get worse: every corruption at every strength, with intervals, by group."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

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
from agebench.data.samples import Samples
from agebench.errors import AgebenchError
from agebench.estimators.base import AgeEstimator
from agebench.estimators.trained import TrainedEstimator, predict_tensor
from agebench.metrics.bootstrap import ClusterBootstrap, Floats, Ints
from agebench.metrics.clustered_rates import row_clusters, subject_codes
from agebench.metrics.confidence_intervals import metric_values
from agebench.metrics.groups import MIN_GROUP, Grouping, age_bands, groupings
from agebench.metrics.metric_specs import FigureKey
from agebench.training.dataloader import FaceDataset, derive_seed, iter_batches
from agebench.utils.progress import progress

BATCH_SIZE = 128
SCHEMA = 1


@dataclass(frozen=True)
class RobustnessPredictions:
    """What a model says about N faces as they are, corrupted, and mirrored or moved a little; all in years.

    Attributes:
        clean: (N,) of the faces as they are.
        corrupted: corruption's name -> (strengths, N).
        consistency: `mirror`, `small-shift` -> (ways, N).
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
    """Predict ages for clean, corrupted, mirrored and shifted faces.

    Args:
        estimator: any estimator. A trained network gets every batch on its device once, and it is changed there.
        data: faces prepared as `estimator.input_spec` states.
        corruptions: corruptions to apply, each at all of its severities.
        seed: seed of the corruptions' random numbers.
        label: text before the progress bar.

    Raises:
        AgebenchError: the estimator returned no estimate for a face.
    """
    passes = 1 + sum(len(corruption.severities) for corruption in corruptions)
    device = estimator.device if isinstance(estimator, TrainedEstimator) else torch.device("cpu")
    ages: dict[str, list[Tensor]] = {}
    with progress(total=len(data) * passes, label=label, unit="img") as bar:
        for number, (faces, _) in enumerate(iter_batches(data, np.arange(len(data)), BATCH_SIZE, device)):
            images = to_float_images(faces)
            ages.setdefault("clean", []).append(predict_tensor(estimator, faces)[None])
            for corruption in corruptions:
                batch_seed = derive_seed(seed, corruption.name, number)
                variants = _changed(images, corruption, estimator.input_spec.crop_scale, batch_seed)
                severities = [predict_tensor(estimator, variant) for variant in variants]
                ages.setdefault(corruption.name, []).append(torch.stack(severities))
                bar.update(len(faces) * len(corruption.severities))
            for name, transforms in CONSISTENCY_TRANSFORMS.items():
                variants = (to_uint8(variant) for variant in transforms(images))
                ages.setdefault(name, []).append(torch.stack([predict_tensor(estimator, each) for each in variants]))
            bar.update(len(faces))
    joined = {name: torch.cat(parts, dim=1).cpu().double().numpy() for name, parts in ages.items()}
    failed = {name: n for name, values in joined.items() if (n := int((~np.isfinite(values)).sum()))}
    for name, n in failed.items():
        raise AgebenchError(
            f"estimator '{estimator.info.name}' returned no estimate for {n} of {joined[name].size} faces under "
            f"'{name}'; errors under corruption are compared on the same faces, so that every face needs an estimate"
        )
    corrupted = {corruption.name: joined[corruption.name] for corruption in corruptions}
    return RobustnessPredictions(joined["clean"][0], corrupted, {name: joined[name] for name in CONSISTENCY_TRANSFORMS})


def _changed(images: Tensor, corruption: Corruption, coverage: float, seed: int) -> Iterator[Tensor]:
    """The batch at every strength; each strength draws the same, so that they differ in nothing else."""
    for strength in corruption.severities:
        generator = torch.Generator().manual_seed(seed)
        scene = CorruptionContext(coverage, torch.rand(len(images), generator=generator), generator)
        yield to_uint8(corruption.change(images, strength, scene))


def robustness_metrics(
    answers: RobustnessPredictions,
    samples: Samples,
    corruptions: Sequence[Corruption] = CORRUPTIONS,
    *,
    resamples: int = 1000,
    seed: int = 0,
    minimum: int = MIN_GROUP,
) -> dict[str, Any]:
    """Answers -> figures with 95 % intervals, ready for JSON; subjects are resampled where they are known, else images.

    `relative` is the mean MAE over the strengths divided by the MAE on the faces as they are: 1 is a model that minds
    nothing. `summary.relative_error` is its mean over all corruptions (after Hendrycks and Dietterich 2019, "Benchmarking
    neural network robustness to common corruptions and perturbations", who divide by another network's error). It falls
    below 1 where corruptions happen to pull a biased model's ages towards the truth; `summary.change`, the mean absolute
    change of the answers in years, does not.

    Args:
        answers: as `ask` gives them.
        samples: whose faces were asked.
        corruptions: those that were asked.
        resamples: bootstrap samples; 0: no intervals.
        seed: of these.
        minimum: groups with fewer images are shown, but not ranked.
    """
    table = samples.table
    shown = [age_bands(table["age"].to_numpy(float)), *groupings(table, samples.groups)]
    plan = _Plan(corruptions)
    whose, clusters = subject_codes(table), row_clusters(table)
    sets = [np.zeros(len(table), dtype=np.int64), *(grouping.codes for grouping in shown)]
    features = plan.features(answers, table["age"].to_numpy(float))
    found = ClusterBootstrap(features, sets, clusters).replicates(plan.statistic, resamples=resamples, seed=seed)
    every = iter(metric_values(plan.keys(1 + sum(len(grouping.names) for grouping in shown)), found).values())
    whole = plan.entry(every)
    consistency = {name: whole["conditions"].pop(name) for name in CONSISTENCY_TRANSFORMS}
    return {
        "schema": SCHEMA,
        "n": len(table),
        "subjects": int(table["subject"].nunique()) if whose is not None else None,
        "summary": {
            "relative_error": whole["relative"],
            "change": whole["change"],
            "corruptions": [corruption.name for corruption in corruptions],
            "strengths": max(len(corruption.severities) for corruption in corruptions),
        },
        "clean": whole["clean"],
        "corruptions": {
            corruption.name: {"title": corruption.title, "strengths": list(corruption.severities)}
            | whole["conditions"][corruption.name]
            for corruption in corruptions
        },
        "consistency": {name: {"change": entry["change"]} for name, entry in consistency.items()},
        "groups": {grouping.name: _groups(grouping, plan, every, clusters, minimum) for grouping in shown},
        "method": {
            "interval": "bca",
            "level": 0.95,
            "resamples": int(found.resampled.shape[1]),
            "resampled": "subjects" if whose is not None else "images",
            "seed": seed,
        },
    }


def _groups(grouping: Grouping, plan: "_Plan", every: Iterator[Any], clusters: Ints, minimum: int) -> dict[str, Any]:
    made = {}
    for name, n, n_clusters in zip(grouping.names, grouping.counts, grouping.cluster_counts(clusters), strict=True):
        entry = plan.entry(every)
        if n_clusters < 2:
            entry = _without_intervals(entry)  # one person alone shows no spread
        for consistency in CONSISTENCY_TRANSFORMS:
            del entry["conditions"][consistency]
        made[name] = {
            "n": int(n),
            "ranked": bool(n >= minimum),
            "relative": entry["relative"],
            "clean": entry["clean"],
            "corruptions": {
                key: {part: of[part] for part in ("relative", "mae", "bias")} for key, of in entry["conditions"].items()
            },
        }
    return made


def _without_intervals(entry: Any) -> Any:
    """The figures of an entry, their values alone."""
    if isinstance(entry, list):
        return [_without_intervals(of) for of in entry]
    if "value" in entry:
        return entry | {"low": None, "high": None}
    return {key: _without_intervals(of) for key, of in entry.items()}


class _Plan:
    """Which figures there are of every set of images, in which order, and how sums become figures."""

    def __init__(self, corruptions: Sequence[Corruption]) -> None:
        self.graded = {corruption.name: len(corruption.severities) for corruption in corruptions}
        self.conditions = 1 + sum(self.graded.values())  # the clean one first
        self.per_set = 3 * self.conditions + len(CONSISTENCY_TRANSFORMS) + len(self.graded) + 2

    def features(self, answers: RobustnessPredictions, age: Floats) -> Floats:
        """(N, 1 + 3 * conditions + 2): one, then |error|, error and |change| by condition, then consistency."""
        ages = np.concatenate([answers.clean[None], *answers.corrupted.values()])
        error, change = ages - age, np.abs(ages - answers.clean)
        steady = [np.abs(of - answers.clean).mean(axis=0, keepdims=True) for of in answers.consistency.values()]
        made: Floats = np.concatenate([np.ones((1, len(age))), np.abs(error), error, change, *steady]).T
        return made

    def statistic(self, sums: Sequence[Floats]) -> Floats:
        """Figures (sets * per_set, b) from the sums (sets, F, b) of each grouping."""
        return np.concatenate([self._figures(of).reshape(-1, of.shape[2]) for of in sums])

    def _figures(self, sums: Floats) -> Floats:
        means = sums[:, 1:] / sums[:, :1]
        mae = means[:, : self.conditions]
        ends = 1 + np.cumsum([0, *self.graded.values()])
        over_strengths = [mae[:, start:stop].mean(axis=1, keepdims=True) for start, stop in itertools.pairwise(ends)]
        relative = np.concatenate(over_strengths, axis=1) / mae[:, :1]
        change = means[:, 2 * self.conditions + 1 : 3 * self.conditions].mean(axis=1, keepdims=True)
        made: Floats = np.concatenate([means, relative, relative.mean(axis=1, keepdims=True), change], axis=1)
        return made

    def keys(self, sets: int) -> list[FigureKey]:
        """Return one key per figure, in the order of `statistic`."""
        count = self.conditions
        one = [*["mae"] * count, *["bias"] * count, *["mae"] * (count + len(CONSISTENCY_TRANSFORMS))]
        one += [*["ratio"] * (len(self.graded) + 1), "mae"]
        return [(str(set_idx), str(idx), metric) for set_idx in range(sets) for idx, metric in enumerate(one)]

    def entry(self, every: Iterator[Any]) -> dict[str, Any]:
        """The next set's figures: relative, change, clean, conditions (corruption -> relative, mae, bias, change by strength)."""
        found = [next(every) for _ in range(self.per_set)]
        count = self.conditions
        parts = {"mae": found[:count], "bias": found[count : 2 * count], "change": found[2 * count : 3 * count]}
        rest = found[3 * count :]
        conditions: dict[str, Any] = {name: {"change": rest.pop(0)} for name in CONSISTENCY_TRANSFORMS}
        start = 1
        for name, strengths in self.graded.items():
            conditions[name] = {"relative": rest.pop(0)}
            conditions[name] |= {part: of[start : start + strengths] for part, of in parts.items()}
            start += strengths
        clean = {"mae": parts["mae"][0], "bias": parts["bias"][0]}
        return {"relative": rest[0], "change": rest[1], "clean": clean, "conditions": conditions}


def to_frame(answers: RobustnessPredictions, samples: Samples) -> pd.DataFrame:
    """One row an image: sample_id, age, `clean`, and a column `<corruption>-<strength's place>` each; years."""
    made = {"sample_id": samples.table["sample_id"], "age": samples.table["age"], "clean": answers.clean}
    for name, ages in [*answers.corrupted.items(), *answers.consistency.items()]:
        made |= {f"{name}-{place}": of for place, of in enumerate(ages, start=1)}
    return pd.DataFrame(made)
