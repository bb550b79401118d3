"""The card inside an exported or pushed model: written by `agebench export`, read from untrusted files."""

import json
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, FiniteFloat, field_serializer, model_validator

from agebench.config.toml_io import validate_model
from agebench.errors import UserError
from agebench.metrics.schema import Count, DeploymentGuarantees, MetricsFile, MetricValue, Number, ResultModel

KIND = "agebench-export"  # as `ExportCard.kind`
# Height and width of an input image, pixels.
INPUT_SIDE_RANGE = (32, 1024)
MAX_AGE = 199  # years; of the classes on a card


class AgreementCheck(ResultModel):
    """The largest differences of a file's ages from the model's."""

    faces: Count = Field(description="faces that were compared")
    max_difference_years: float = Field(description="at the network's own size")
    max_difference_resized_years: float = Field(description="on faces that the file must resize")

    @property
    def largest(self) -> float:
        """The larger difference, years; NaN where one is."""
        differences = (self.max_difference_years, self.max_difference_resized_years)
        return next((value for value in differences if value != value), max(differences))


class AccuracyComparison(ResultModel):
    """The errors of an estimator and of a run's model on the same images of one test set."""

    n: Count = Field(description="images")
    subjects: Count | None = Field(description="people, where they are known")
    model: MetricValue = Field(description="MAE of the run's model, years")
    file: MetricValue = Field(description="MAE of the estimator, years")
    change: MetricValue = Field(
        description="MAE of the estimator minus MAE of the model, years; the interval is paired"
    )
    allowed: list[Number] = Field(description="lowest and highest change: the ends of the run's interval minus its MAE")
    max_difference: Number | None = Field(
        default=None, description="largest difference of an age from the model's, years"
    )

    @property
    def is_within(self) -> bool:
        """True if the interval of the change lies within the allowed changes."""
        low, high = self.change.ci_low, self.change.ci_high
        return low is not None and high is not None and self.allowed[0] <= low and high <= self.allowed[1]


class ModelFacts(ResultModel):
    """The network: the keys of its model card and of the manifest's entry `model`; those not named here are kept."""

    model_config = ConfigDict(extra="allow")

    name: str = ""
    title: str = ""
    backbone: str = ""
    head: str = ""
    size: int | None = Field(default=None, description="side of the network's own input, pixels")
    weights: str = Field(default="unknown", description="origin of the initial weights, in words")


class TrainingFacts(ResultModel):
    """The training set, and how it was split."""

    dataset: str = Field(default="", description="name of the registered dataset")
    title: str = ""
    homepage: str = ""
    licence: str = ""
    citation: str = ""
    seed: int | None = None
    train: int | None = Field(default=None, description="images that the weights were fitted to")
    val: int | None = Field(default=None, description="images that the model was chosen on")
    fingerprint: str | None = Field(default=None, description="digest of the images and labels")


class InputFacts(ResultModel):
    """The images that the file takes."""

    name: str = "images"
    dtype: str = "uint8"
    layout: str = "NCHW"
    channels: str = "RGB"
    planes: Literal[3, 6] = Field(description="channels; 6: a body follows the face")
    sides: list[int] = Field(
        default=list(INPUT_SIDE_RANGE), description="smallest and largest height and width, pixels"
    )
    size: int = Field(gt=0, le=INPUT_SIDE_RANGE[1], description="side of the network's own input, pixels")
    coverage: FiniteFloat = Field(gt=0.2, le=4, description="framing of the faces, as in a run's config")
    offset: FiniteFloat = Field(default=0.0, ge=-0.5, le=0.5, description="absent in older files and where it is 0")
    visible: FiniteFloat = Field(default=0.0, ge=0, le=4, description="absent in older files and where it is 0")
    mode: Literal["", "none", "landmarks", "detect", "boxes"] = Field(
        default="", description="faces.mode of the run; absent in older files and where it is not set"
    )
    detector: str = Field(
        default="", description="faces.detector of the run; absent in older files and where it is not set"
    )
    points: list[list[float]] = Field(default=[], description="eye centers and nose base, shares of width and height")
    prepared: dict[str, str] = Field(default={}, description="dataset -> mode of alignment")
    detectors: dict[str, object] = Field(default={}, description="dataset -> detector and its version")
    text: str = ""


class OutputFacts(ResultModel):
    """The outputs of the file."""

    names: list[str] = Field(default=["age", "std", "probs"], description="of the outputs, in their order")
    ages: Annotated[list[int], Field(min_length=2, max_length=2)] = Field(description="first and last age, years")
    std: bool = Field(description="whether the model predicts a standard deviation")
    probs: bool = Field(description="whether the model predicts a distribution over the ages")
    text: str = ""

    @model_validator(mode="after")
    def _check_ages(self) -> Self:
        low, high = self.ages
        if not 0 <= low < high <= MAX_AGE:
            raise ValueError(f"ages = {self.ages}: must be two ages from 0 to {MAX_AGE}, the lower first")
        return self

    @property
    def n_ages(self) -> int:
        """The number of ages of a distribution."""
        return self.ages[1] - self.ages[0] + 1


class ExportCard(ResultModel):
    """The card of an exported or pushed model."""

    schema_version: int = Field(default=1, validation_alias="schema", serialization_alias="schema")
    kind: Literal["agebench-export"] = "agebench-export"
    agebench: str = Field(default="", description="version of agebench")
    model: ModelFacts
    training: TrainingFacts = TrainingFacts()
    figures: MetricsFile = Field(default=MetricsFile(), description="the run's metrics.json")
    licence: str = "unknown"
    intended_use: str = ""
    input: InputFacts
    output: OutputFacts
    promises: DeploymentGuarantees = Field(
        default=DeploymentGuarantees(), description="intervals, error rates of age gates, and errors by estimated age"
    )
    format: str = ""
    precision: str = ""
    checked: AgreementCheck | None = Field(default=None, description="agreement of the file with the model")
    accuracy: dict[str, AccuracyComparison] = Field(default={}, description="test set -> change of the MAE")

    @field_serializer("figures")
    def _figures_to_json(self, figures: MetricsFile) -> dict[str, Any]:
        return figures.to_json()

    def to_json(self) -> dict[str, Any]:
        """Return the fields that were set, as plain JSON values."""
        return self.model_dump(mode="json", exclude_unset=True, by_alias=True)


def read_card(path: Path, text: bytes | str) -> ExportCard:
    """Read a card.

    Args:
        path: the file that holds the card, for messages.
        text: the card as JSON.

    Raises:
        UserError: it is not a card that agebench wrote, a key is missing, or a value has another type or is out of range.
    """
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict) or content.get("kind") != KIND:
        raise UserError(foreign_model_message(path, "its card is not one of agebench's"))
    return validate_model(ExportCard, content, source=str(path))


def foreign_model_message(path: Path, reason: str) -> str:
    """Return the message for a file that `agebench export` did not write.

    Args:
        path: the file.
        reason: how that was detected.
    """
    return (
        f"{path}: not a model that `agebench export` wrote: {reason}. A third-party model is described by a card of the kind "
        "`external`, see docs/how-to/estimators.md"
    )
