"""One test of a model that is not ours."""

from typing import Any

from agebench.data.cache import Faces
from agebench.data.samples import Samples
from agebench.engine.devices import choose_device
from agebench.engine.predict import Estimates
from agebench.models.external.estimate import estimate
from agebench.registry.catalogue import Catalogue
from agebench.registry.external import ExternalCard
from agebench.runs.external_config import ExternalConfig
from agebench.runs.folder import RunFolder
from agebench.runs.inputs import model_digest
from agebench.runs.untrained import Tested, run_test


def run_external(config: ExternalConfig, catalogue: Catalogue, folder: RunFolder) -> dict[str, Any]:
    """Test an external model on every usable image of each dataset; returns metrics.json's content.

    Raises:
        UserError: its file or package is missing, or a dataset is.
        AgebenchError: a step's own, or what the model does wrong.
    """
    device = choose_device(config.device)
    digest = model_digest(config)  # first: a missing file fails before hours of preparing faces

    def answer(name: str, faces: Faces, test: Samples) -> Estimates:
        return Estimates(*estimate(config.model, faces.pixels, faces.rows(test), device=str(device), label=name))

    tested = Tested(
        describe_external(config.model, digest), answer, lambda dataset: contamination(config.model, dataset)
    )
    return run_test(config, tested, catalogue, folder, device)


def contamination(card: ExternalCard, dataset: str) -> str:
    """Whether the model may have seen the dataset in training: `known`, `unknown`, or `none stated`."""
    if dataset in card.trained_on:
        return "known"
    return "unknown" if card.training_data.lower().startswith("unknown") else "none stated"


def describe_external(card: ExternalCard, digest: str) -> dict[str, Any]:
    """For the manifest: what was called, and what is known of its training."""
    kept = {"name", "title", "kind", "format", "source", "size", "training_data", "trained_on", "licence", "citation"}
    return {**card.model_dump(mode="json", include=kept), "size": card.size, "file_sha256": digest}
