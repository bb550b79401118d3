"""One run, from cards to report. Read `run` and you have seen the whole benchmark."""

import copy
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from agebench.data.cache import Faces, build_faces
from agebench.data.samples import Samples
from agebench.engine import ranks
from agebench.engine.devices import choose_device, hardware
from agebench.engine.features import frozen_features
from agebench.engine.loader import derived_seed, face_set
from agebench.engine.predict import Estimates, predict
from agebench.engine.train import History, Trainer
from agebench.errors import UserError
from agebench.export.card import make_card
from agebench.export.write import Variant, write_export
from agebench.models import zoo
from agebench.models.age_model import AgeModel, create_model
from agebench.models.tasks import HasTasks
from agebench.models.weights import digests, load_pretrained
from agebench.registry.catalogue import Catalogue
from agebench.reports.run_report import write_report
from agebench.runs.config import RunConfig
from agebench.runs.datasets import Dataset, divide_home, exclude, open_dataset
from agebench.runs.division import Division, Divisions, task_classes
from agebench.runs.failures import record_failures
from agebench.runs.folder import RunFolder
from agebench.runs.folds import join, measure
from agebench.runs.inputs import AnyConfig, inputs_of, refuse_changed
from agebench.runs.live import Live
from agebench.runs.promises import promises
from agebench.runs.records import (
    VALIDATION,
    describe_faces,
    describe_samples,
    predictions_table,
    save_predictions,
    save_samples,
)
from agebench.runs.worst import save_worst


def run(config: RunConfig, catalogue: Catalogue, folder: RunFolder, *, quiet: bool = False) -> dict[str, Any]:
    """Do the run in its folder, or what is left of it; returns metrics.json's content.

    Raises:
        UserError: what the folder holds was begun with other data or weights than are there now.
        AgebenchError: a step's own; what was finished stays, and the same call continues.
    """
    device = choose_device(config.device)
    model, weights = initial_model(config)
    origin: dict[str, Any] = {"weights": weights, "initial": digests(model, model.backbone)}
    folder.begin(config)
    with folder.clock("read_s"):
        datasets = {name: open_dataset(catalogue.datasets.get(name)) for name in config.datasets()}
        samples, excluded = exclude(datasets, config.data.exclude)
        divisions = divide_home(config, datasets[config.data.train], samples)
        given = inputs_of(config, datasets, samples, excluded, divisions)
        if weights != "random":
            given["initial"] = {"backbone": origin["initial"]["backbone_sha256"]}
        if ranks.agree(folder.started):  # of several processes only the first has the run's folder
            ranks.agree(lambda: refuse_changed(folder, given))
    with folder.clock("faces_s"):
        faces = {name: prepare_faces(config, dataset, samples[name]) for name, dataset in datasets.items()}
        divisions = divisions.with_faces(faces)
    add_tasks(config, model, divisions.labelled())
    inputs = model_inputs(config, folder, model, faces, device)
    save_samples(folder, divisions, samples)
    about = {
        "seed": config.seed,
        "hardware": hardware(device),
        "train": {"name": config.data.train, "title": datasets[config.data.train].card.title},
        "model": describe_model(config, model, origin),
        "faces": describe_faces(
            {name: dataset.card for name, dataset in datasets.items()}, config.model, config.faces, faces
        ),
        "protocol": divisions.protocol(),
        **excluded,
        "samples": describe_samples(divisions, samples),
        "inputs": given,
    }
    folder.write_manifest(about | {"finished": False})
    history = learn(config, folder, model, divisions, inputs, device, quiet=quiet)
    if ranks.rank():
        return {}  # the first of several processes writes down what all of them did
    with folder.clock("evaluate_s"):
        metrics = record_failures(folder, measure(config, folder, divisions), samples, faces)
        save_worst(folder, {name: join(folder, divisions, name) for name in divisions.tests}, faces)
    if len(divisions) == 1:  # of several folds no model is the run's
        with folder.clock("export_s"):
            examples = some_faces(faces, divisions[0])
            card = make_card(model, config.model, datasets[config.data.train].card, about, metrics)
            card |= {"promises": promises(folder, divisions.home, divisions.tests)}
            file = Variant("torchscript")
            written = write_export(
                model, config.model, card, folder.path / "export" / file.file, examples=examples, variant=file
            )
        about |= {
            "best_epoch": history.best_epoch,
            "export": {"max_difference_years": written["checked"]["max_difference_years"]},
        }
    about |= {
        "epochs": round(len(history.epochs) / len(divisions)),
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
    _refuse_frozen_answers(config, model)
    if not config.pretrained:
        return model, "random"
    if config.model.backbone in zoo.NAMES:
        from agebench.models.zoo.published import load_published  # late: with it comes timm, which takes seconds

        return model, load_published(model, config.model, Path(config.pretrained).expanduser())
    return model, load_pretrained(model.backbone, config.model, config.pretrained)


def _refuse_frozen_answers(config: RunConfig, model: AgeModel) -> None:
    """Whole architectures answer within their backbone: frozen, they would be scored for what they never learned."""
    if not config.train.freeze or not isinstance(model.backbone, HasTasks):
        return
    stuck = [*(["age"] if not list(model.head.parameters()) else []), *config.model.targets]
    if stuck:
        ways = "leave out train.freeze" + ("" if "age" in stuck else f", or {stuck[0]} with --task {stuck[0]}=0")
        raise UserError(
            f"train.freeze = {config.train.freeze}: {config.model.backbone} answers {' and '.join(stuck)} within its backbone, "
            f"which would not be learned; {ways}"
        )


def add_tasks(config: RunConfig, model: AgeModel, labelled: Samples) -> None:
    """Give the model its targets beside age; their classes are those of `labelled`, a training part."""
    torch.manual_seed(derived_seed(config.seed, "tasks"))
    for name in config.model.targets:
        model.add_task(name, task_classes(config.data.train, labelled, name))


def prepare_faces(config: AnyConfig, dataset: Dataset, samples: Samples | None = None) -> Faces:
    """Prepare the faces of a dataset's samples, through the cache; by default of all its samples."""
    spec = config.faces.spec_for(dataset.card, config.model)
    return build_faces(dataset.reader, dataset.samples if samples is None else samples, spec, name=dataset.card.name)


def learn(
    config: RunConfig,
    folder: RunFolder,
    model: AgeModel,
    divisions: Divisions,
    faces: dict[str, Faces],
    device: torch.device,
    *,
    quiet: bool,
) -> History:
    """Train and ask, fold by fold; a fold that is done is not done again. Returns the epochs of all folds.

    A run of one fold leaves everything in the run's folder and its weights in `model`; else each fold has a folder and
    starts from a copy of `model`.
    """
    if len(divisions) == 1:
        return learn_fold(config, folder, model, divisions[0], faces, device, quiet=quiet)
    if ranks.size() > 1:
        raise UserError(
            f"the protocol '{config.data.protocol}' has {len(divisions)} folds, and these run in one process each: "
            "start it by `agebench run`"
        )
    whole = History()
    for number, division in enumerate(divisions):
        own = folder.fold(number, len(divisions))
        history = History(own.done_fold())
        if not history.epochs:
            history = learn_fold(config, own, copy.deepcopy(model), division, faces, device, quiet=True)
            own.close_fold(divisions.folds.names[number], history.epochs)
            if not quiet:
                best = history.epochs[history.best_epoch - 1]["val_mae"]
                print(f"fold {number + 1}/{len(divisions)}: validation MAE {best:.2f}", file=sys.stderr)
        whole.epochs += history.epochs
    return whole


def learn_fold(
    config: RunConfig,
    folder: RunFolder,
    model: AgeModel,
    division: Division,
    faces: dict[str, Faces],
    device: torch.device,
    *,
    quiet: bool,
) -> History:
    """Train on one division, then ask about its test sets; the answers are kept in predictions/<test>.parquet.

    Those about the validation part are kept in validation.parquet: intervals for new faces are calibrated on them.
    """
    with folder.clock("train_s"):
        history = train(config, folder, model, division, faces[division.home], device, quiet=quiet)
    with folder.clock("predict_s"):
        for name, test in division.tests.items():
            table, estimates = ask(config, model, test, faces[name], device)
            save_predictions(folder, name, table, estimates.probs)
        table, _ = ask(config, model, division.val, faces[division.home], device)
        folder.write_table(VALIDATION, table)
    return history


def model_inputs(
    config: RunConfig, folder: RunFolder, model: AgeModel, faces: dict[str, Faces], device: torch.device
) -> dict[str, Faces]:
    """What the model is trained and tested on: the faces, or for a frozen backbone their features."""
    recipe = config.train
    if not recipe.freeze:
        return faces
    options: dict[str, Any] = {"mirrored": recipe.augment.flip > 0, "device": device, "precision": recipe.precision}
    with folder.clock("features_s"):
        return {name: frozen_features(model, kept, config.model, **options) for name, kept in faces.items()}


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
    done = trainer.steps_done(training)
    with Live(folder.path, trainer.history.epochs, first_step=done, quiet=quiet) as events:
        history = trainer.fit(training, validation, events)
    folder.write_json("history.json", history.epochs)
    trainer.load_best()
    return history


def ask(
    config: RunConfig, model: AgeModel, samples: Samples, faces: Faces, device: torch.device
) -> tuple[pd.DataFrame, Estimates]:
    """What the model says about faces, beside what is true. Of a test set, this is the one time that it is read."""
    estimates = predict(model, face_set(faces, samples), config.model, device, precision=config.train.precision)
    return predictions_table(samples, estimates, model.classes), estimates


def describe_model(config: RunConfig, model: AgeModel, origin: dict[str, Any]) -> dict[str, Any]:
    """For the manifest: the network, and what it started from, before targets beside age joined."""
    card = config.model
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return {
        **card.model_dump(mode="json", include={"name", "title", "backbone", "head", "head_options", "size", "tasks"}),
        **({"classes": {name: list(known) for name, known in model.classes.items()}} if model.classes else {}),
        "parameters": parameters,
        **origin,
    }


def some_faces(faces: dict[str, Faces], division: Division, count: int = 64) -> np.ndarray:
    """(n, S, S, C) uint8: the first faces of the first test set, to check an export on."""
    name, test = next(iter(division.tests.items()))
    chosen: np.ndarray = faces[name].pixels[faces[name].rows(test)[:count]]
    return chosen
