"""Schema of manifest.json: what a run was made of, and how it went."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

# Kind of input -> its name (a dataset, a file) -> digest.
Inputs = dict[str, dict[str, str]]


class _ManifestTable(BaseModel):
    model_config = ConfigDict(extra="forbid")


class TrainingSet(_ManifestTable):
    """The dataset that the run trains on."""

    name: str
    title: str


class ExclusionList(_ManifestTable):
    """One list of --exclude."""

    sha256: str
    images: int = Field(description="images that were left out because of the list")


class SampleCounts(_ManifestTable):
    """Numbers of images of one dataset, by use; with several folds, train and val are means over the folds."""

    read: int
    quarantined: dict[str, int] = Field(description="title of a reason -> rejected images")
    rejected: dict[str, int] = Field(description="code of a reason -> rejected images")
    fingerprint: str = Field(description="digest of the audited images and labels")
    train: int = 0
    val: int = 0
    duplicates: int = Field(default=0, description="exact copies within the training set")
    straddling: int = Field(default=0, description="images removed because a copy is in a later split")
    test: int = 0
    in_training_set: int = Field(
        default=0, description="test images removed because the training set holds them or their people too"
    )


class FacesRecord(_ManifestTable):
    """Settings and results of the face preparation."""

    size: int = Field(description="side of a crop, pixels")
    coverage: float
    offset: float = Field(default=0.0, description="vertical offset of the faces, shares of the side")
    visible: float = Field(default=0.0, description="side of the region shown, 1 for that of UTKFace's crops; 0: all")
    datasets: dict[str, str] = Field(description="dataset -> mode of alignment")
    sha256: dict[str, str] = Field(description="dataset -> digest of the prepared pixels")
    bodies: dict[str, dict[str, int]] = Field(default_factory=dict, description="dataset -> counts of body crops")
    detectors: dict[str, dict[str, object]] = Field(
        default_factory=dict, description="dataset -> detector and its version"
    )


class ModelRecord(_ManifestTable):
    """The model of a run or test: facts of its card, and the origin of its weights."""

    name: str
    title: str
    kind: str = Field(default="", description="external or published; unset: trained by the run")
    size: int = Field(default=0, description="side of the input, pixels")
    citation: str = ""
    # of networks
    backbone: str = ""
    head: str = ""
    head_options: dict[str, object] = Field(default_factory=dict)
    tasks: dict[str, float] = Field(default_factory=dict, description="auxiliary target -> weight in the loss")
    classes: dict[str, list[str]] = Field(default_factory=dict, description="auxiliary target -> classes")
    parameters: int = 0
    weights: str = Field(default="", description="origin of the initial weights, in words")
    weights_source: dict[str, str] = Field(default_factory=dict, description="kind and identifier of that origin")
    initial: dict[str, str] = Field(default_factory=dict, description="digests of the initial weights")
    pretraining_data: str = Field(
        default="", description="faces of face recognition that the initial weights were trained on, in words"
    )
    # of models that the test did not train
    format: str = ""
    source: str = ""
    file_sha256: str = ""
    training_data: str = ""
    trained_on: list[str] = Field(default_factory=list)
    licence: str = ""


class ExportRecord(_ManifestTable):
    """The check of the model that the run exported."""

    max_difference_years: float


class Manifest(_ManifestTable):
    """Everything that manifest.json states about one run. Only fields that were set are written."""

    seed: int = 0
    hardware: dict[str, str | int] = Field(default_factory=dict)
    train: TrainingSet | None = None
    model: ModelRecord | None = None
    faces: FacesRecord | None = None
    protocol: dict[str, object] = Field(default_factory=dict)
    limit: int = Field(default=0, description="images of each dataset that --limit kept; 0: all")
    excluded: dict[str, ExclusionList] = Field(default_factory=dict, description="file of --exclude -> its effect")
    samples: dict[str, SampleCounts] = Field(default_factory=dict)
    inputs: Inputs = Field(default_factory=dict)
    best_epoch: int | None = None
    export: ExportRecord | None = None
    epochs: int = 0
    measured: str = Field(default="", description="when the metrics were computed: UTC, ISO 8601")
    licences: dict[str, str] = Field(default_factory=dict, description="dataset -> licence of its images")
    timings: dict[str, float] = Field(default_factory=dict, description="stage -> seconds; images_per_s in training")
    finished: bool = False

    def record_left_out(self, limit: int, exclusions: dict[str, ExclusionList]) -> None:
        """Record the images that --limit and --exclude left out; nothing where neither was given.

        Args:
            limit: the largest number of images of each dataset; 0: all.
            exclusions: file of --exclude -> its effect.
        """
        if limit:
            self.limit = limit
        if exclusions:
            self.excluded = exclusions

    def to_json(self) -> dict[str, Any]:
        """Return the content of manifest.json, with the fields that were set."""
        return self.model_dump(mode="json", exclude_unset=True)
