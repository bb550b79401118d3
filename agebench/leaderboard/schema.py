"""Schema of result records. Records come from untrusted sources and are validated once, when they are loaded."""

import reprlib
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Self

from pydantic import ConfigDict, Field, JsonValue, PrivateAttr, ValidationError

from agebench.config.toml_io import Settings
from agebench.errors import UserError
from agebench.metrics.schema import (
    MAX_MAGNITUDE,
    Count,
    GroupMetrics,
    Leaks,
    MetricsFile,
    MetricValue,
    Name,
    Number,
    ProtocolSummary,
    ResultModel,
    TestResult,
)
from agebench.reports.formatting import sanitize
from agebench.types import WeightsSource

# Apart from its metrics a record is a few tables in tables; code that walks deeper nesting would overflow the stack.
_MAX_LEVELS = 20


class RecordTest(TestResult):
    """The metrics of one test set in a record."""

    overall: dict[str, MetricValue]
    groups: dict[str, dict[str, GroupMetrics]]


class RecordMetrics(MetricsFile):
    """The metrics of a record."""

    train: str | None
    tests: dict[Name, RecordTest]  # type: ignore[assignment]  # a narrower model of the same keys


class RecordConfigModel(ResultModel):
    """The model in a record's config."""

    citation: str | None = None
    about: str | None = None
    trained_on: list[str] = Field(default=[], description="registered datasets that were in its training set")
    training_data: str | None = Field(default=None, description="its training data, in words")
    package: dict[str, JsonValue] | None = Field(
        default=None, description="package with digests, from which `agebench estimators get` fetches the model's files"
    )


class RecordConfig(ResultModel):
    """A record's config, as far as it is used by name; `Record.settings` has all of it."""

    seed: int | None = None
    data: dict[str, JsonValue] = Field(default={}, description="data sets and splits")
    model: RecordConfigModel = RecordConfigModel()
    train: dict[str, JsonValue] | None = None


class RecordModel(ResultModel):
    """The model of a record; further keys are kept as facts."""

    model_config = ConfigDict(extra="allow")

    name: str
    title: str | None = None
    head: str | None = None
    size: Count | None = None
    weights: str | None = None
    parameters: Count | None = None
    citation: str | None = None
    initial: dict[str, JsonValue] | None = None
    pretraining_data: str = ""
    file_sha256: Any = None
    source: Any = None

    @property
    def weights_origin(self) -> WeightsSource:
        """The origin of the model's initial weights, also of a record from before origins had codes."""
        source = (self.model_extra or {}).get("weights_source")
        return WeightsSource.of_model({"weights": self.weights, "weights_source": source})


class RecordSamples(ResultModel):
    """Numbers of images of one data set."""

    read: Count | None = Field(default=None, description="images, rejected ones included")
    train: Count | None = None
    val: Count | None = None
    test: Count | None = None
    quarantined: dict[str, Count] | None = Field(
        default=None, description="schema 1: reason in words -> rejected images"
    )
    rejected: dict[str, Count] | None = Field(default=None, description="`RejectReason` -> rejected images")
    fingerprint: str | None = Field(default=None, description="digest of the audited samples")


class RecordExcluded(ResultModel):
    """Images excluded by a list."""

    images: Count | None = None


class RecordFaces(ResultModel):
    """Face preparation."""

    size: Any = None
    coverage: Any = None
    datasets: dict[str, JsonValue] | None = None
    sha256: dict[str, JsonValue] | None = None
    detectors: dict[str, dict[str, JsonValue]] | None = None

    @property
    def are_photographs(self) -> bool:
        """True if the model was given whole photographs, of which no faces of a size were prepared."""
        return bool(self.datasets) and set((self.datasets or {}).values()) == {"photo"}


class RecordTimings(ResultModel):
    """Durations, seconds."""

    predict_s: Annotated[Number, Field(ge=0, le=MAX_MAGNITUDE)] | None = None
    features_s: Any = None


class RobustnessMetrics(ResultModel):
    """The summary of a robustness test."""

    relative_error: MetricValue | None = Field(
        default=None, description="error on corrupted faces over that on the originals"
    )
    corruptions: list[str] | None = None
    strengths: Count | None = None


class CleanMetrics(ResultModel):
    """Metrics on the uncorrupted faces."""

    mae: MetricValue


class RecordStress(ResultModel):
    """A robustness test of one test set."""

    summary: RobustnessMetrics
    clean: CleanMetrics


class RecordDataset(ResultModel):
    """Facts of a data set's card in a record."""

    count: Any = None
    public: Any = None
    licence: Any = None
    reader: Any = None
    options: Any = None
    faces: Any = None
    landmark_points: Any = None


class RecordPredictions(ResultModel):
    """Digests of the predictions for one test set."""

    sha256: Any = None
    estimates_sha256: Any = None


class Circumstances(ResultModel):
    """Facts in records and manifests that may move metrics a little: versions, the machine, the prepared faces."""

    faces: RecordFaces = RecordFaces()
    hardware: dict[str, JsonValue] | None = None
    versions: dict[str, JsonValue] | None = None
    agebench: Any = None
    git: Any = None


class Record(Circumstances):
    """A result record: one run with everything that its metrics depend on."""

    id: Name
    config: RecordConfig
    model: RecordModel
    metrics: RecordMetrics
    predictions: dict[str, RecordPredictions]
    sha256: str
    config_sha256: str | None = None
    excluded: dict[str, RecordExcluded] | None = None
    samples: dict[str, RecordSamples] = Field(default={}, description="data set -> numbers of images")
    timings: RecordTimings | None = None
    protocol: ProtocolSummary | None = None
    leaks: Leaks | None = None
    datasets: dict[str, RecordDataset] = Field(default={}, description="data set -> its card")
    stress: dict[str, RecordStress] | None = None
    plugins: dict[str, JsonValue] | None = None
    epochs: Any = None
    _settings: Settings = PrivateAttr(default_factory=dict)

    @classmethod
    def from_json(cls, content: Mapping[str, JsonValue]) -> Self:
        """Parse a record.

        Args:
            content: the parsed JSON.

        Raises:
            ValidationError: the content does not have the schema.
        """
        record = cls.model_validate(content)
        settings = content["config"]
        record._settings = dict(settings) if isinstance(settings, dict) else {}
        return record

    @property
    def settings(self) -> Settings:
        """All of the config, as it was written."""
        return self._settings

    @property
    def input_size(self) -> int | None:
        """Side of the faces given to the model, pixels; `None` if that is unknown or it was given whole photographs."""
        return None if self.faces.are_photographs else self.model.size

    @property
    def split_scheme(self) -> int | None:
        """Version of the random split; 1 in a record from before versions were written down, None where nothing is drawn."""
        protocol = self.protocol or self.metrics.protocol
        return protocol.split_scheme if protocol and "split_scheme" in protocol.model_fields_set else 1


def parse_record(content: Mapping[str, JsonValue], source: object = "the record") -> Record:
    """Parse a record of schema 1 or 2.

    Args:
        content: the parsed JSON.
        source: where it was read, for the error message.

    Raises:
        UserError: the content does not have the schema.
    """
    record = record_or_problem(content)
    if isinstance(record, str):
        raise UserError(f"{source}: {record}")
    return record


def record_or_problem(content: Mapping[str, JsonValue]) -> Record | str:
    """Parse a record of schema 1 or 2; return the first violation of the schema as a sentence instead, if there is one.

    Args:
        content: the parsed JSON.
    """
    deep = next((key for key, value in content.items() if key != "metrics" and not _shallow(value, _MAX_LEVELS)), None)
    if deep is not None:
        return f"{_its(deep)}: it is nested more than {_MAX_LEVELS} levels deep"
    try:
        record = Record.from_json(content)
    except ValidationError as error:
        return _sentence(error.errors(include_url=False, include_context=False)[0])
    for name, test in record.metrics.tests.items():
        if test.metric("mae").value is None:
            return f"{_its(f'metrics.tests.{name}.overall')}: it has no 'mae' with a value"
        large = next((key for key, metric in _used_metrics(test) if not _is_drawable(metric)), None)
        if large is not None:
            return f"{_its(f'metrics.tests.{name}.{large}')}: it has a number beyond {MAX_MAGNITUDE:g}"
    return record


def _used_metrics(test: TestResult) -> Iterator[tuple[str, MetricValue]]:
    """Yield the metrics that the leaderboard combines and draws, each with its key."""
    yield from ((f"overall.{name}", test.metric(name)) for name in ("mae", "rmse", "bias", "cs5"))
    for grouping, groups in test.groups.items():
        for name, group in groups.items():
            yield f"groups.{grouping}.{name}.mae", group.mae
            yield f"groups.{grouping}.{name}.bias", group.bias
    for grouping, gap in test.gaps.items():
        if gap.age_standardized is not None:
            yield f"gaps.{grouping}.age_standardized.difference", gap.age_standardized.difference
    yield "baseline_mae", MetricValue(value=test.baseline_mae)


def _is_drawable(metric: MetricValue) -> bool:
    ends = (metric.value, metric.ci_low, metric.ci_high)
    return all(end is None or abs(end) <= MAX_MAGNITUDE for end in ends)


def _sentence(problem: Any) -> str:
    location, last = list(map(str, problem["loc"])), str(problem["loc"][-1])
    if problem["type"] != "missing":
        message = problem["msg"][0].lower() + problem["msg"][1:]
        return f"{_its('.'.join(location))}: it is {reprlib.repr(problem['input'])}, and the {message}"
    if len(location) == 1:
        return f"it has no '{last}'; `agebench results add RUN` makes a record with it"
    return f"{_its('.'.join(location[:-1]))}: it has no '{last}'"


def _its(key: str) -> str:
    if key.startswith("metrics.tests."):
        return f"its figures, '{sanitize(key[:300])}', do not have the shape that `agebench results add` gives them"
    return f"its '{sanitize(key[:300])}' does not have the shape that `agebench results add` gives it"


def _shallow(value: Any, levels: int) -> bool:
    """Return whether tables and lists are nested at most `levels` deep."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return levels > 0 and all(_shallow(item, levels - 1) for item in inner if isinstance(item, (dict, list)))
