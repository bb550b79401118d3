"""One test of a model that is not ours."""

from typing import Any

from agebench.config.cards.external import ExternalCard
from agebench.data.faces.cache import FaceCache
from agebench.data.samples import Samples
from agebench.estimators.external.base import estimate
from agebench.models.estimates import AgeEstimates
from agebench.registry.catalog import Catalog
from agebench.runs.evaluate import EvaluatedModel, evaluate_model
from agebench.runs.external_config import ExternalConfig
from agebench.runs.provenance import model_digest
from agebench.runs.run_dir import RunDir
from agebench.training.device import resolve_device


def run_external(config: ExternalConfig, catalogue: Catalog, folder: RunDir) -> dict[str, Any]:
    """Test an external model on every usable image of each dataset; returns metrics.json's content.

    Raises:
        UserError: its file or package is missing, or a dataset is.
        AgebenchError: a step's own, or what the model does wrong.
    """
    device = resolve_device(config.device)
    digest = model_digest(config)  # first: a missing file fails before hours of preparing faces

    def answer(name: str, faces: FaceCache, test: Samples) -> AgeEstimates:
        return estimate(config.model, faces.pixels, faces.rows(test), device=str(device), label=name)

    tested = EvaluatedModel(
        external_metadata(config.model, digest), answer, lambda dataset: training_overlap_status(config.model, dataset)
    )
    return evaluate_model(config, tested, catalogue, folder, device)


def training_overlap_status(card: ExternalCard, dataset: str) -> str:
    """Whether the model may have seen the dataset in training: `known`, `unknown`, or `none stated`."""
    if dataset in card.trained_on:
        return "known"
    return "unknown" if card.training_data.lower().startswith("unknown") else "none stated"


def external_metadata(card: ExternalCard, digest: str) -> dict[str, Any]:
    """For the manifest: what was called, and what is known of its training."""
    kept = {"name", "title", "kind", "format", "source", "size", "training_data", "trained_on", "licence", "citation"}
    return {**card.model_dump(mode="json", include=kept), "size": card.size, "file_sha256": digest}
