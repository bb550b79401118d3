"""The result of one test set, and the content of a metrics.json."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from agebench.errors import UserError
from agebench.metrics.schema.age_gates import GateResult
from agebench.metrics.schema.base import SCHEMA, UNDEFINED, Count, MetricValue, Number, ResultModel, renamed_field
from agebench.metrics.schema.failures import FailureToProcess
from agebench.metrics.schema.groups import Gap, GroupMetrics
from agebench.metrics.schema.nist_fate import NistFateResult
from agebench.metrics.schema.tasks import TaskMetrics
from agebench.metrics.schema.uncertainty import ConformalResult, UncertaintyResult

IntervalKind = Literal["bca", "percentile"]


class BootstrapMethod(ResultModel):
    """The method of the confidence intervals of an entry."""

    interval: IntervalKind
    level: Number = 0.95
    resamples: int
    resampled: str = Field(default="images", description="`subjects` or `images`")
    seed: int = Field(ge=0)
    version: int = Field(default=1, description="of the method; files without a version have 1")
    clusters: Count | None = Field(
        default=None, description="what was resampled: people, and images whose person is unknown"
    )


class SeedMetric(ResultModel):
    """One metric over the seeds of a system."""

    values: list[Number]
    mean: Number
    sd: Number


class SeedSummary(ResultModel):
    """The overall metrics of every seed."""

    count: Count
    metrics: dict[str, SeedMetric] = renamed_field("metrics", "figures")


class FoldSummary(ResultModel):
    """The MAE of every fold's model."""

    names: list[str]
    n: list[Count]
    mae: list[Number] = Field(description="years")
    mean: Number = Field(description="mean of `mae`, years")
    sd: Number = Field(description="standard deviation of `mae`, years")


class NotScored(ResultModel):
    """Rows of a prediction file that have no part in the metrics."""

    missing: Count = Field(default=0, description="labeled images without a prediction")
    extra: Count = Field(default=0, description="predictions without a label")
    duplicates: Count = Field(default=0, description="repeated rows")


class RequirementResult(ResultModel):
    """The verdict on one requirement."""

    requirement: str = Field(description="such as `fpr(18@25)<=0.01`")
    figure: str = Field(description="the requirement's left side")
    operator: Literal["<=", ">="]
    limit: Number
    is_share: bool = Field(description="whether the figure is a share of images")
    verdict: Literal["shown", "not shown", "refuted"]
    value: MetricValue = Field(description="the figure; of several groups, that of the group with the worst bound")
    group: str | None = Field(default=None, description="this group")


Leaks = dict[str, Count] | bool


class ProtocolSummary(ResultModel):
    """The protocol that a training set was split by; further keys are kept."""

    model_config = ConfigDict(extra="allow")

    name: str = ""
    split_scheme: Count | None = None
    folds: Count | None = None
    leaks: Leaks | None = Field(default=None, description="`duplicates` and `subjects` on both sides of the split")


class ShiftParts(ResultModel):
    """The difference in MAE between a target and a source dataset, divided into parts that add up to it, years."""

    mix: MetricValue = Field(description="other ages (and groups), at the source's errors")
    same: MetricValue = Field(description="other faces of the same ages (and groups)")
    outside: MetricValue = Field(description="images of ages (and groups) that the source lacks")
    groups: list[str] = Field(default=[], description="group columns that cells are made of, beside age")
    n_outside: Count = Field(description="images of the target without counterparts in the source")
    ages: list[list[int]] = Field(description="first and last completed year of every stratum")


class Recalibration(ResultModel):
    """MAE on the target after a map from estimates to ages was fitted on labeled images of it, tested on other people."""

    n: Count = Field(description="labeled images that a map is fitted on")
    before: MetricValue = Field(description="MAE without a map, years")
    isotonic: MetricValue = Field(description="MAE after an isotonic map, years")
    linear: MetricValue = Field(description="MAE after a linear map, years")
    isotonic_gain: MetricValue = Field(description="`before` minus `isotonic`, years")
    linear_gain: MetricValue = Field(description="`before` minus `linear`, years")


class ShiftResult(ResultModel):
    """Why the MAE on a dataset differs from that on the source: the held-out part of the training set, or another test set."""

    source: str = Field(description="the training set, or the first test set of a model that was not trained here")
    difference: MetricValue = Field(description="MAE on this test set minus MAE on the source, years")
    parts: ShiftParts
    with_groups: ShiftParts | None = Field(default=None, description="the same with cells of age and groups")
    recalibration: list[Recalibration] = Field(default=[])


class TestResult(ResultModel):
    """All metrics of one test set."""

    __test__: ClassVar[bool] = False  # no test case, in spite of its name

    n: Count = Field(description="images")
    subjects: Count | None = Field(default=None, description="people, where they are known")
    overall: dict[str, MetricValue] = Field(default={}, description="metric name -> value over all images")
    cs: list[Number | None] = Field(default=[], description="cumulative score at 0, 1, … 10 years")
    groups: dict[str, dict[str, GroupMetrics]] = Field(default={}, description="grouping -> group -> metrics")
    gaps: dict[str, Gap] = Field(default={}, description="grouping -> gap")
    n_unknown: dict[str, Count] = renamed_field(
        "n_unknown", "unknown", {}, description="grouping -> images without a group"
    )
    train_ages: Annotated[list[Number], Field(min_length=2, max_length=2)] | None = None
    method: BootstrapMethod | None = None
    undercovering: list[str] = Field(default=[], description="metrics whose intervals cover less than 95 %")
    notes: list[str] = Field(default=[])
    baseline_mae: Number | None = Field(default=None, description="MAE of the median-age baseline, years")
    training_overlap: str | None = renamed_field(
        "training_overlap",
        "contamination",
        None,
        description="whether an external model was trained on it: known, validated, unknown, none stated",
    )
    protocol: ProtocolSummary | None = None
    leaks: Leaks | None = None
    seeds: SeedSummary | None = None
    folds: FoldSummary | None = None
    not_scored: NotScored | None = None
    age_gates: dict[str, GateResult] = Field(default={}, description="legal age -> rates")
    uncertainty: UncertaintyResult | None = None
    conformal: ConformalResult | None = None
    nist: NistFateResult | None = None
    failure_to_process: FailureToProcess | None = None
    tasks: dict[str, TaskMetrics] = Field(default={}, description="auxiliary target -> metrics")
    requirements: list[RequirementResult] = Field(default=[], description="verdicts on what was required")
    shift: ShiftResult | None = Field(default=None, description="why its MAE differs from the source's")

    @field_validator(
        "overall",
        "cs",
        "groups",
        "gaps",
        "n_unknown",
        "undercovering",
        "notes",
        "age_gates",
        "tasks",
        mode="before",
    )
    @classmethod
    def _null_is_empty(cls, value: Any, info: ValidationInfo) -> Any:
        """Read null as an empty table or list, and leave out gaps that are null."""
        if info.field_name == "gaps" and isinstance(value, dict):
            return {name: gap for name, gap in value.items() if gap is not None}
        return type(cls.model_fields[info.field_name or ""].default)() if value is None else value

    def metric(self, name: str) -> MetricValue:
        """Return the overall metric `name`, an undefined value where it was not computed."""
        return self.overall.get(name, UNDEFINED)


class MeasuredFile(ResultModel):
    """A file that was scored or read beside it."""

    role: str = Field(description="predictions, labels or calibration")
    name: str
    sha256: str


class Measurement(ResultModel):
    """When, with which version and command, and from which files metrics were computed."""

    created: str = Field(description="time, UTC, ISO 8601")
    version: str = Field(description="of agebench")
    command: str
    files: list[MeasuredFile]


class MetricsFile(ResultModel):
    """The content of a metrics.json."""

    train: str | None = Field(default=None, description="training set; None for a model that was not trained here")
    protocol: ProtocolSummary | None = None
    leaks: Leaks | None = None
    tests: dict[str, TestResult] = Field(default={})
    measurement: Measurement | None = Field(
        default=None, description="of `agebench score`; a run has its manifest.json"
    )

    @classmethod
    def from_json(cls, content: Mapping[str, Any], source: object = "metrics.json") -> Self:
        """Read the content of a metrics.json of schema 1 or 2.

        Args:
            content: the parsed JSON.
            source: where it was read, for the error message.

        Raises:
            UserError: the content does not have the schema.
        """
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            problem = error.errors(include_url=False, include_context=False)[0]
            raise UserError(f"{source}: {'.'.join(map(str, problem['loc']))}: {problem['msg']}") from error

    def to_json(self) -> dict[str, Any]:
        """Return the content of metrics.json, schema 2."""
        return {"schema": SCHEMA, "train": self.train, **super().to_json()}
