"""Test a built-in architecture with the weights that its authors published."""

from pathlib import Path

from agebench.config.cards.model import Training
from agebench.config.evaluate import PublishedConfig
from agebench.data.faces.cache import FaceCache
from agebench.data.samples import Samples
from agebench.models.age_model import AgeModel, create_model
from agebench.models.architectures.mivolo import MiVOLO
from agebench.models.architectures.official_weights import load_published
from agebench.models.estimates import AgeEstimates
from agebench.registry.catalog import Catalog
from agebench.runs.evaluate import EvaluatedModel, evaluate_model
from agebench.runs.evaluation import RunResult
from agebench.runs.manifest import ModelRecord
from agebench.runs.provenance import model_digest
from agebench.runs.run_dir import RunDir
from agebench.training.dataloader import make_face_dataset
from agebench.training.device import resolve_device
from agebench.training.prediction import predict
from agebench.types import WeightsSource

GENDERS = ("female", "male")


def run_published(config: PublishedConfig, catalog: Catalog, folder: RunDir) -> RunResult:
    """Test published weights on every usable image of each dataset.

    Args:
        config: the test's settings.
        catalog: the cards of the datasets.
        folder: the test's folder.

    Raises:
        UserError: the checkpoint cannot be used, or a dataset is missing.
    """
    device = resolve_device(config.device)
    model, weights = _load_published_model(config)
    model = model.to(device)

    def estimate(name: str, faces: FaceCache, test: Samples) -> AgeEstimates:
        return predict(model, make_face_dataset(faces, test), config.model, device, label=name)

    tested_model = EvaluatedModel(
        _published_metadata(config, weights),
        estimate,
        lambda name: contamination(config.published, name),
        model.classes,
    )
    return evaluate_model(config, tested_model, catalog, folder, device)


def _load_published_model(config: PublishedConfig) -> tuple[AgeModel, WeightsSource]:
    """Build the model with its authors' weights, in evaluation mode; return it and the origin of the weights.

    Gender is predicted where the weights include it; published weights include no other auxiliary target.

    Args:
        config: the test's settings.

    Raises:
        UserError: the checkpoint is missing, unsafe, of another model, or does not fit.
    """
    model = create_model(config.model)
    weights = load_published(model, config.model, Path(config.pretrained).expanduser())
    backbone = model.backbone
    has_gender = not isinstance(backbone, MiVOLO) or "gender" in backbone.answers
    if "gender" in config.model.targets and has_gender:
        model.add_task("gender", GENDERS)
    return model.eval(), weights


def contamination(training: Training, dataset: str) -> str:
    """Return whether published weights may have seen the dataset: `known`, `validated`, `none stated` or `unknown`.

    Args:
        training: the training data that the model's card states.
        dataset: the dataset's name.
    """
    if dataset in training.trained_on:
        return "known"
    if dataset in training.validated_on:
        return "validated"
    return "none stated" if training.data else "unknown"


def _published_metadata(config: PublishedConfig, weights: WeightsSource) -> ModelRecord:
    """Return the manifest's entry of the model: the network, its file, and its known training data.

    Args:
        config: the test's settings.
        weights: the origin of the weights.
    """
    keys = {"name", "title", "backbone", "head", "size", "citation"}
    return ModelRecord(
        **config.model.model_dump(mode="json", include=keys),
        kind="published",
        format=str(weights),
        source=Path(config.pretrained).name,
        file_sha256=model_digest(config),
        training_data=config.published.data or "unknown to agebench; see the paper",
        licence="of the weights: see their source",
    )
