"""Build the card inside an exported file: training data, metrics, license, input and output."""

from pathlib import Path

import torch
from pydantic import Field

from agebench._version import __version__
from agebench.config.cards.dataset import DatasetCard
from agebench.config.cards.model import Architecture
from agebench.config.run import FacesConfig
from agebench.data.faces.alignment import template_positions
from agebench.errors import UserError
from agebench.estimators.exported.card import (
    INPUT_SIDE_RANGE,
    ExportCard,
    InputFacts,
    ModelFacts,
    OutputFacts,
    TrainingFacts,
)
from agebench.metrics.schema import MetricsFile, ResultModel
from agebench.models.age_model import AgeModel

INTENDED_USE = (
    "Research on age estimation: measuring and comparing estimators, also by group, before anything is built on them. An estimate "
    "is not a person's age: the metrics describe its error, overall and by group. Not meant for decisions about a "
    "single person (access, asylum, law, medicine, employment), nor for faces of people who have not agreed."
)
BODIES = (
    " This model sees bodies too, (N, 6, H, W): after the face the whole person, unstretched, in the middle of black; whichever "
    "of the two is not there is black."
)


class SampleFacts(ResultModel):
    """Images of one dataset in a run."""

    train: int | None = None
    val: int | None = None
    fingerprint: str | None = None


class FaceFacts(ResultModel):
    """The face preparation of a run."""

    coverage: float = 1.0
    offset: float = 0.0
    visible: float = 0.0
    datasets: dict[str, str] = Field(default={}, description="dataset -> mode of alignment")
    detectors: dict[str, object] = Field(default={}, description="dataset -> detector and its version")


class RunFacts(ResultModel):
    """The entries of a run's manifest.json that its card repeats; any may be missing."""

    seed: int | None = None
    model: dict[str, object] = Field(default={}, description="facts of the network, beside those of its card")
    samples: dict[str, SampleFacts] = Field(default={}, description="dataset -> images")
    faces: FaceFacts = FaceFacts()


def build_card(
    model: AgeModel,
    architecture: Architecture,
    dataset: DatasetCard,
    run: RunFacts,
    metrics: MetricsFile,
    faces: FacesConfig | None = None,
) -> ExportCard:
    """Build the card of a model; the format, the precision and the checks are added when a file is written.

    Args:
        model: the trained network.
        architecture: the network's architecture.
        dataset: card of the training set.
        run: the facts of the run.
        metrics: the run's metrics.
        faces: the run's settings of face preparation, for the mode and the detector of every dataset; None: not set.
    """
    facts = ModelFacts.model_validate(architecture.model_dump(mode="json") | run.model)
    samples = run.samples.get(dataset.name, SampleFacts())
    return ExportCard(
        schema_version=1,
        kind="agebench-export",
        agebench=__version__,
        model=facts,
        training=TrainingFacts(
            dataset=dataset.name,
            title=dataset.title,
            homepage=dataset.homepage,
            licence=dataset.licence,
            citation=dataset.citation,
            seed=run.seed,
            train=samples.train,
            val=samples.val,
            fingerprint=samples.fingerprint,
        ),
        figures=metrics,
        licence=(
            f"The weights were learned from {dataset.title} and may be used as its terms allow: {dataset.licence}. Of the weights "
            f"that training began from: {run.model.get('weights', 'unknown')}."
        ),
        intended_use=INTENDED_USE,
        input=_input(architecture, run.faces, faces or FacesConfig()),
        output=_output(model),
    )


def verify_card(source: Path, claimed: ExportCard, model: AgeModel, architecture: Architecture) -> None:
    """Check that an untrusted card describes the model beside it.

    Args:
        source: the card's file, for messages.
        claimed: the card.
        model: the network.
        architecture: the architecture that the network was built from.

    Raises:
        UserError: the card describes another model; the message names every difference.
    """
    output = _output(model)
    pairs = {
        "model.backbone": (claimed.model.backbone, architecture.backbone),
        "model.head": (claimed.model.head, architecture.head),
        "model.size": (claimed.model.size, architecture.size),
        "output.ages": (claimed.output.ages, output.ages),
        "output.std": (claimed.output.std, output.std),
        "output.probs": (claimed.output.probs, output.probs),
        "input.size": (claimed.input.size, architecture.size),
    }
    differences = [
        f"{key} is {stated!r} on the card and {actual!r} in the model"
        for key, (stated, actual) in pairs.items()
        if stated != actual
    ]
    if differences:
        raise UserError(f"{source}: does not fit the model beside it: {'; '.join(differences)}")


def _input(architecture: Architecture, faces: FaceFacts, settings: FacesConfig) -> InputFacts:
    coverage, offset, visible = faces.coverage, faces.offset, faces.visible
    points = template_positions(coverage, offset).round(4).tolist()
    eyes = " and ".join(f"({100 * x:.4g} %, {100 * y:.4g} %)" for x, y in points[:2])
    hidden = f"; outside {visible:g} times the region of UTKFace's crops, its edge is repeated" if visible else ""
    nose = f"({100 * points[2][0]:.4g} %, {100 * points[2][1]:.4g} %)"
    size = architecture.size
    facts = InputFacts(
        name="images",
        dtype="uint8",
        layout="NCHW",
        channels="RGB",
        planes=6 if architecture.bodies else 3,
        sides=list(INPUT_SIDE_RANGE),
        size=size,
        coverage=coverage,
        points=points,
        prepared=faces.datasets,
        detectors=faces.detectors,
        text=(
            f"uint8 RGB faces (N, 3, H, W), H and W from {INPUT_SIDE_RANGE[0]} to {INPUT_SIDE_RANGE[1]}, best {size} x {size}, "
            f"framed like the training faces: eye centers at {eyes} of width and height, nose base at {nose}{hidden}. Nothing "
            f"else is to be done to them.{BODIES * architecture.bodies}"
        ),
    )
    optional = {"offset": offset, "visible": visible, "mode": settings.mode, "detector": settings.detector}
    # Unset where they are off, as in files from before these settings.
    return facts.model_copy(update={name: value for name, value in optional.items() if value})


def _output(model: AgeModel) -> OutputFacts:
    """Call the head to find out whether it predicts a standard deviation or a distribution."""
    weight = next(model.parameters())  # the head may have no parameters
    with torch.no_grad():
        estimate = model.head.decode(model.head(torch.zeros(1, model.head.in_features, device=weight.device)))
    low, high = model.head.ages
    return OutputFacts(
        names=["age", "std", "probs"],
        ages=[low, high],
        std=estimate.std is not None,
        probs=estimate.probs is not None,
        text=(
            "float32: age (N,) years; std (N,) years, the standard deviation that the model states, empty (0,) where it states "
            f"none; probs (N, {high - low + 1}), one probability for each whole age from {low} to {high}, empty (0, 0) where "
            "the model gives no distribution."
        ),
    )
