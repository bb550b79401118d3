"""One test of a model that is not ours: the same datasets, faces, figures and report, without the training."""

from typing import Any

from agebench.data.cache import Faces
from agebench.data.samples import Samples
from agebench.engine.devices import choose_device, hardware
from agebench.engine.predict import Estimates
from agebench.errors import UserError
from agebench.evaluation.evaluate import evaluate
from agebench.models.external.estimate import estimate, fingerprint
from agebench.registry.catalogue import Catalogue
from agebench.registry.external import ExternalCard
from agebench.reports.run_report import write_report
from agebench.runs.external_config import ExternalConfig
from agebench.runs.failures import record_failures
from agebench.runs.folder import RunFolder
from agebench.runs.pipeline import exclude, open_dataset, prepare_faces
from agebench.runs.records import (
    describe_faces,
    describe_tests,
    predictions_table,
    save_predictions,
    save_tests,
)
from agebench.runs.worst import save_worst


def run_external(config: ExternalConfig, catalogue: Catalogue, folder: RunFolder) -> dict[str, Any]:
    """Test an external model on every usable image of each dataset; returns metrics.json's content.

    Raises:
        UserError: its file or package is missing, or a dataset is.
        AgebenchError: a step's own, or what the model does wrong.
    """
    device = choose_device(config.device)
    digest = fingerprint(config.model)  # first: a missing file fails before hours of preparing faces
    folder.write_config(config)
    with folder.clock("read_s"):
        datasets = {name: open_dataset(catalogue.datasets.get(name)) for name in config.datasets()}
    with folder.clock("faces_s"):
        faces = {name: prepare_faces(config, dataset) for name, dataset in datasets.items()}
    audited, excluded = exclude(datasets, config.data.exclude)
    tests = {name: with_faces(name, samples, faces[name]) for name, samples in audited.items()}
    save_tests(folder, tests, audited)
    cards = {name: dataset.card for name, dataset in datasets.items()}
    about: dict[str, Any] = {
        "seed": config.seed,
        "hardware": hardware(device),
        "model": describe_external(config.model, digest),
        "faces": describe_faces(cards, config.model.size, config.faces, faces),
        "samples": describe_tests(tests, audited),
        **excluded,
    }
    folder.write_manifest(about | {"finished": False})
    found, answers = {}, {}
    for name, test in tests.items():
        with folder.clock("predict_s"):
            answer = estimate(config.model, faces[name].pixels, faces[name].rows(test), device=str(device), label=name)
        table = answers[name] = predictions_table(test, Estimates(*answer))
        save_predictions(folder, name, table, answer.probs)
        with folder.clock("evaluate_s"):
            figures = evaluate(table, groups=test.groups, resamples=config.evaluate.resamples, seed=config.seed)
        found[name] = figures | {"contamination": contamination(config.model, name)}
    save_worst(folder, answers, faces)
    metrics = record_failures(folder, {"schema": 1, "train": None, "tests": found}, audited, faces)
    about["timings"] = folder.timings | {"total_s": round(sum(folder.timings.values()), 1)}
    folder.write_manifest(about | {"finished": False})
    write_report(folder.path)
    folder.write_manifest(about | {"finished": True})
    return metrics


def contamination(card: ExternalCard, dataset: str) -> str:
    """Whether the model may have seen the dataset in training: `known`, `unknown`, or `none stated`."""
    if dataset in card.trained_on:
        return "known"
    return "unknown" if card.training_data.lower().startswith("unknown") else "none stated"


def describe_external(card: ExternalCard, digest: str) -> dict[str, Any]:
    """For the manifest: what was called, and what is known of its training."""
    kept = {"name", "title", "kind", "format", "source", "size", "training_data", "trained_on", "licence", "citation"}
    return {**card.model_dump(mode="json", include=kept), "size": card.size, "file_sha256": digest}


def with_faces(name: str, samples: Samples, faces: Faces) -> Samples:
    """Less the samples in which no face could be prepared, which go to quarantine.

    Raises:
        UserError: nothing is left.
    """
    kept = faces.keep(samples)
    if not len(kept):
        raise UserError(
            f"{name}: no face could be prepared in any of its images; does `faces` on the card of '{name}' fit?"
        )
    return kept
