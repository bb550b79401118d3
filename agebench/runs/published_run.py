"""The test itself: weights in, ages (and what else the weights say) out, scored like any model's."""

import hashlib
from pathlib import Path
from typing import Any

from agebench.engine.devices import choose_device, hardware
from agebench.engine.loader import face_set
from agebench.engine.predict import predict
from agebench.evaluation.evaluate import evaluate
from agebench.evaluation.tasks import evaluate_tasks
from agebench.models.age_model import AgeModel, create_model
from agebench.models.zoo.published import load_published
from agebench.registry.catalogue import Catalogue
from agebench.reports.run_report import write_report
from agebench.runs.external import with_faces
from agebench.runs.failures import record_failures
from agebench.runs.folder import RunFolder
from agebench.runs.pipeline import exclude, open_dataset, prepare_faces
from agebench.runs.published import PublishedConfig
from agebench.runs.records import describe_faces, describe_tests, predictions_table, save_predictions, save_tests
from agebench.runs.worst import save_worst

GENDERS = ("female", "male")


def run_published(config: PublishedConfig, catalogue: Catalogue, folder: RunFolder) -> dict[str, Any]:
    """Test published weights on every usable image of each dataset; returns metrics.json's content.

    Raises:
        UserError: the checkpoint cannot be used, or a dataset is missing.
        AgebenchError: a step's own.
    """
    device = choose_device(config.device)
    model, weights = published_model(config)
    model = model.to(device)
    folder.write_config(config)
    with folder.clock("read_s"):
        datasets = {name: open_dataset(catalogue.datasets.get(name)) for name in config.datasets()}
    with folder.clock("faces_s"):
        faces = {name: prepare_faces(config, dataset) for name, dataset in datasets.items()}
    audited, excluded = exclude(datasets, config.data.exclude)
    tests = {name: with_faces(name, samples, faces[name]) for name, samples in audited.items()}
    save_tests(folder, tests, audited)
    about: dict[str, Any] = {
        "seed": config.seed,
        "hardware": hardware(device),
        "model": describe_published(config, weights),
        "faces": describe_faces(
            {name: dataset.card for name, dataset in datasets.items()}, config.model.size, config.faces, faces
        ),
        "samples": describe_tests(tests, audited),
        **excluded,
    }
    folder.write_manifest(about | {"finished": False})
    found, answers = {}, {}
    for name, test in tests.items():
        with folder.clock("predict_s"):
            estimates = predict(model, face_set(faces[name], test), config.model, device, label=name)
        table = answers[name] = predictions_table(test, estimates, model.classes)
        save_predictions(folder, name, table, estimates.probs)
        settings: dict[str, Any] = {"resamples": config.evaluate.resamples, "seed": config.seed}
        with folder.clock("evaluate_s"):
            found[name] = evaluate(table, groups=test.groups, **settings) | {"contamination": "unknown"}
            found[name] |= evaluate_tasks(table, list(model.classes), groups=test.groups, **settings)
    save_worst(folder, answers, faces)
    metrics = record_failures(folder, {"schema": 1, "train": None, "tests": found}, audited, faces)
    about["timings"] = folder.timings | {"total_s": round(sum(folder.timings.values()), 1)}
    folder.write_manifest(about | {"finished": False})
    write_report(folder.path)
    folder.write_manifest(about | {"finished": True})
    return metrics


def published_model(config: PublishedConfig) -> tuple[AgeModel, str]:
    """The model with its authors' weights, ready to answer, and what was taken from where.

    Gender is asked where the weights know it; of other targets published weights say nothing.

    Raises:
        UserError: the checkpoint is missing, unsafe, of another model, or does not fit.
    """
    model = create_model(config.model)
    weights = load_published(model, config.model, Path(config.pretrained).expanduser())
    if "gender" in config.model.targets and ", no gender" not in weights:
        model.add_task("gender", GENDERS)
    return model.eval(), weights


def describe_published(config: PublishedConfig, weights: str) -> dict[str, Any]:
    """For the manifest: which network, with which file, and what is known of its training."""
    path = Path(config.pretrained).expanduser()
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()[:16]
    card = config.model.model_dump(mode="json", include={"name", "title", "backbone", "head", "size", "citation"})
    return card | {
        "kind": "published",
        "format": weights,
        "source": path.name,
        "file_sha256": digest,
        "training_data": "unknown to agebench; the paper says it",
        "licence": "of the weights: see their source",
    }
