"""Test an external model, or any open estimator."""

from dataclasses import replace

import numpy as np

from agebench.config.cards.external import ExternalCard, ExternalInput
from agebench.config.evaluate import ExternalConfig
from agebench.data.faces.cache import FaceCache
from agebench.data.samples import Samples
from agebench.estimators.base import AgeEstimates, AgeEstimator, concat_estimates, training_overlap
from agebench.estimators.external.base import ExternalEstimator, estimate
from agebench.estimators.external.photos import Photos
from agebench.registry.catalog import Catalog
from agebench.runs.evaluate import EvaluatedModel, evaluate_model
from agebench.runs.evaluation import RunResult
from agebench.runs.manifest import ModelRecord
from agebench.runs.provenance import model_digest
from agebench.runs.run_dir import RunDir
from agebench.training.device import resolve_device
from agebench.training.prediction import BATCH_SIZE
from agebench.utils.text import slug


def run_external(config: ExternalConfig, catalog: Catalog, folder: RunDir) -> RunResult:
    """Test an external model on every usable image of each dataset.

    Args:
        config: the test's settings.
        catalog: the cards of the datasets.
        folder: the test's folder.

    Raises:
        UserError: a dataset, or the model's file or package, is missing.
        AgebenchError: the model failed.
    """
    device = resolve_device(config.device)
    digest = model_digest(config)  # first: a missing file fails before hours of face preparation

    def predict(name: str, faces: FaceCache, test: Samples) -> AgeEstimates:
        return estimate(config.model, faces.pixels, faces.rows(test), device=str(device), label=name)

    def predict_photos(name: str, photos: Photos) -> AgeEstimates:
        with ExternalEstimator(config.model, str(device)) as estimator:
            return estimator.estimate_photos(photos, label=name)

    model = EvaluatedModel(
        _external_metadata(config.model, digest),
        predict,
        lambda dataset: training_overlap(config.model.trained_on, config.model.training_data, dataset),
        config.model.output.classes,
        predict_photos if config.model.input.kind == "photo" else None,
    )
    return evaluate_model(config, model, catalog, folder, device)


def evaluate_estimator(estimator: AgeEstimator, config: ExternalConfig, catalog: Catalog, folder: RunDir) -> RunResult:
    """Test an open estimator on every usable image of each dataset.

    Args:
        estimator: the estimator.
        config: the test's settings; its model is `estimator_card(estimator)`.
        catalog: the cards of the datasets.
        folder: the test's folder.

    Raises:
        UserError: a dataset is missing.
        AgebenchError: the estimator failed.
    """

    def predict(name: str, faces: FaceCache, test: Samples) -> AgeEstimates:
        rows = faces.rows(test)
        starts = range(0, len(rows), BATCH_SIZE)
        found = concat_estimates(
            [estimator.estimate(np.asarray(faces.pixels[rows[start : start + BATCH_SIZE]])) for start in starts]
        )
        return replace(found, tasks={name: shares for name, shares in found.tasks.items() if name in classes})

    classes = estimator.card.output.classes if isinstance(estimator, ExternalEstimator) else {}
    model = EvaluatedModel(_external_metadata(config.model, ""), predict, estimator.info.contamination, classes)
    return evaluate_model(config, model, catalog, folder, resolve_device(config.device))


def estimator_card(estimator: AgeEstimator) -> ExternalCard:
    """Describe an open estimator as an external model: its name, its input and its training data.

    Args:
        estimator: the estimator.
    """
    info, spec = estimator.info, estimator.input_spec
    name = slug(info.name, "estimator")
    return ExternalCard(
        name=name,
        title=info.title or info.name,
        format="callable",
        source=f"python:{name}",
        input=ExternalInput(
            kind=spec.kind,
            size=spec.size,
            coverage=spec.crop_scale,
            offset=spec.offset,
            visible=spec.visible,
            margin=spec.margin,
            fit=spec.fit,
        ),
        training_data=info.training_data,
        trained_on=info.trained_on,
        licence=info.licence,
    )


def _external_metadata(card: ExternalCard, digest: str) -> ModelRecord:
    """Return the manifest's entry of the model: its format, source, and known training data.

    Args:
        card: the model's card.
        digest: digest of the model's file.
    """
    keys = {"name", "title", "kind", "format", "source", "size", "training_data", "trained_on", "licence", "citation"}
    return ModelRecord(**card.model_dump(mode="json", include=keys), size=card.size, file_sha256=digest)
