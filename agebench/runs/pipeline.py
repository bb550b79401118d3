"""One run, from cards to report. Read `run` and you have seen the whole benchmark."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from agebench.data.audit import audit
from agebench.data.cache import Faces, build_faces
from agebench.data.faces import FaceSpec
from agebench.data.readers import Reader
from agebench.data.samples import Samples
from agebench.data.store import reader_for
from agebench.engine.checkpoint import load_weights
from agebench.engine.devices import choose_device, hardware
from agebench.engine.events import Console
from agebench.engine.loader import derived_seed, face_set
from agebench.engine.predict import Estimates, predict
from agebench.engine.train import History, Trainer
from agebench.evaluation.evaluate import evaluate
from agebench.evaluation.tasks import evaluate_tasks
from agebench.export.torchscript import export_torchscript
from agebench.models import zoo
from agebench.models.age_model import AgeModel, create_model
from agebench.models.weights import load_pretrained
from agebench.models.zoo.published import load_published
from agebench.registry.cards import DatasetCard
from agebench.registry.catalogue import Catalogue
from agebench.reports.run_report import write_report
from agebench.runs.config import RunConfig
from agebench.runs.division import Division, divide, task_classes
from agebench.runs.external_config import ExternalConfig
from agebench.runs.folder import RunFolder
from agebench.runs.published import PublishedConfig
from agebench.runs.records import describe_faces, describe_samples, predictions_table, save_predictions, save_samples


@dataclass(frozen=True)
class Dataset:
    """A dataset of the run: its card, its reader and its audited samples."""

    card: DatasetCard
    reader: Reader
    samples: Samples


def run(config: RunConfig, catalogue: Catalogue, folder: RunFolder, *, quiet: bool = False) -> dict[str, Any]:
    """Do the run in its folder, or what is left of it; returns metrics.json's content.

    Raises:
        AgebenchError: a step's own; what was finished stays, and the same call continues.
    """
    device = choose_device(config.device)
    model, weights = initial_model(config)
    folder.write_config(config)
    with folder.clock("read_s"):
        datasets = {name: open_dataset(catalogue.datasets.get(name)) for name in config.datasets()}
        samples = {name: dataset.samples for name, dataset in datasets.items()}
        division = divide(config.data, samples, seed=config.seed)
    with folder.clock("faces_s"):
        faces = {name: prepare_faces(config, dataset) for name, dataset in datasets.items()}
        division = division.with_faces(faces)
    add_tasks(config, model, division)
    save_samples(folder, division, samples)
    about = {
        "seed": config.seed,
        "hardware": hardware(device),
        "train": {"name": config.data.train, "title": datasets[config.data.train].card.title},
        "model": describe_model(config, model, weights),
        "faces": describe_faces(
            {name: dataset.card for name, dataset in datasets.items()}, config.model.size, config.faces.coverage
        ),
        "samples": describe_samples(division, samples),
    }
    folder.write_manifest(about | {"finished": False})
    with folder.clock("train_s"):
        history = train(config, folder, model, division, faces[division.home], device, quiet=quiet)
    with folder.clock("predict_s"):
        answers = {
            name: predict_test(config, model, test, faces[name], device) for name, test in division.tests.items()
        }
    with folder.clock("evaluate_s"):
        metrics = measure(config, folder, division, answers)
    with folder.clock("export_s"):
        examples = some_faces(faces, division)
        difference = export_torchscript(model, config.model, metrics, examples, folder.path / "export" / "model.ts")
    about |= {
        "epochs": len(history.epochs),
        "best_epoch": history.best_epoch,
        "export": {"max_difference_years": difference},
        "timings": folder.timings
        | {"images_per_s": round(history.images_per_s, 1), "total_s": round(sum(folder.timings.values()), 1)},
    }
    folder.write_manifest(about | {"finished": False})
    write_report(folder.path)
    folder.write_manifest(about | {"finished": True})
    return metrics


def initial_model(config: RunConfig) -> tuple[AgeModel, str]:
    """The untrained model and where its weights come from; made first, because it fails before hours of work."""
    torch.manual_seed(derived_seed(config.seed, "weights"))
    model = create_model(config.model)
    if not config.pretrained:
        return model, "random"
    if config.model.backbone in zoo.NAMES:
        return model, load_published(model, config.model, Path(config.pretrained).expanduser())
    return model, load_pretrained(model.backbone, config.model, config.pretrained)


def add_tasks(config: RunConfig, model: AgeModel, division: Division) -> None:
    """Give the model its targets beside age; their classes are those of the training part."""
    torch.manual_seed(derived_seed(config.seed, "tasks"))
    for name in config.model.targets:
        model.add_task(name, task_classes(division.home, division.train, name))


def open_dataset(card: DatasetCard) -> Dataset:
    """Find, read and audit a dataset."""
    reader = reader_for(card)
    return Dataset(card, reader, audit(reader, reader.read(), name=card.name))


def prepare_faces(config: RunConfig | ExternalConfig | PublishedConfig, dataset: Dataset) -> Faces:
    """Every face of a dataset on the template, through the cache."""
    card = dataset.card
    bodies = config.model.bodies
    spec = FaceSpec(card.faces, config.model.size, config.faces.coverage, card.landmark_points, bodies)
    return build_faces(dataset.reader, dataset.samples, spec, name=card.name)


def train(
    config: RunConfig,
    folder: RunFolder,
    model: AgeModel,
    division: Division,
    faces: Faces,
    device: torch.device,
    *,
    quiet: bool,
) -> History:
    """Train, or go on training; leaves the weights of the best epoch in `model` and the history in the folder."""
    training, validation = face_set(faces, division.train, model.classes), face_set(faces, division.val)
    model.head.prepare(torch.from_numpy(training.ages))
    trainer = Trainer(model, config.model, config.train, seed=config.seed, device=device, folder=folder.checkpoints)
    trainer.resume()
    with Console(folder.path / "tensorboard", first_step=trainer.steps_done(training), quiet=quiet) as events:
        history = trainer.fit(training, validation, events)
    folder.write_json("history.json", history.epochs)
    load_weights(folder.checkpoints / "best.safetensors", model)
    return history


def predict_test(
    config: RunConfig, model: AgeModel, test: Samples, faces: Faces, device: torch.device
) -> tuple[pd.DataFrame, Estimates]:
    """What the model says about a test set's faces, beside what is true. The one time that a test set is read."""
    estimates = predict(model, face_set(faces, test), config.model, device, precision=config.train.precision)
    return predictions_table(test, estimates, model.classes), estimates


def measure(
    config: RunConfig, folder: RunFolder, division: Division, answers: dict[str, tuple[pd.DataFrame, Estimates]]
) -> dict[str, Any]:
    """Predictions to figures, both kept: predictions/<test>.parquet and metrics.json."""
    ages = division.train.table["age"]
    found = {}
    for name, (table, estimates) in answers.items():
        save_predictions(folder, name, table, estimates.probs)
        figures = evaluate(
            table,
            groups=division.tests[name].groups,
            train_ages=(float(ages.min()), float(ages.max())),
            resamples=config.evaluate.resamples,
            seed=config.seed,
        )
        figures |= evaluate_tasks(
            table,
            list(config.model.targets),
            groups=division.tests[name].groups,
            resamples=config.evaluate.resamples,
            seed=config.seed,
        )
        # The floor that a model must beat: the training set's median age, whatever the face.
        found[name] = figures | {"baseline_mae": float((table["age"] - ages.median()).abs().mean())}
    metrics = {"schema": 1, "train": division.home, "tests": found}
    folder.write_json("metrics.json", metrics)
    return metrics


def describe_model(config: RunConfig, model: AgeModel, weights: str) -> dict[str, Any]:
    """For the manifest: the network, and what it started from."""
    card = config.model
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return {
        **card.model_dump(mode="json", include={"name", "title", "backbone", "head", "head_options", "size", "tasks"}),
        "parameters": parameters,
        "weights": weights,
    }


def some_faces(faces: dict[str, Faces], division: Division, count: int = 64) -> np.ndarray:
    """(n, S, S, 3) uint8: the first faces of the first test set, to check an export on."""
    name, test = next(iter(division.tests.items()))
    chosen: np.ndarray = faces[name].pixels[faces[name].rows(test)[:count]]
    return chosen
