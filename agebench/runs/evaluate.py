"""One test without training: the same datasets, faces, figures and report as of a run, whoever answers."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from agebench.data.faces.cache import FaceCache
from agebench.data.samples import Samples
from agebench.errors import UserError
from agebench.metrics.auxiliary_targets import evaluate_tasks
from agebench.metrics.evaluate import evaluate
from agebench.metrics.prediction_io import validate_file
from agebench.models.estimates import AgeEstimates
from agebench.registry.catalog import Catalog
from agebench.reports.run import write_report
from agebench.runs.artifacts import (
    faces_metadata,
    predictions_table,
    save_predictions,
    save_tests,
    tests_metadata,
)
from agebench.runs.datasets import apply_exclusions, open_dataset
from agebench.runs.error_gallery import write_error_gallery
from agebench.runs.external_config import ExternalConfig
from agebench.runs.failure_to_process import record_failures
from agebench.runs.provenance import input_digests
from agebench.runs.published_config import PublishedConfig
from agebench.runs.run import prepare_faces
from agebench.runs.run_dir import RunDir
from agebench.training.device import hardware_info


@dataclass(frozen=True)
class EvaluatedModel:
    """Who answers.

    Attributes:
        about: for the manifest.
        answer: (dataset, its faces, the samples asked about) -> their ages.
        contamination: dataset -> whether it may have been trained on: `known`, `validated`, `unknown`, `none stated`.
        classes: target beside age -> its classes.
    """

    about: Mapping[str, Any]
    answer: Callable[[str, FaceCache, Samples], AgeEstimates]
    contamination: Callable[[str], str]
    classes: Mapping[str, Sequence[str]] = field(default_factory=dict)


def evaluate_model(
    config: ExternalConfig | PublishedConfig,
    tested: EvaluatedModel,
    catalogue: Catalog,
    folder: RunDir,
    device: torch.device,
) -> dict[str, Any]:
    """Test on every usable image of each dataset; returns metrics.json's content.

    Raises:
        UserError: a dataset is missing.
        AgebenchError: a step's own, or what the model does wrong.
    """
    folder.begin(config)
    with folder.timed("read_s"):
        datasets = {name: open_dataset(catalogue.datasets.get(name)) for name in config.datasets()}
        audited, excluded = apply_exclusions(datasets, config.data.exclude)
    with folder.timed("faces_s"):
        faces = {name: prepare_faces(config, dataset, audited[name]) for name, dataset in datasets.items()}
    tests = {name: drop_rejected(name, samples, faces[name]) for name, samples in audited.items()}
    save_tests(folder, tests, audited)
    cards = {name: dataset.card for name, dataset in datasets.items()}
    about: dict[str, Any] = {
        "seed": config.seed,
        "hardware": hardware_info(device),
        "model": tested.about,
        "faces": faces_metadata(cards, config.model, config.faces, faces),
        "samples": tests_metadata(tests, audited),
        **excluded,
        "inputs": input_digests(config, datasets, audited, excluded),
    }
    folder.write_manifest(about | {"finished": False})
    found, answers = {}, {}
    for name, test in tests.items():
        with folder.timed("predict_s"):
            estimates = tested.answer(name, faces[name], test)
        table = answers[name] = predictions_table(test, estimates, tested.classes)
        _refuse_absurd(table, config.model.name, name)
        save_predictions(folder, name, table, estimates.probs)
        settings: dict[str, Any] = {
            "groups": test.groups,
            "resamples": config.evaluate.resamples,
            "seed": config.seed,
        }
        with folder.timed("evaluate_s"):
            found[name] = evaluate(table, **settings) | {"contamination": tested.contamination(name)}
            found[name] |= evaluate_tasks(table, list(tested.classes), **settings)
            # The floor of a test without a training set: the constant that errs least here, which no model is told.
            found[name]["baseline_mae"] = float((table["age"] - table["age"].median()).abs().mean())
    write_error_gallery(folder, answers, faces)
    metrics = record_failures(folder, {"schema": 1, "train": None, "tests": found}, audited, faces)
    about["timings"] = folder.timings | {"total_s": round(sum(folder.timings.values()), 1)}
    folder.write_manifest(about | {"finished": False})
    write_report(folder.path)
    folder.write_manifest(about | {"finished": True})
    return metrics


def _refuse_absurd(table: pd.DataFrame, model: str, test: str) -> None:
    """Refuse what `agebench score` refuses: figures from such numbers mean nothing.

    Raises:
        UserError: an estimate that is no finite number, or no number of years.
    """
    try:
        validate_file(table, Path(f"model '{model}' on {test}"))
    except UserError as error:
        raise UserError(
            f"{error}. Compare its card (output.scale and output.offset, value_range, mean and std of the input) with the "
            "model's documentation"
        ) from error


def drop_rejected(name: str, samples: Samples, faces: FaceCache) -> Samples:
    """Less the samples in which no face could be prepared, which go to quarantine.

    Raises:
        UserError: nothing is left.
    """
    kept = faces.drop_rejected(samples)
    if not len(kept):
        raise UserError(
            f"{name}: no face could be prepared in any of its images; does `faces` on the card of '{name}' fit?"
        )
    return kept
