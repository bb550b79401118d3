"""A run's manifest.json as reports read it: of any version, with everything that may be missing."""

from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator

from agebench.metrics.schema import ProtocolSummary


class _Table(BaseModel):
    """Base of all tables: unknown keys are ignored, and null is as good as a missing key."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, content: Any) -> Any:
        return (
            {key: value for key, value in content.items() if value is not None}
            if isinstance(content, dict)
            else content
        )


class BodyCounts(_Table):
    """Numbers of rows of one dataset by what is visible."""

    rows: int = 0
    body: int = 0
    body_alone: int = 0


class DetectorEntry(_Table):
    """The detector that aligned a dataset."""

    name: str = ""


class FacesEntry(_Table):
    """Face preparation; `datasets` has the mode of alignment."""

    size: int | None = None
    coverage: float | None = None
    offset: float = 0.0
    visible: float = 0.0
    datasets: dict[str, str] = {}
    bodies: dict[str, BodyCounts] = {}
    detectors: dict[str, DetectorEntry] = {}


class SamplesEntry(_Table):
    """Numbers of images of one dataset; None where they are unknown."""

    read: int | None = None
    train: int | None = None
    val: int | None = None
    test: int | None = None
    duplicates: int | None = None
    in_training_set: int | None = None
    straddling: int = 0
    quarantined: dict[str, int] = {}
    fingerprint: str = ""

    @property
    def counts(self) -> list[int | None]:
        """The numbers in the order of a report's table."""
        return [self.read, self.train, self.val, self.test, self.duplicates, self.in_training_set]


class ModelEntry(_Table):
    """The model of a run or test."""

    name: str = ""
    title: str = ""
    backbone: str = ""
    head: str = ""
    head_options: dict[str, object] = {}
    tasks: dict[str, float] = {}
    parameters: int = 0
    weights: str | None = None
    pretraining_data: str = ""
    format: str = ""
    source: str = ""
    file_sha256: str = ""
    training_data: str = ""
    licence: str = ""
    citation: str = ""


class HardwareEntry(_Table):
    """The machine."""

    gpu: str = ""
    cpu: str = ""
    cores: int | None = None


class TrainingSetEntry(_Table):
    """The training set."""

    title: str = ""


class RunManifest(_Table):
    """The content of a manifest.json, as far as reports show it."""

    name: str = ""
    agebench: str = ""
    versions: dict[str, str | None] = {}
    git: str = ""
    seed: int | None = None
    measured: str = ""
    limit: int = 0
    train: TrainingSetEntry | None = None
    model: ModelEntry = ModelEntry()
    faces: FacesEntry = FacesEntry()
    samples: dict[str, SamplesEntry] = {}
    licences: dict[str, str] = {}
    hardware: HardwareEntry = HardwareEntry()
    timings: dict[str, float] = {}
    protocol: ProtocolSummary | None = None
    epochs: int | None = None
    best_epoch: int | None = None

    @property
    def machine(self) -> str:
        """The graphics processor, or else the processor with its cores."""
        hardware = self.hardware
        cores = "–" if hardware.cores is None else hardware.cores
        return hardware.gpu or f"{hardware.cpu or 'a CPU'}, {cores} cores"

    @property
    def all_versions(self) -> dict[str, str]:
        """Versions of agebench and of the packages that it uses."""
        versions = {"agebench": self.agebench, **self.versions}
        return {name: version for name, version in versions.items() if version}
