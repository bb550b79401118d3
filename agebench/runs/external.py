"""Test an external model."""

from agebench.config.cards.external import ExternalCard
from agebench.config.evaluate import ExternalConfig
from agebench.data.faces.cache import FaceCache
from agebench.data.samples import Samples
from agebench.estimators.external.base import estimate
from agebench.registry.catalog import Catalog
from agebench.runs.evaluate import EvaluatedModel, evaluate_model
from agebench.runs.evaluation import RunResult
from agebench.runs.manifest import ModelRecord
from agebench.runs.provenance import model_digest
from agebench.runs.run_dir import RunDir
from agebench.training.device import resolve_device
from agebench.training.prediction import FaceEstimates


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

    def predict(name: str, faces: FaceCache, test: Samples) -> FaceEstimates:
        return FaceEstimates(*estimate(config.model, faces.pixels, faces.rows(test), device=str(device), label=name))

    model = EvaluatedModel(
        external_metadata(config.model, digest), predict, lambda dataset: training_overlap_status(config.model, dataset)
    )
    return evaluate_model(config, model, catalog, folder, device)


def training_overlap_status(card: ExternalCard, dataset: str) -> str:
    """Return whether the model may have seen the dataset in training: `known`, `unknown` or `none stated`.

    Args:
        card: the model's card.
        dataset: the dataset's name.
    """
    if dataset in card.trained_on:
        return "known"
    return "unknown" if card.training_data.lower().startswith("unknown") else "none stated"


def external_metadata(card: ExternalCard, digest: str) -> ModelRecord:
    """Return the manifest's entry of the model: its format, source, and known training data.

    Args:
        card: the model's card.
        digest: digest of the model's file.
    """
    keys = {"name", "title", "kind", "format", "source", "size", "training_data", "trained_on", "licence", "citation"}
    return ModelRecord(**card.model_dump(mode="json", include=keys), size=card.size, file_sha256=digest)
