"""One test without training: the same datasets, faces, metrics and report as those of a run."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from agebench.config.evaluate import ExternalConfig, PublishedConfig
from agebench.data.faces.cache import FaceCache
from agebench.data.samples import Samples
from agebench.errors import UserError
from agebench.estimators.external.photos import Photos
from agebench.metrics.age_gates import age_gates
from agebench.metrics.auxiliary_targets import evaluate_tasks
from agebench.metrics.evaluate import evaluate
from agebench.metrics.prediction_io import validate_file
from agebench.metrics.schema import MetricsFile, TestResult
from agebench.metrics.shift import explain_shift
from agebench.models.estimates import AgeEstimates
from agebench.registry.catalog import Catalog
from agebench.runs.artifacts import (
    faces_metadata,
    predictions_table,
    save_predictions,
    save_tests,
    tests_metadata,
)
from agebench.runs.datasets import open_run_data
from agebench.runs.evaluation import RunResult, evaluate_and_report
from agebench.runs.gates import configured_gates
from agebench.runs.manifest import Manifest, ModelRecord
from agebench.runs.provenance import input_digests
from agebench.runs.run import prepare_faces
from agebench.runs.run_dir import RunDir
from agebench.training.device import hardware_info
from agebench.types import RejectReason


@dataclass(frozen=True)
class EvaluatedModel:
    """A model under test.

    Attributes:
        record: its entry in the manifest.
        estimate: (dataset, its prepared faces, the samples to predict) -> estimates.
        contamination: dataset -> whether the model may have been trained on it: `known`, `validated`, `unknown` or
            `none stated`.
        classes: auxiliary target -> its classes.
        estimate_photos: (dataset, its photographs) -> estimates, of a model that detects faces itself; None: it does not.
    """

    record: ModelRecord
    estimate: Callable[[str, FaceCache, Samples], AgeEstimates]
    contamination: Callable[[str], str]
    classes: Mapping[str, Sequence[str]] = field(default_factory=dict)
    estimate_photos: Callable[[str, Photos], AgeEstimates] | None = None


def evaluate_model(
    config: ExternalConfig | PublishedConfig,
    model: EvaluatedModel,
    catalog: Catalog,
    folder: RunDir,
    device: torch.device,
) -> RunResult:
    """Test a model on every usable image of each dataset.

    Args:
        config: the test's settings.
        model: the model under test.
        catalog: the cards of the datasets.
        folder: the test's folder.
        device: where the model computes.

    Raises:
        UserError: a dataset is missing, or the model's estimates are no ages.
        AgebenchError: the model failed.
    """
    folder.begin(config)
    with folder.timed("read_s"):
        data = open_run_data(config, catalog)
    with folder.timed("faces_s"):
        faces = {name: prepare_faces(config, dataset, data.samples[name]) for name, dataset in data.datasets.items()}
    if model.estimate_photos is not None:
        faces = {name: replace(cache, mode="photo") for name, cache in faces.items()}
    tests = {name: drop_rejected(name, samples, faces[name]) for name, samples in data.samples.items()}
    save_tests(folder, tests, data.samples)
    manifest = Manifest(
        seed=config.seed,
        hardware=hardware_info(device),
        model=model.record,
        faces=faces_metadata(data.cards, config.model, config.faces, faces),
        samples=tests_metadata(tests, data.samples),
        inputs=input_digests(config, data),
        licences={name: card.licence for name, card in data.cards.items()},
        finished=False,
    )
    manifest.record_left_out(config.data.limit, data.exclusions)
    folder.write_manifest(manifest)
    metrics, predictions = {}, {}
    for name, test in tests.items():
        with folder.timed("predict_s"):
            if model.estimate_photos is None:
                estimates = model.estimate(name, faces[name], test)
            else:
                estimates = model.estimate_photos(name, Photos(data.datasets[name].reader, test))
        if estimates.failed is not None:
            faces[name] = _add_failures(faces[name], test, estimates.failed)
            if estimates.failed.all():
                raise UserError(
                    f"model '{config.model.name}' returned no estimate for any of the {len(test):,} images of {name}"
                )
            estimates = estimates.select(~estimates.failed)
            test = tests[name] = drop_rejected(name, test, faces[name])
            save_tests(folder, tests, data.samples)
            manifest.samples = tests_metadata(tests, data.samples)
        table = predictions[name] = predictions_table(test, estimates, model.classes)
        _refuse_absurd(table, config.model.name, name)
        save_predictions(folder, name, table, estimates.probs)
        with folder.timed("evaluate_s"):
            metrics[name] = _evaluate_test(config, model, name, table, test.groups)
    content = MetricsFile(train=None, tests=_with_shifts(config, metrics, predictions))
    return evaluate_and_report(folder, manifest, content, lambda: predictions, data.samples, faces)


def _evaluate_test(
    config: ExternalConfig | PublishedConfig,
    model: EvaluatedModel,
    name: str,
    table: pd.DataFrame,
    groups: Sequence[str],
) -> TestResult:
    """Compute the metrics of one test set, and of the auxiliary targets.

    The baseline of a test without a training set is the test set's own median age, which no model receives.
    """
    resamples, seed = config.evaluate.resamples, config.seed
    tasks = evaluate_tasks(table, list(model.classes), groups=groups, resamples=resamples, seed=seed)
    baseline = float((table["age"] - table["age"].median()).abs().mean())
    changes = {
        "training_overlap": model.contamination(name),
        "baseline_mae": baseline,
        "age_gates": age_gates(
            table, groups=groups, resamples=resamples, seed=seed, **configured_gates(config.evaluate)
        ),
    } | ({"tasks": tasks} if tasks else {})
    return evaluate(table, groups=groups, resamples=resamples, seed=seed).model_copy(update=changes)


def _with_shifts(
    config: ExternalConfig | PublishedConfig, metrics: Mapping[str, TestResult], predictions: Mapping[str, pd.DataFrame]
) -> dict[str, TestResult]:
    """Return the metrics with the shift of every further test set against the first one.

    Args:
        config: the test's settings.
        metrics: test set -> its metrics.
        predictions: test set -> predictions with labels.
    """
    first, *others = metrics
    tests = dict(metrics)
    for name in others:
        shift = explain_shift(
            predictions[first], predictions[name], name=first, resamples=config.evaluate.resamples, seed=config.seed
        )
        if shift is not None:
            tests[name] = tests[name].model_copy(update={"shift": shift})
    return tests


def _add_failures(faces: FaceCache, samples: Samples, failed: np.ndarray) -> FaceCache:
    """Return the face cache with the images that the model did not process among the rejected ones.

    Args:
        faces: prepared faces.
        samples: the samples that the model was called with.
        failed: (N,) bool, whether the model returned no estimate.
    """
    ids = samples.table.loc[failed, "sample_id"]
    reason = "the model returned no estimate"
    return replace(
        faces,
        rejected=faces.rejected | dict.fromkeys(ids, reason),
        codes=faces.codes | dict.fromkeys(ids, RejectReason.NO_ESTIMATE),
    )


def _refuse_absurd(table: pd.DataFrame, model: str, test: str) -> None:
    """Refuse estimates that are no ages, as `agebench score` does: metrics of such numbers mean nothing.

    Args:
        table: the predictions.
        model: the model's name.
        test: the test set's name.

    Raises:
        UserError: an estimate is not finite, or no number of years.
    """
    try:
        validate_file(table, Path(f"model '{model}' on {test}"))
    except UserError as error:
        raise UserError(
            f"{error}. Compare its card (output.scale and output.offset, value_range, mean and std of the input) with the "
            "model's documentation"
        ) from error


def drop_rejected(name: str, samples: Samples, faces: FaceCache) -> Samples:
    """Reject the samples in which no face could be prepared.

    Args:
        name: the dataset's name.
        samples: its samples.
        faces: its prepared faces.

    Raises:
        UserError: no sample remains.
    """
    remaining = faces.drop_rejected(samples)
    if not len(remaining):
        raise UserError(
            f"{name}: no face could be prepared in any of its images; does `faces` on the card of '{name}' fit?"
        )
    return remaining
