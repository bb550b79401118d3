"""One run, from cards to report. `run` lists its steps in order."""

import copy
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from agebench.config.run import RunConfig
from agebench.data.dataset import Dataset
from agebench.data.faces.cache import FaceCache, load_or_build_face_cache
from agebench.data.samples import Samples
from agebench.errors import UserError
from agebench.export.card import RunFacts, build_card
from agebench.export.formats.torchscript import require_source
from agebench.export.writer import ExportVariant, write_export
from agebench.metrics.schema import MetricsFile
from agebench.models import architectures
from agebench.models.age_model import AgeModel, create_model
from agebench.models.auxiliary_heads import SupportsAuxiliaryTargets
from agebench.models.estimates import AgeEstimates
from agebench.models.weights import digests, load_pretrained
from agebench.registry.catalog import Catalog
from agebench.runs.artifacts import (
    VALIDATION,
    faces_metadata,
    predictions_table,
    samples_metadata,
    save_predictions,
    save_samples,
)
from agebench.runs.cross_validation import concat_fold_predictions, evaluate_run
from agebench.runs.datasets import AnyConfig, RunData, open_run_data, split_train_dataset
from agebench.runs.evaluation import RunResult, evaluate_and_report
from agebench.runs.guarantees import deployment_guarantees
from agebench.runs.manifest import ExportRecord, Inputs, Manifest, ModelRecord, TrainingSet
from agebench.runs.provenance import input_digests, require_unchanged
from agebench.runs.resolve import model_alignment_spec
from agebench.runs.run_dir import RunDir
from agebench.runs.splits import FoldSplits, RunSplits, task_classes
from agebench.runs.tracking import LearningCurveCallback, flatten_settings, tracked_results
from agebench.training import distributed
from agebench.training.dataloader import derive_seed, make_face_dataset
from agebench.training.device import hardware_info, resolve_device
from agebench.training.frozen_features import frozen_features
from agebench.training.prediction import predict
from agebench.training.trackers import RunTrackers, TrackedRun, open_trackers, require_installed
from agebench.training.trainer import History, Trainer, configure_model
from agebench.types import TrackerName, WeightsKind, WeightsSource

logger = logging.getLogger(__name__)


def run(
    config: RunConfig,
    catalog: Catalog,
    folder: RunDir,
    *,
    quiet: bool = False,
    trackers: Sequence[TrackerName] = (TrackerName.TENSORBOARD,),
) -> RunResult:
    """Execute a run in its folder, or what remains of it.

    Args:
        config: the run's settings.
        catalog: the cards of its datasets.
        folder: the run's folder.
        quiet: whether progress of training is hidden.
        trackers: where the curves go.

    Raises:
        UserError: the run was started with other data or weights than there are now, or a tracker cannot be used.
        AgebenchError: a step failed; finished steps are kept, and the same call continues.
    """
    require_installed(trackers)
    experiment = Experiment(config, folder, quiet=quiet)
    experiment.build_model()
    experiment.read_datasets(catalog)
    experiment.refuse_changed_inputs()
    experiment.prepare_faces()
    experiment.add_targets()
    experiment.compute_model_inputs()
    experiment.write_samples()
    experiment.write_manifest()
    settings = flatten_settings(config.model_dump(mode="json"))
    with open_trackers(trackers, TrackedRun(folder.path, settings, folder.started())) as experiment.trackers:
        experiment.train_and_predict()
        if distributed.get_rank():  # only the first of several processes evaluates and writes
            return RunResult(folder.path, MetricsFile(), experiment.manifest)
        result = experiment.evaluate_and_report()
        experiment.trackers.log_results(tracked_results(result.metrics))
    return result


@dataclass
class Experiment:
    """The state of one run between its steps.

    Attributes:
        config: the run's settings.
        folder: the run's folder.
        quiet: whether progress of training is hidden.
        trackers: get the curves.
        device: where the model computes.
        model: the initial model; after a run of one fold, the best one.
        weights: the origin of the initial weights.
        initial_digests: digests of the initial weights, before auxiliary heads are added.
        data: the datasets, and their samples after exclusions.
        splits: the division of each fold.
        inputs: digests of everything that determines the run's data and initial weights.
        faces: dataset -> prepared faces.
        model_inputs: dataset -> what the model is trained on: the faces, or features of a frozen backbone.
        manifest: the content of manifest.json.
        history: the epochs of all folds.
    """

    config: RunConfig
    folder: RunDir
    quiet: bool = False
    trackers: RunTrackers = field(default_factory=RunTrackers)
    device: torch.device = field(init=False)
    model: AgeModel = field(init=False)
    weights: WeightsSource = field(init=False)
    initial_digests: dict[str, str] = field(init=False)
    data: RunData = field(init=False)
    splits: FoldSplits = field(init=False)
    inputs: Inputs = field(init=False)
    faces: dict[str, FaceCache] = field(init=False)
    model_inputs: dict[str, FaceCache] = field(init=False)
    manifest: Manifest = field(init=False)
    history: History = field(init=False)

    def build_model(self) -> None:
        """Build the initial model. Comes first so that configuration errors surface before data preparation."""
        self.device = resolve_device(self.config.device)
        self.model, self.weights = initial_model(self.config)
        self.initial_digests = digests(self.model, self.model.backbone)

    def read_datasets(self, catalog: Catalog) -> None:
        """Read and audit the datasets, and split the training set."""
        self.folder.begin(self.config)
        with self.folder.timed("read_s"):
            self.data = open_run_data(self.config, catalog)
            self.splits = split_train_dataset(self.config, self.data)

    def refuse_changed_inputs(self) -> None:
        """Refuse to resume a run whose data or initial weights have changed."""
        with self.folder.timed("read_s"):
            self.inputs = input_digests(self.config, self.data, self.splits)
            if self.weights.kind is not WeightsKind.RANDOM:
                self.inputs["initial"] = {"backbone": self.initial_digests["backbone_sha256"]}
            # Of several processes only the first has the run's folder.
            if distributed.broadcast_from_main(self.folder.started):
                distributed.broadcast_from_main(lambda: require_unchanged(self.folder, self.inputs))

    def prepare_faces(self) -> None:
        """Align all faces, through the cache, and drop the samples without one from the splits."""
        with self.folder.timed("faces_s"):
            self.faces = {
                name: prepare_faces(self.config, dataset, self.data.samples[name])
                for name, dataset in self.data.datasets.items()
            }
            self.splits = self.splits.drop_rejected(self.faces)

    def add_targets(self) -> None:
        """Add the heads of auxiliary targets to the model."""
        add_tasks(self.config, self.model, self.splits.labelled())

    def compute_model_inputs(self) -> None:
        """Compute the features of a frozen backbone; without one the model's inputs are the faces."""
        self.model_inputs = model_inputs(self.config, self.folder, self.model, self.faces, self.device)

    def write_samples(self) -> None:
        """Write which image is in which split, and which were rejected."""
        save_samples(self.folder, self.splits, self.data.samples)

    def write_manifest(self) -> None:
        """Write what the run is made of, before it trains."""
        config, data = self.config, self.data
        train_card = data.cards[config.data.train]
        self.manifest = Manifest(
            seed=config.seed,
            hardware=hardware_info(self.device),
            train=TrainingSet(name=config.data.train, title=train_card.title),
            model=_model_metadata(config, self.model, self.weights, self.initial_digests),
            faces=faces_metadata(data.cards, config.model, config.faces, self.faces),
            protocol=self.splits.protocol(),
            samples=samples_metadata(self.splits, data.samples),
            inputs=self.inputs,
            licences={name: card.licence for name, card in data.cards.items()},
            finished=False,
        )
        self.manifest.record_left_out(config.data.limit, data.exclusions)
        self.folder.write_manifest(self.manifest)

    def train_and_predict(self) -> None:
        """Train each fold and predict its test sets."""
        self.history = cross_validate(
            self.config,
            self.folder,
            self.model,
            self.splits,
            self.model_inputs,
            self.device,
            quiet=self.quiet,
            trackers=self.trackers,
        )

    def evaluate_and_report(self) -> RunResult:
        """Compute the metrics, export the model, and write the report."""
        n_folds = len(self.splits)
        self.manifest.epochs = round(len(self.history.epochs) / n_folds)
        self.manifest.timings = {"images_per_s": round(self.history.images_per_s, 1)}
        # An interrupted run has epochs of earlier calls.
        of_epochs = round(sum(epoch["seconds"] for epoch in self.history.epochs), 2)
        self.folder.timings["train_s"] = max(self.folder.timings.get("train_s", 0.0), of_epochs)
        with self.folder.timed("evaluate_s"):
            metrics = evaluate_run(self.config, self.folder, self.splits)
        return evaluate_and_report(
            self.folder,
            self.manifest,
            metrics,
            lambda: {name: concat_fold_predictions(self.folder, self.splits, name) for name in self.splits.tests},
            self.data.samples,
            self.faces,
            # With several folds there are several models, and none of them is the run's.
            **({"export": self.export} if n_folds == 1 else {}),
        )

    def export(self, metrics: MetricsFile) -> None:
        """Export the best model as TorchScript, with a card and its deployment guarantees."""
        variant, card = ExportVariant("torchscript"), self.config.model
        with self.folder.timed("export_s"):
            train_card = self.data.cards[self.config.data.train]
            facts = RunFacts.model_validate(self.manifest.to_json())
            guarantees = deployment_guarantees(self.folder, self.splits.train_dataset, self.splits.tests)
            content = build_card(self.model, card, train_card, facts, metrics, self.config.faces)
            content = content.model_copy(update={"promises": guarantees})
            path, examples = self.folder.path / "export" / variant.file, _example_crops(self.faces, self.splits[0])
            written = write_export(self.model, card, content, path, examples=examples, variant=variant)
        self.manifest.best_epoch = self.history.best_epoch
        self.manifest.export = ExportRecord(max_difference_years=written.checked.max_difference_years)


def initial_model(config: RunConfig) -> tuple[AgeModel, WeightsSource]:
    """Build the initial model; return it and the origin of its weights.

    Args:
        config: the run's settings.

    Raises:
        UserError: the weights do not exist or do not fit, a frozen backbone would never learn its targets, or the model could
            not be exported.
    """
    torch.manual_seed(derive_seed(config.seed, "weights"))
    model = create_model(config.model)
    require_source(model.head)
    _refuse_frozen_outputs(config, model)
    configure_model(model, config.train)
    if not config.pretrained:
        if config.train.frozen_layers:
            logger.warning(
                "train.frozen_layers = %d freezes random weights: pretrained is empty", config.train.frozen_layers
            )
        return model, WeightsSource(WeightsKind.RANDOM)
    if config.model.backbone in architectures.NAMES:
        # Imported late: it imports timm, which takes seconds.
        from agebench.models.architectures.official_weights import load_published

        return model, load_published(model, config.model, Path(config.pretrained).expanduser())
    return model, load_pretrained(model.backbone, config.model, config.pretrained)


def _refuse_frozen_outputs(config: RunConfig, model: AgeModel) -> None:
    """Refuse to freeze a backbone that computes outputs itself, always or in the first epochs: they would not be trained."""
    if not isinstance(model.backbone, SupportsAuxiliaryTargets):
        return
    within = ["age"] if not list(model.head.parameters()) else []
    if within and config.train.head_epochs:
        raise UserError(
            f"train.head_epochs = {config.train.head_epochs}: {config.model.backbone} answers age within its backbone, so that "
            "there is no head to train alone; leave it out"
        )
    if not config.train.freeze:
        return
    frozen_outputs = [*within, *config.model.targets]
    if frozen_outputs:
        suggestion = "leave out train.freeze"
        if "age" not in frozen_outputs:
            suggestion += f", or {frozen_outputs[0]} with --task {frozen_outputs[0]}=0"
        raise UserError(
            f"train.freeze = {config.train.freeze}: {config.model.backbone} answers {' and '.join(frozen_outputs)} within its "
            f"backbone, which would not be learned; {suggestion}"
        )


def add_tasks(config: RunConfig, model: AgeModel, labelled: Samples) -> None:
    """Add the heads of auxiliary targets to the model.

    Args:
        config: the run's settings.
        model: the model; changed in place.
        labelled: training samples, whose labels are the classes.
    """
    torch.manual_seed(derive_seed(config.seed, "tasks"))
    for name in config.model.targets:
        model.add_task(name, task_classes(config.data.train, labelled, name))


def prepare_faces(config: AnyConfig, dataset: Dataset, samples: Samples | None = None) -> FaceCache:
    """Prepare the faces of a dataset, through the cache.

    Args:
        config: the settings of the run or test.
        dataset: the dataset.
        samples: the samples to prepare; None: all of the dataset.
    """
    spec = model_alignment_spec(config.faces, dataset.card, config.model)
    return load_or_build_face_cache(
        dataset.reader, dataset.samples if samples is None else samples, spec, name=dataset.card.name
    )


def cross_validate(
    config: RunConfig,
    folder: RunDir,
    model: AgeModel,
    splits: FoldSplits,
    faces: dict[str, FaceCache],
    device: torch.device,
    *,
    quiet: bool,
    trackers: RunTrackers,
) -> History:
    """Train and predict fold by fold; finished folds are skipped. Return the epochs of all folds.

    A run of one fold leaves everything in the run's folder and its weights in `model`. Otherwise each fold has a folder
    and starts from a copy of `model`.

    Args:
        config: the run's settings.
        folder: the run's folder.
        model: the initial model.
        splits: the division of each fold.
        faces: dataset -> inputs of the model.
        device: where the model computes.
        quiet: whether progress of training is hidden.
        trackers: get the curves.
    """
    if len(splits) == 1:
        return _fit_fold(config, folder, model, splits[0], faces, device, quiet=quiet, trackers=trackers)
    if distributed.get_world_size() > 1:
        raise UserError(
            f"the protocol '{config.data.protocol}' has {len(splits)} folds, and these run in one process each: "
            "start it by `agebench run`"
        )
    combined_history, is_resumed = History(), False
    for fold, split in enumerate(splits):
        fold_dir = folder.fold(fold, len(splits))
        history = History(fold_dir.fold_history())
        is_resumed |= bool(history.epochs)
        if not history.epochs:
            fold_model = copy.deepcopy(model)
            history = _fit_fold(
                config,
                fold_dir,
                fold_model,
                split,
                faces,
                device,
                quiet=True,
                trackers=trackers,
                fold=f"fold-{fold + 1}",
            )
            fold_dir.mark_fold_done(splits.folds.names[fold], history.epochs)
            if not quiet:
                best_mae = history.epochs[history.best_epoch - 1]["val_mae"]
                logger.info("fold %d/%d: validation MAE %.2f", fold + 1, len(splits), best_mae)
        combined_history.epochs += history.epochs
    if is_resumed:
        folder.timings.pop("predict_s", None)  # of some folds only
    return combined_history


def _fit_fold(
    config: RunConfig,
    folder: RunDir,
    model: AgeModel,
    split: RunSplits,
    faces: dict[str, FaceCache],
    device: torch.device,
    *,
    quiet: bool,
    trackers: RunTrackers,
    fold: str = "",
) -> History:
    """Train on one fold, then predict its test sets (predictions/<test>.parquet) and its validation split.

    The validation predictions (validation.parquet) calibrate intervals for new faces.

    Args:
        config: the run's settings.
        folder: the folder of the run, or of the fold.
        model: the initial model; holds the best epoch's weights afterwards.
        split: the fold's samples.
        faces: dataset -> inputs of the model.
        device: where the model computes.
        quiet: whether progress of training is hidden.
        trackers: get the curves.
        fold: the fold's name in the trackers; "": the run has one fold.
    """
    train_faces = faces[split.train_dataset]
    with folder.timed("train_s"):
        history = fit(config, folder, model, split, train_faces, device, quiet=quiet, trackers=trackers, fold=fold)
    with folder.timed("predict_s"):
        for name, test in split.tests.items():
            table, estimates = _predict_samples(config, model, test, faces[name], device)
            save_predictions(folder, name, table, estimates.probs)
        table, _ = _predict_samples(config, model, split.val, train_faces, device)
        folder.write_table(VALIDATION, table)
    return history


def model_inputs(
    config: RunConfig, folder: RunDir, model: AgeModel, faces: dict[str, FaceCache], device: torch.device
) -> dict[str, FaceCache]:
    """Return dataset -> inputs of the model: the faces, or the features of a frozen backbone.

    Args:
        config: the run's settings.
        folder: the run's folder, for the timing.
        model: the initial model.
        faces: dataset -> prepared faces.
        device: where the model computes.
    """
    recipe = config.train
    if not recipe.freeze:
        return faces
    with folder.timed("features_s"):
        return {
            name: frozen_features(
                model,
                cache,
                config.model,
                mirrored=recipe.augment.flip > 0 or recipe.flip_tta,
                device=device,
                precision=recipe.precision,
            )
            for name, cache in faces.items()
        }


def fit(
    config: RunConfig,
    folder: RunDir,
    model: AgeModel,
    split: RunSplits,
    faces: FaceCache,
    device: torch.device,
    *,
    quiet: bool,
    trackers: RunTrackers | None = None,
    fold: str = "",
) -> History:
    """Train, or resume training. Leaves the best epoch's weights in `model` and history.json in the folder.

    Args:
        config: the run's settings.
        folder: the folder of the run, or of the fold.
        model: the model; changed in place.
        split: the fold's samples.
        faces: the model's inputs of the training set.
        device: where the model computes.
        quiet: whether progress of training is hidden.
        trackers: get the curves; None: TensorBoard files in the folder.
        fold: the fold's name in the trackers; "": the run has one fold.
    """
    train_set = make_face_dataset(faces, split.train, model.classes)
    val_set = make_face_dataset(faces, split.val)
    model.head.init_from_ages(torch.from_numpy(train_set.ages))
    trainer = Trainer(model, config.model, config.train, seed=config.seed, device=device, folder=folder.checkpoints)
    trainer.resume()
    first_step = trainer.steps_done(train_set)
    opened = (trackers or RunTrackers()).training(folder.path / "tensorboard", fold=fold, first_step=first_step)
    epochs = trainer.history.epochs
    with (
        opened as destinations,
        LearningCurveCallback(folder.path, epochs, destinations, first_step=first_step, quiet=quiet) as callback,
    ):
        history = trainer.fit(train_set, val_set, callback)
    folder.write_json("history.json", history.epochs)
    trainer.load_best()
    return history


def _predict_samples(
    config: RunConfig, model: AgeModel, samples: Samples, faces: FaceCache, device: torch.device
) -> tuple[pd.DataFrame, AgeEstimates]:
    """Predict ages for `samples` and join them with the labels. A test set is read only here.

    Args:
        config: the run's settings.
        model: the trained model.
        samples: the samples.
        faces: the model's inputs of their dataset.
        device: where the model computes.
    """
    data = make_face_dataset(faces, samples)
    estimates = predict(model, data, config.model, device, precision=config.train.precision)
    return predictions_table(samples, estimates, model.classes), estimates


def _model_metadata(
    config: RunConfig, model: AgeModel, weights: WeightsSource, initial_digests: dict[str, str]
) -> ModelRecord:
    """Return the manifest's entry of the model.

    Args:
        config: the run's settings.
        model: the model with its auxiliary heads.
        weights: the origin of its initial weights.
        initial_digests: digests of the initial weights, before auxiliary heads were added.
    """
    keys = {"name", "title", "backbone", "head", "head_options", "size", "tasks"}
    record = ModelRecord(
        **config.model.model_dump(mode="json", include=keys),
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        weights=str(weights),
        weights_source=weights.record(),
        initial=initial_digests,
    )
    # What a file's weights were trained on is not known from the card.
    if config.model.pretraining_data and weights.kind not in (WeightsKind.RANDOM, WeightsKind.FILE):
        record.pretraining_data = config.model.pretraining_data
    if model.classes:
        record.classes = {name: list(values) for name, values in model.classes.items()}
    return record


def _example_crops(faces: dict[str, FaceCache], split: RunSplits, count: int = 64) -> np.ndarray:
    """Return the first faces of the first test set, (n, S, S, C) uint8, to check an export on.

    Args:
        faces: dataset -> prepared faces.
        split: the run's samples.
        count: the largest number of faces.
    """
    name, test = next(iter(split.tests.items()))
    crops: np.ndarray = faces[name].pixels[faces[name].rows(test)[:count]]
    return crops
