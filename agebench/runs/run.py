"""One run, from cards to report. Read `run` and you have seen the whole benchmark."""

import copy
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from agebench.data.faces.cache import FaceCache, load_or_build_face_cache
from agebench.data.samples import Samples
from agebench.errors import UserError
from agebench.export.card import build_card
from agebench.export.writer import ExportVariant, write_export
from agebench.models import architectures
from agebench.models.age_model import AgeModel, create_model
from agebench.models.auxiliary_heads import SupportsAuxiliaryTargets
from agebench.models.estimates import AgeEstimates
from agebench.models.weights import digests, load_pretrained
from agebench.registry.catalog import Catalog
from agebench.reports.run import write_report
from agebench.runs.artifacts import (
    VALIDATION,
    faces_metadata,
    predictions_table,
    samples_metadata,
    save_predictions,
    save_samples,
)
from agebench.runs.config import RunConfig
from agebench.runs.cross_validation import concat_fold_predictions, evaluate_run
from agebench.runs.datasets import LoadedDataset, apply_exclusions, open_dataset, split_train_dataset
from agebench.runs.error_gallery import write_error_gallery
from agebench.runs.failure_to_process import record_failures
from agebench.runs.guarantees import deployment_guarantees
from agebench.runs.learning_curves import LearningCurveCallback
from agebench.runs.provenance import AnyConfig, input_digests, require_unchanged
from agebench.runs.run_dir import RunDir
from agebench.runs.splits import FoldSplits, RunSplits, task_classes
from agebench.training import distributed
from agebench.training.dataloader import derive_seed, make_face_dataset
from agebench.training.device import hardware_info, resolve_device
from agebench.training.frozen_features import frozen_features
from agebench.training.prediction import predict
from agebench.training.trainer import History, Trainer


def run(config: RunConfig, catalogue: Catalog, folder: RunDir, *, quiet: bool = False) -> dict[str, Any]:
    """Do the run in its folder, or what is left of it; returns metrics.json's content.

    Raises:
        UserError: what the folder holds was begun with other data or weights than are there now.
        AgebenchError: a step's own; what was finished stays, and the same call continues.
    """
    device = resolve_device(config.device)
    model, weights = initial_model(config)
    origin: dict[str, Any] = {"weights": weights, "initial": digests(model, model.backbone)}
    folder.begin(config)
    with folder.timed("read_s"):
        datasets = {name: open_dataset(catalogue.datasets.get(name)) for name in config.datasets()}
        samples, excluded = apply_exclusions(datasets, config.data.exclude)
        divisions = split_train_dataset(config, datasets[config.data.train], samples)
        given = input_digests(config, datasets, samples, excluded, divisions)
        if weights != "random":
            given["initial"] = {"backbone": origin["initial"]["backbone_sha256"]}
        if distributed.broadcast_from_main(folder.started):  # of several processes only the first has the run's folder
            distributed.broadcast_from_main(lambda: require_unchanged(folder, given))
    with folder.timed("faces_s"):
        faces = {name: prepare_faces(config, dataset, samples[name]) for name, dataset in datasets.items()}
        divisions = divisions.drop_rejected(faces)
    add_tasks(config, model, divisions.labelled())
    inputs = model_inputs(config, folder, model, faces, device)
    save_samples(folder, divisions, samples)
    about = {
        "seed": config.seed,
        "hardware": hardware_info(device),
        "train": {"name": config.data.train, "title": datasets[config.data.train].card.title},
        "model": model_metadata(config, model, origin),
        "faces": faces_metadata(
            {name: dataset.card for name, dataset in datasets.items()}, config.model, config.faces, faces
        ),
        "protocol": divisions.protocol(),
        **excluded,
        "samples": samples_metadata(divisions, samples),
        "inputs": given,
    }
    folder.write_manifest(about | {"finished": False})
    history = cross_validate(config, folder, model, divisions, inputs, device, quiet=quiet)
    if distributed.get_rank():
        return {}  # the first of several processes writes down what all of them did
    with folder.timed("evaluate_s"):
        metrics = record_failures(folder, evaluate_run(config, folder, divisions), samples, faces)
        write_error_gallery(
            folder, {name: concat_fold_predictions(folder, divisions, name) for name in divisions.tests}, faces
        )
    if len(divisions) == 1:  # of several folds no model is the run's
        with folder.timed("export_s"):
            examples = example_crops(faces, divisions[0])
            card = build_card(model, config.model, datasets[config.data.train].card, about, metrics)
            card |= {"promises": deployment_guarantees(folder, divisions.train_dataset, divisions.tests)}
            file = ExportVariant("torchscript")
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
    torch.manual_seed(derive_seed(config.seed, "weights"))
    model = create_model(config.model)
    _refuse_frozen_answers(config, model)
    if not config.pretrained:
        return model, "random"
    if config.model.backbone in architectures.NAMES:
        from agebench.models.architectures.official_weights import (
            load_published,  # late: with it comes timm, which takes seconds
        )

        return model, load_published(model, config.model, Path(config.pretrained).expanduser())
    return model, load_pretrained(model.backbone, config.model, config.pretrained)


def _refuse_frozen_answers(config: RunConfig, model: AgeModel) -> None:
    """Whole architectures answer within their backbone: frozen, they would be scored for what they never learned."""
    if not config.train.freeze or not isinstance(model.backbone, SupportsAuxiliaryTargets):
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
    torch.manual_seed(derive_seed(config.seed, "tasks"))
    for name in config.model.targets:
        model.add_task(name, task_classes(config.data.train, labelled, name))


def prepare_faces(config: AnyConfig, dataset: LoadedDataset, samples: Samples | None = None) -> FaceCache:
    """Prepare the faces of a dataset's samples, through the cache; by default of all its samples."""
    spec = config.faces.spec_for(dataset.card, config.model)
    return load_or_build_face_cache(
        dataset.reader, dataset.samples if samples is None else samples, spec, name=dataset.card.name
    )


def cross_validate(
    config: RunConfig,
    folder: RunDir,
    model: AgeModel,
    divisions: FoldSplits,
    faces: dict[str, FaceCache],
    device: torch.device,
    *,
    quiet: bool,
) -> History:
    """Train and ask, fold by fold; a fold that is done is not done again. Returns the epochs of all folds.

    A run of one fold leaves everything in the run's folder and its weights in `model`; else each fold has a folder and
    starts from a copy of `model`.
    """
    if len(divisions) == 1:
        return fit_fold(config, folder, model, divisions[0], faces, device, quiet=quiet)
    if distributed.get_world_size() > 1:
        raise UserError(
            f"the protocol '{config.data.protocol}' has {len(divisions)} folds, and these run in one process each: "
            "start it by `agebench run`"
        )
    whole = History()
    for number, division in enumerate(divisions):
        own = folder.fold(number, len(divisions))
        history = History(own.fold_history())
        if not history.epochs:
            history = fit_fold(config, own, copy.deepcopy(model), division, faces, device, quiet=True)
            own.mark_fold_done(divisions.folds.names[number], history.epochs)
            if not quiet:
                best = history.epochs[history.best_epoch - 1]["val_mae"]
                print(f"fold {number + 1}/{len(divisions)}: validation MAE {best:.2f}", file=sys.stderr)
        whole.epochs += history.epochs
    return whole


def fit_fold(
    config: RunConfig,
    folder: RunDir,
    model: AgeModel,
    division: RunSplits,
    faces: dict[str, FaceCache],
    device: torch.device,
    *,
    quiet: bool,
) -> History:
    """Train on one division, then ask about its test sets; the answers are kept in predictions/<test>.parquet.

    Those about the validation part are kept in validation.parquet: intervals for new faces are calibrated on them.
    """
    with folder.timed("train_s"):
        history = fit(config, folder, model, division, faces[division.train_dataset], device, quiet=quiet)
    with folder.timed("predict_s"):
        for name, test in division.tests.items():
            table, estimates = predict_samples(config, model, test, faces[name], device)
            save_predictions(folder, name, table, estimates.probs)
        table, _ = predict_samples(config, model, division.val, faces[division.train_dataset], device)
        folder.write_table(VALIDATION, table)
    return history


def model_inputs(
    config: RunConfig, folder: RunDir, model: AgeModel, faces: dict[str, FaceCache], device: torch.device
) -> dict[str, FaceCache]:
    """What the model is trained and tested on: the faces, or for a frozen backbone their features."""
    recipe = config.train
    if not recipe.freeze:
        return faces
    options: dict[str, Any] = {"mirrored": recipe.augment.flip > 0, "device": device, "precision": recipe.precision}
    with folder.timed("features_s"):
        return {name: frozen_features(model, kept, config.model, **options) for name, kept in faces.items()}


def fit(
    config: RunConfig,
    folder: RunDir,
    model: AgeModel,
    division: RunSplits,
    faces: FaceCache,
    device: torch.device,
    *,
    quiet: bool,
) -> History:
    """Train, or go on training; leaves the weights of the best epoch in `model` and the history in the folder."""
    training, validation = (
        make_face_dataset(faces, division.train, model.classes),
        make_face_dataset(faces, division.val),
    )
    model.head.init_from_ages(torch.from_numpy(training.ages))
    trainer = Trainer(model, config.model, config.train, seed=config.seed, device=device, folder=folder.checkpoints)
    trainer.resume()
    done = trainer.steps_done(training)
    with LearningCurveCallback(folder.path, trainer.history.epochs, first_step=done, quiet=quiet) as events:
        history = trainer.fit(training, validation, events)
    folder.write_json("history.json", history.epochs)
    trainer.load_best()
    return history


def predict_samples(
    config: RunConfig, model: AgeModel, samples: Samples, faces: FaceCache, device: torch.device
) -> tuple[pd.DataFrame, AgeEstimates]:
    """What the model says about faces, beside what is true. Of a test set, this is the one time that it is read."""
    estimates = predict(
        model, make_face_dataset(faces, samples), config.model, device, precision=config.train.precision
    )
    return predictions_table(samples, estimates, model.classes), estimates


def model_metadata(config: RunConfig, model: AgeModel, origin: dict[str, Any]) -> dict[str, Any]:
    """For the manifest: the network, and what it started from, before targets beside age joined."""
    card = config.model
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return {
        **card.model_dump(mode="json", include={"name", "title", "backbone", "head", "head_options", "size", "tasks"}),
        **({"classes": {name: list(known) for name, known in model.classes.items()}} if model.classes else {}),
        "parameters": parameters,
        **origin,
    }


def example_crops(faces: dict[str, FaceCache], division: RunSplits, count: int = 64) -> np.ndarray:
    """(n, S, S, C) uint8: the first faces of the first test set, to check an export on."""
    name, test = next(iter(division.tests.items()))
    chosen: np.ndarray = faces[name].pixels[faces[name].rows(test)[:count]]
    return chosen
