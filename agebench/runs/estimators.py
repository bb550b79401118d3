"""Open any age estimator: a run's folder, an exported file, a pushed model, an external model's card.

`load_estimator` lives here, not in `agebench.estimators`, because opening a run needs the packages above that one.
"""

import hashlib
import logging
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field

from agebench.config.cards.dataset import DatasetCard
from agebench.config.cards.external import ExternalCard
from agebench.config.run import FacesConfig, RunConfig
from agebench.config.toml_io import validate_model
from agebench.data.faces.cache import load_or_build_face_cache
from agebench.data.samples import Samples
from agebench.errors import UserError
from agebench.estimators import released
from agebench.estimators.base import AgeEstimates, AgeEstimator, BaseEstimator, InputSpec
from agebench.estimators.exported.adapter import CardGuarantees, ExportedEstimator, card_info
from agebench.estimators.exported.base import SUFFIXES
from agebench.estimators.exported.card import ExportCard, read_card
from agebench.estimators.exported.loading import open_exported
from agebench.estimators.external.base import ExternalEstimator, fingerprint
from agebench.estimators.hub import CARD, fetch
from agebench.estimators.trained import TrainedEstimator
from agebench.export.card import build_card, verify_card
from agebench.metrics.guarantees import CalibrationError, conformal_interval, error_by_estimated_age, gate_error_rates
from agebench.metrics.schema import CalibratedInterval, EstimateErrors, GateGuarantee, ResultModel
from agebench.registry.catalog import Catalog, load_catalog
from agebench.runs.datasets import open_dataset
from agebench.runs.guarantees import calibrated_interval, run_facts, tables_of_tests
from agebench.runs.loading import load_run, load_test_set
from agebench.runs.resolve import alignment_spec
from agebench.runs.run_dir import RunDir
from agebench.runs.validation import validation_predictions
from agebench.training.dataloader import FaceDataset, make_face_dataset
from agebench.training.device import resolve_device
from agebench.utils.integrity import read_json_table
from agebench.utils.io import file_digest
from agebench.utils.text import slug

logger = logging.getLogger(__name__)


class RunEstimator(BaseEstimator):
    """The best model of a finished run, with guarantees computed from the run's own predictions.

    Args:
        path: the run's folder.
        catalog: the registered cards; the training set's card is among them.
        device: `auto`, `cpu`, `cuda`, …
        trusted: False if the folder was written by someone else: its model must then be that of the checkpoint.

    Attributes:
        path: the run's folder.
        config: the run's settings.
        network: the trained network.
        card: the card that its exported file would have, without guarantees.

    Raises:
        UserError: the run is not finished, has one model per fold, or its checkpoint is missing or damaged.
    """

    def __init__(self, path: Path, catalog: Catalog, device: str = "auto", *, trusted: bool = True) -> None:
        folder, self.path = RunDir(path), path
        self._folder, self._catalog = folder, catalog
        manifest = folder.manifest()
        if (path / "config.toml").exists() and not manifest.get("finished"):
            raise UserError(
                f"{path}: this run is not finished, so nothing is known of its errors; continue with "
                f"`agebench run --config {path / 'config.toml'} --out {path} --resume`"
            )
        self._metrics = folder.metrics_file()
        folds = (self._metrics.protocol and self._metrics.protocol.folds) or 1
        if folds > 1:
            raise UserError(f"{path}: this run has {folds} models, one a fold, and none of them is the run's")
        self.config, self.network = load_run(folder, device, trusted=trusted)
        self._intervals: dict[float, CalibratedInterval] = {}
        spec = self.network.input_spec
        self.input_spec = InputSpec(
            spec.size,
            spec.crop_scale,
            planes=spec.planes,
            detector=self.config.faces.detector,
            offset=spec.offset,
            visible=spec.visible,
            mode=self.config.faces.mode,
        )
        self.card = self._load_card()
        self.info = card_info(self.card)

    def _load_card(self) -> ExportCard:
        facts, dataset = run_facts(self._folder), self._catalog.datasets.get(self.config.data.train)
        return build_card(self.network.model, self.config.model, dataset, facts, self._metrics, self.config.faces)

    def estimate(self, images: np.ndarray) -> AgeEstimates:
        """Estimate the ages of N faces.

        Args:
            images: (N, S, S, 3) uint8 RGB, aligned; N may be 0.
        """
        return self.network.estimate(images)

    def interval(self, level: float) -> CalibratedInterval:
        """Return the conformal interval of this level; see `agebench.estimators.base.Guarantees`.

        Args:
            level: share of true ages that the interval is to contain, between 0 and 1.

        Raises:
            CalibrationError: the validation part is missing, or too small for this level.
            UserError: the level is out of range.
        """
        if level not in self._intervals:  # the demo asks for every image
            interval = conformal_interval(self._validation, self._tests, level)
            self._intervals[level] = calibrated_interval(interval, self.config.data.train)
        return self._intervals[level]

    def gate(self, threshold: int, challenge: float | None) -> GateGuarantee:
        """Return the error rates of an age gate; see `agebench.estimators.base.Guarantees`.

        Args:
            threshold: legal age, years.
            challenge: estimated age from which a person passes, years; None: the threshold plus the default margin.
        """
        return gate_error_rates(self._tests, threshold, challenge)

    def errors(self) -> EstimateErrors:
        """Return errors by estimated age; see `agebench.estimators.base.Guarantees`."""
        return error_by_estimated_age(self._tests)

    @cached_property
    def _validation(self) -> pd.DataFrame:
        try:
            return validation_predictions(self.config, self._folder, self.network, self._catalog)
        except UserError as error:
            raise CalibrationError(
                f"no intervals: {self._folder.path} holds no predictions of its validation part (runs of now keep them), and "
                f"they cannot be made now: {error}"
            ) from error

    @cached_property
    def _tests(self) -> Mapping[str, pd.DataFrame]:
        return tables_of_tests(self._folder, self.config.data.train, self._metrics.tests)


class _Table(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow")


class _Network(_Table):
    classes: dict[str, Annotated[list[str], Field(min_length=1)]] = {}


class _Manifest(_Table):
    model: _Network | None = None


class _Protocol(_Table):
    folds: int = 1


class _Metrics(_Table):
    protocol: _Protocol = _Protocol()


class PushedEstimator(CardGuarantees, RunEstimator):
    """A run as `agebench push` wrote it: without labels, with a card that states its guarantees. It is untrusted.

    Args:
        path: the fetched folder.
        catalog: the registered cards.
        device: `auto`, `cpu`, `cuda`, …

    Raises:
        UserError: a file is missing or invalid, or the card is not that of the model beside it.
        AgebenchError: a file is damaged.
    """

    def __init__(self, path: Path, catalog: Catalog, device: str = "auto") -> None:
        folder, source = RunDir(path), path / CARD
        validate_model(_Manifest, folder.manifest(), source=str(path / "manifest.json"))
        validate_model(_Metrics, read_json_table(path / "metrics.json"), source=str(path / "metrics.json"))
        self._source = source
        RunEstimator.__init__(self, path, catalog, device, trusted=False)
        CardGuarantees.__init__(self, source, self.card)

    def _load_card(self) -> ExportCard:
        card = read_card(self._source, self._source.read_bytes())
        verify_card(self._source, card, self.network.model, self.config.model)
        return card


def load_estimator(
    model: str | Path, *, trusted: bool = False, device: str = "auto", catalog: Catalog | None = None
) -> AgeEstimator:
    """Open an age estimator.

    Args:
        model: the folder of a finished run, an exported file, hf://OWNER/NAME@COMMIT (a model that `agebench push`
            wrote), the name of an external model's card, or `agebench-base`, the model that ships with agebench.
        trusted: whether files that can run code when they are opened may be opened.
        device: `auto`, `cpu`, `cuda`, …
        catalog: the cards whose names can be given; default: the shipped ones, those of plugins and of
            AGEBENCH_REGISTRY.

    Returns:
        The estimator. Runs, exported files and pushed models also are `agebench.estimators.base.Guarantees`.

    Raises:
        UserError: there is no such model, it has to be trained first, or its run is not finished.
    """
    name, catalog = str(model), catalog or load_catalog()
    if name == released.NAME:
        return _open_released(device)
    if name.startswith("hf://"):
        return PushedEstimator(fetch(name), catalog, device)
    path = Path(name).expanduser()
    if path.is_dir():
        return RunEstimator(path, catalog, device)
    if path.is_file():
        return ExportedEstimator(open_exported(path, trusted=trusted, device=str(resolve_device(device))))
    if name not in {*catalog.models.names(), *catalog.models.broken()}:  # `get` states what is wrong with a broken card
        raise UserError(
            f"{name}: no such folder or file, and no model's card of this name; give a run's folder, an exported file, "
            f"hf://OWNER/NAME@COMMIT, {released.NAME}, or a name of `agebench list models`"
        )
    card = catalog.models.get(name)
    if not isinstance(card, ExternalCard):
        raise UserError(
            f"model '{name}' has to be trained first: agebench run --train DATASET --test DATASET --model {name}; then give "
            "the run's folder"
        )
    return ExternalEstimator(card, str(resolve_device(device)))


def _open_released(device: str = "auto") -> ExportedEstimator:
    """Open the model that ships with agebench. Its digest is known, so that it needs no trust.

    Args:
        device: `auto`, `cpu`, `cuda`, …

    Raises:
        UserError: this copy of agebench has no released model.
        AgebenchError: the model's file is damaged.
    """
    folder = released.released_dir()
    path = released.ReleasedModel.read(folder).path(folder)
    return ExportedEstimator(open_exported(path, trusted=True, device=str(resolve_device(device))))


def is_model(word: str, catalog: Catalog) -> bool:
    """Return whether a word of the command line names a model rather than an image, a folder of images or a video.

    Args:
        word: the word.
        catalog: the cards whose names can be given.
    """
    path = Path(word).expanduser()
    if word == released.NAME or word.startswith("hf://") or word in catalog.models.names():
        return True
    if path.is_dir():
        return (path / "manifest.json").exists() or (path / "config.toml").exists()
    return path.suffix.lower() in SUFFIXES


def content_digest(model: str, catalog: Catalog) -> str:
    """Return a digest that changes when another model is put in the place of a file, of a run's folder or of a card.

    Args:
        model: as for `load_estimator`.
        catalog: the cards whose names can be given.

    Returns:
        The digest; empty for a model of the hub.

    Raises:
        OSError: the file cannot be read.
        UserError: a file of the card's model is missing.
    """
    path = Path(model).expanduser()
    if path.is_dir():  # a run's manifest holds the times and digests of its training
        path = path / "manifest.json"
    if path.is_file():
        return file_digest(path)
    card = catalog.models.get(model) if model in catalog.models.names() else None
    if not isinstance(card, ExternalCard):
        return ""
    return hashlib.sha256(f"{fingerprint(card)} {card.model_dump_json()}".encode()).hexdigest()


def _report_folder(estimator: AgeEstimator, catalog: Catalog) -> Path:
    """Return the folder of reports on an estimator that is no run here. Its name may come from an untrusted card."""
    if isinstance(estimator, ExternalEstimator):
        return Path("runs") / estimator.card.name
    name = slug(estimator.info.name, "estimator")
    if isinstance(estimator, ExportedEstimator | PushedEstimator):
        name += f"-{content_digest(str(estimator.path), catalog)[:8]}"
    return Path("runs") / name


def network_of(estimator: AgeEstimator) -> TrainedEstimator | None:
    """Return the trained network inside an estimator, for methods that need gradients; None if it has none.

    Args:
        estimator: any estimator.
    """
    if isinstance(estimator, RunEstimator):
        return estimator.network
    return estimator if isinstance(estimator, TrainedEstimator) else None


class EstimatorDescription(ResultModel):
    """Identity of an analyzed estimator."""

    name: str
    title: str
    version: str
    training_data: str


class SubjectDescription(ResultModel):
    """The analyzed estimator, and whether it may have seen the dataset; empty for a run, whose images are left out."""

    estimator: EstimatorDescription | None = None
    contamination: str | None = None


def _own_mode(spec: InputSpec, card: DatasetCard) -> str:
    """Return the mode of faces that a model states; empty where the dataset has no points for it."""
    if spec.mode == "landmarks" and not card.landmark_points:
        logger.warning("the model is for faces aligned by landmarks, and '%s' has none; its card decides", card.name)
        return ""
    return spec.mode


class AnalysisSubject:
    """An estimator to be analyzed on a dataset, with the dataset's faces prepared as the estimator expects them.

    Args:
        model: as `load_estimator` takes it; of a folder, the run need not be finished. Or an open estimator, which stays open.
        catalog: the registered cards.
        device: `auto`, `cpu`, `cuda`, …
        trusted: whether files that can run code when they are opened may be opened.

    Attributes:
        estimator: the estimator; of a run, its network.
        folder: the folder for reports: the run's, else `runs/<name of the estimator>`; of an exported or a pushed model with
            the first digits of its digest, because its card names no more than its architecture.

    Raises:
        UserError: there is no such model, or it cannot be opened.
    """

    def __init__(
        self, model: str | AgeEstimator, catalog: Catalog, device: str = "auto", *, trusted: bool = False
    ) -> None:
        self._catalog = catalog
        self._config: RunConfig | None = None
        self._is_borrowed = not isinstance(model, str)
        self.estimator: AgeEstimator
        if isinstance(model, RunEstimator) and not isinstance(model, PushedEstimator):  # a pushed one has no samples
            self._config, self.estimator, self.folder = model.config, model.network, model.path
            return
        if not isinstance(model, str):
            self.estimator = model
            self.folder = _report_folder(model, catalog)
            return
        path = Path(model).expanduser()
        known = model == released.NAME or path.is_file() or model.startswith("hf://") or model in catalog.models.names()
        if path.is_dir() or not known:
            self._config, self.estimator = load_run(RunDir(path), device)
            self.folder = path
        else:
            self.estimator = load_estimator(model, trusted=trusted, device=device, catalog=catalog)
            self.folder = _report_folder(self.estimator, catalog)

    def opened(self) -> AbstractContextManager[AgeEstimator]:
        """Return the estimator to be used in a `with` statement, at whose end it is closed unless it was given open."""
        return nullcontext(self.estimator) if self._is_borrowed else self.estimator

    def load(self, name: str, faces: FacesConfig | None = None) -> tuple[Samples, FaceDataset]:
        """Load a dataset's samples and faces.

        A test set of a run consists of the images that the run tested; any other dataset is taken without the images
        and the people that the run was trained on. Of other estimators, the whole dataset is taken.

        Args:
            name: name of a registered dataset.
            faces: the mode and the detector of an estimator that states none; None: those of the dataset's card.

        Raises:
            UserError: there is no such dataset, or no face is left.
        """
        if self._config is not None:
            return load_test_set(self._config, RunDir(self.folder), self._catalog, name)
        dataset, spec = open_dataset(self._catalog.datasets.get(name)), self.estimator.input_spec
        if spec.kind == "photo":
            raise UserError(
                f"'{self.estimator.info.name}' takes whole photographs and detects faces itself; only `agebench test` can call it"
            )
        card = dataset.card
        faces = faces or FacesConfig()
        settings = FacesConfig.model_construct(  # the framing of a function may be out of the range of a run's
            coverage=spec.crop_scale,
            offset=spec.offset,
            visible=spec.visible,
            mode=_own_mode(spec, card) or faces.mode,
            detector=spec.detector or faces.detector,
        )
        alignment = replace(alignment_spec(settings, card, spec.size), fit=spec.fit, margin=spec.margin)
        cache = load_or_build_face_cache(dataset.reader, dataset.samples, alignment, name=card.name)
        samples = cache.drop_rejected(dataset.samples)
        if not len(samples):
            raise UserError(
                f"--test {name}: none of its {len(dataset.samples):,} images has a face; does `faces` on the card of "
                f"'{name}' fit?"
            )
        return samples, make_face_dataset(cache, samples)

    def describe(self, name: str) -> SubjectDescription:
        """Return the estimator, and whether it may have seen dataset `name`, for a report.

        Args:
            name: name of the dataset.
        """
        if self._config is not None:
            return SubjectDescription()
        info = self.estimator.info
        estimator = EstimatorDescription(
            name=info.name, title=info.title, version=info.version, training_data=info.training_data
        )
        return SubjectDescription(estimator=estimator, contamination=info.contamination(name))

    def datasets(self, name: str) -> tuple[str, list[str]]:
        """Return the training set and the test sets, which decide a dataset's color in figures.

        Args:
            name: name of the analyzed dataset.
        """
        if self._config is None:
            return "", [name]
        return self._config.data.train, [*self._config.data.test, name]
