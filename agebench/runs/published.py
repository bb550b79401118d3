"""One test of a zoo model with its authors' weights: ages, and what else the weights say."""

from pathlib import Path
from typing import Any

from agebench.config.cards.base import Training
from agebench.data.faces.cache import FaceCache
from agebench.data.samples import Samples
from agebench.models.age_model import AgeModel, create_model
from agebench.models.architectures.official_weights import load_published
from agebench.models.estimates import AgeEstimates
from agebench.registry.catalog import Catalog
from agebench.runs.evaluate import EvaluatedModel, evaluate_model
from agebench.runs.provenance import model_digest
from agebench.runs.published_config import PublishedConfig
from agebench.runs.run_dir import RunDir
from agebench.training.dataloader import make_face_dataset
from agebench.training.device import resolve_device
from agebench.training.prediction import predict

GENDERS = ("female", "male")


def run_published(config: PublishedConfig, catalogue: Catalog, folder: RunDir) -> dict[str, Any]:
    """Test published weights on every usable image of each dataset; returns metrics.json's content.

    Raises:
        UserError: the checkpoint cannot be used, or a dataset is missing.
        AgebenchError: a step's own.
    """
    device = resolve_device(config.device)
    model, weights = load_published_model(config)
    model = model.to(device)

    def answer(name: str, faces: FaceCache, test: Samples) -> AgeEstimates:
        return predict(model, make_face_dataset(faces, test), config.model, device, label=name)

    tested = EvaluatedModel(
        published_metadata(config, weights), answer, lambda name: contamination(config.published, name), model.classes
    )
    return evaluate_model(config, tested, catalogue, folder, device)


def load_published_model(config: PublishedConfig) -> tuple[AgeModel, str]:
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


def contamination(training: Training, dataset: str) -> str:
    """Whether published weights may have seen the dataset: `known`, `validated`, `none stated`, or `unknown`."""
    if dataset in training.trained_on:
        return "known"
    if dataset in training.validated_on:
        return "validated"
    return "none stated" if training.data else "unknown"


def published_metadata(config: PublishedConfig, weights: str) -> dict[str, Any]:
    """For the manifest: which network, with which file, and what is known of its training."""
    card = config.model.model_dump(mode="json", include={"name", "title", "backbone", "head", "size", "citation"})
    return card | {
        "kind": "published",
        "format": weights,
        "source": Path(config.pretrained).name,
        "file_sha256": model_digest(config),
        "training_data": config.published.data or "unknown to agebench; the paper says it",
        "licence": "of the weights: see their source",
    }
