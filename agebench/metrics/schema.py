"""The result schema: typed models of metrics.json (schema 2), of comparisons and of the guarantees for predictions.

Every result is built once as one of these frozen models and written by `to_json`. Files of schema 1 have other names for some
fields; these names are the validation aliases declared here with `_renamed`, so that `MetricsFile.from_json` reads both.
"""

import math
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)

from agebench.errors import UserError

SCHEMA = 2
MAX_MAGNITUDE = 10**12  # larger numbers in untrusted files are no results: they overflow when combined or drawn
Number = Annotated[float, Field(allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0, le=MAX_MAGNITUDE)]
Probability = Annotated[float, Field(ge=0, le=1)]
# A data set's name becomes part of a path.
Name = Annotated[str, Field(pattern=r"^[^/\\\x00-\x1f]{1,200}$")]


def _renamed(name: str, schema_1: str, default: Any = ..., **options: Any) -> Any:
    """Return a field that schema 1 calls `schema_1`."""
    return Field(default, validation_alias=AliasChoices(name, schema_1), **options)


class ResultModel(BaseModel):
    """Base of all results: frozen, strictly typed; unknown keys are ignored."""

    model_config = ConfigDict(
        strict=True, extra="ignore", frozen=True, validate_by_name=True, validate_by_alias=True, protected_namespaces=()
    )

    def to_json(self) -> dict[str, Any]:
        """Return the fields that were set, as plain JSON values."""
        return self.model_dump(mode="json", exclude_unset=True)

    def set_fields(self) -> dict[str, Any]:
        """Return the fields that were set, with their values."""
        return {name: getattr(self, name) for name in self.model_fields_set}


class MetricValue(ResultModel):
    """A metric's value with its 95 % confidence interval, in the metric's own unit (see `metric_specs`)."""

    value: Number | None = Field(default=None, description="point value; None where it is undefined")
    ci_low: Number | None = _renamed("ci_low", "low", None, description="lower end of the 95 % confidence interval")
    ci_high: Number | None = _renamed("ci_high", "high", None, description="upper end; None with `ci_low`: open")
    n: Count | None = Field(
        default=None, description="images behind the value, where they are not those of the whole entry"
    )

    @property
    def has_interval(self) -> bool:
        """True if both ends of the interval are known."""
        return self.ci_low is not None and self.ci_high is not None


class AnalysisMetricValue(MetricValue):
    """A metric value in the files of `agebench stress` and `agebench explain`, which call the ends `low` and `high`."""

    @property
    def number(self) -> float:
        """The value; NaN where it is undefined."""
        return math.nan if self.value is None else self.value

    @property
    def ends(self) -> tuple[float, float]:
        """The ends of the interval; NaN where they are unknown."""
        low, high = self.ci_low, self.ci_high
        return math.nan if low is None else low, math.nan if high is None else high

    @model_serializer
    def _with_low_and_high(self) -> dict[str, float | None]:
        return {"value": self.value, "low": self.ci_low, "high": self.ci_high}


_UNDEFINED = MetricValue()


class GroupMetrics(ResultModel):
    """Metrics of one group of images."""

    n: Count = Field(default=0, description="images")
    eligible: bool | None = _renamed(
        "eligible", "ranked", None, description="whether it has enough images to be compared"
    )
    mae: MetricValue = Field(default=_UNDEFINED, description="mean absolute error, years")
    bias: MetricValue = Field(default=_UNDEFINED, description="mean of predicted minus true age, years")
    rmse: MetricValue = Field(default=_UNDEFINED, description="root mean squared error, years")
    cs5: MetricValue = Field(default=_UNDEFINED, description="share of images with an error of at most five years")
    age_standardized_mae: MetricValue | None = _renamed(
        "age_standardized_mae", "mae_standardised", None, description="directly age-standardized MAE, years"
    )


class GroupDifference(ResultModel):
    """The largest difference in MAE between the groups of one grouping, and its test."""

    difference: MetricValue = Field(default=_UNDEFINED, description="MAE of `worst` minus MAE of `best`, years")
    ratio: MetricValue = Field(default=_UNDEFINED, description="MAE of `worst` over MAE of `best`")
    worst: str | None = Field(default=None, description="group with the largest MAE")
    best: str | None = Field(default=None, description="group with the smallest MAE")
    worst_groups: list[str] | None = Field(
        default=None, description="groups that may have the largest MAE, largest first"
    )
    excess: dict[str, MetricValue] | None = Field(
        default=None, description="group -> its MAE minus the mean of all, years"
    )
    p: Number | None = Field(default=None, description="p value of the permutation test of equal MAEs")
    p_holm: Number | None = Field(default=None, description="p value after Holm's correction over all groupings")
    upper: Number | None = Field(
        default=None, description="upper 97.5 % bound of the largest difference between any two groups, years"
    )

    @property
    def adjusted_p(self) -> float | None:
        """The corrected p value, or the plain one where no correction was recorded."""
        return self.p if self.p_holm is None else self.p_holm


class AgeStandardizedGap(GroupDifference):
    """The difference at equal ages: MAEs are directly standardized to one age distribution."""

    groups: list[str] | None = Field(default=None, description="groups that share enough ages to be compared")
    coverage: Number | None = Field(default=None, description="share of images that lie in the common age strata")
    ages: list[list[int]] | None = Field(default=None, description="first and last completed year of every stratum")


class Gap(GroupDifference):
    """The gap between the groups of one grouping: raw, and at equal ages."""

    age_standardized: AgeStandardizedGap | None = _renamed("age_standardized", "standardised", None)
    explained_by_age: bool | None = _renamed(
        "explained_by_age", "shrinks", None, description="whether over a tenth of the raw gap is gone at equal ages"
    )
    flagged: bool | None = Field(
        default=None, description="whether the test shows a difference, at equal ages where possible"
    )

    @model_validator(mode="before")
    @classmethod
    def _complete_bare_difference(cls, content: Any) -> Any:
        """Complete early files of schema 1, whose gap at equal ages is the difference alone."""
        even = content.get("standardised") if isinstance(content, dict) else None
        if not isinstance(even, dict) or "value" not in even:
            return content
        ends = {end: content.get(end) for end in ("worst", "best")}
        return content | {"standardised": {"difference": even, **ends}}


class GateRates(ResultModel):
    """Error rates of an age gate at one challenge age."""

    fpr: MetricValue = Field(default=_UNDEFINED, description="share of under-age images that pass")
    fnr: MetricValue = Field(default=_UNDEFINED, description="share of images of legal age that are refused")


class CountedGateRates(GateRates):
    """Error rates of an age gate with the numbers of images behind them."""

    n_under: Count = Field(description="images below the legal age")
    n_over: Count = Field(description="images of legal age")


class AgeGateRate(ResultModel):
    """The false positive rate at one true age."""

    n: Count
    fpr: MetricValue


class AgeRefusalRate(ResultModel):
    """The false negative rate at one true age."""

    n: Count
    fnr: MetricValue


class UnderAgeDetection(ResultModel):
    """Detection of minors at the challenge age that lets a fixed share of them pass; positives are the minors."""

    false_adult_rate: Number = Field(description="share of minors that may pass")
    challenge: Number = Field(description="challenge age that holds this share, years")
    f2: MetricValue = Field(description="F-measure that weighs recall twice as much as precision")
    recall: Number = Field(description="share of minors that are refused")
    precision: Number = Field(description="share of minors among all who are refused")
    prevalence: Number = Field(description="share of minors in the test set, which precision and F2 depend on")


class RequiredChallengeAge(MetricValue):
    """The lowest challenge age (years) that holds a false positive rate."""

    n_needed: Count = Field(default=0, description="under-age images that are needed to show the rate")
    people: Count | None = Field(default=None, description="people on the under-age images, where known")
    n_effective: Count | None = Field(default=None, description="images of as many people that the images are worth")


class DetCurve(ResultModel):
    """Detection error trade-off over challenge ages."""

    challenge: list[Number] = Field(description="challenge ages, years")
    fpr: list[Number]
    fnr: list[Number]
    fpr_low: list[Number] = Field(default=[], description="lower ends of the 95 % intervals of `fpr`")
    fpr_high: list[Number] = Field(default=[], description="upper ends of the 95 % intervals of `fpr`")
    fnr_low: list[Number] = Field(default=[], description="lower ends of the 95 % intervals of `fnr`")
    fnr_high: list[Number] = Field(default=[], description="upper ends of the 95 % intervals of `fnr`")


class GateResult(ResultModel):
    """Error rates of the age gates for one legal age; dictionaries are keyed by the challenge age."""

    n_under: Count
    n_over: Count
    challenge: dict[str, GateRates] = {}
    by_age: dict[str, dict[str, AgeGateRate]] = Field(
        default={}, description="challenge age -> true age in years -> rate"
    )
    by_group: dict[str, dict[str, dict[str, CountedGateRates]]] = Field(
        default={}, description="… -> grouping -> group"
    )
    required: dict[str, RequiredChallengeAge] = _renamed(
        "required", "needed", {}, description="target false positive rate -> challenge age that holds it"
    )
    det: DetCurve | None = None
    minor_ages: Annotated[list[Count], Field(min_length=2, max_length=2)] | None = Field(
        default=None, description="first and last completed year of the minors that count; None: all"
    )
    refused_by_age: dict[str, dict[str, AgeRefusalRate]] = Field(
        default={}, description="challenge age -> true age in years, from the legal age on -> rate"
    )
    required_below_limit: dict[str, RequiredChallengeAge] = Field(
        default={}, description="as `required`, for the minors in the last year below the legal age"
    )
    detection: UnderAgeDetection | None = None


class LevelCoverage(ResultModel):
    """Central prediction intervals of one nominal level."""

    coverage: MetricValue = Field(description="share of labels inside")
    width: MetricValue = Field(description="mean width, years")


class ReliabilityCurve(ResultModel):
    """Observed against nominal coverage."""

    nominal: list[Number]
    observed: list[Number]


class RejectionCurve(ResultModel):
    """MAE of the images that remain when the most uncertain are rejected first."""

    kept: list[Number] = Field(description="shares of images kept")
    mae: list[Number] = Field(description="MAE at each share, years")
    area: MetricValue = Field(description="mean of `mae` over the shares, years")
    area_random: Number = Field(description="the same with random rejection, years")
    area_best: Number = Field(description="the same with rejection by the true error, years")


class UncertaintyResult(ResultModel):
    """Scores of the predicted age distributions."""

    source: str = Field(description="column of the distribution: `p` or `age_std`")
    nll: MetricValue = Field(description="negative log-likelihood, nats")
    crps: MetricValue = Field(description="continuous ranked probability score, years")
    levels: dict[str, LevelCoverage] = Field(description="nominal level -> coverage and width")
    reliability: ReliabilityCurve
    rejection: RejectionCurve


class GroupCoverage(ResultModel):
    """Coverage of conformal intervals in one group."""

    n: Count
    coverage: MetricValue


class ConformalLevel(ResultModel):
    """Split-conformal intervals of one nominal level."""

    radius: Number = Field(description="half width: years, or standard deviations where the intervals are scaled")
    width: Number = Field(description="mean width, years")
    coverage: MetricValue
    groups: dict[str, dict[str, GroupCoverage]]


class ConformalResult(ResultModel):
    """Split-conformal intervals, calibrated on the validation part."""

    n_calibration: Count = Field(description="calibration images")
    people_calibration: Count | None = Field(
        default=None, description="people on them; None where subjects are unknown"
    )
    scaled: bool = Field(description="whether radii are multiples of the predicted standard deviation")
    levels: dict[str, ConformalLevel]


class ConformalInterval(ResultModel):
    """The conformal interval for new images, with its coverage on the test sets."""

    level: Number
    radius: Annotated[Number, Field(ge=0)]
    scaled: bool
    n: Count = Field(description="calibration images")
    people: Count | None = Field(default=None, description="people on them; None where subjects are unknown")
    coverage: dict[str, MetricValue] = Field(description="test set -> share of labels inside")


class CalibratedInterval(ConformalInterval):
    """A conformal interval with the name of its calibration set."""

    calibrated_on: str

    @property
    def calibration_size(self) -> str:
        """The size of the calibration set: images, and subjects where they are known."""
        return f"n = {self.n:,}" + ("" if self.people is None else f" of {self.people:,} people, for new people")


class GateGuarantee(ResultModel):
    """Error rates of one age gate on the test sets."""

    threshold: int = Field(description="legal age, years")
    challenge: Number = Field(description="challenge age, years")
    tests: dict[str, CountedGateRates | None] = Field(description="None where one side of the threshold is empty")


class EstimateError(ResultModel):
    """Errors of the images whose estimates lie in one age band."""

    n: Count
    mae: MetricValue = Field(description="mean absolute error, years")
    p95_ae: MetricValue = Field(description="95th percentile of the absolute error, years")


# Test set -> band of estimated ages -> errors.
EstimateErrors = dict[str, dict[str, EstimateError]]


class CellAverage(MetricValue):
    """An average over cells of sex and age, with the ages that it is taken at."""

    ages: list[int] = Field(description="first and last completed year")
    cells: Count | None = Field(default=None, description="cells with images")
    of_cells: Count | None = Field(default=None, description="cells that NIST has")


class NistGroup(ResultModel):
    """MAE of one sex or origin as the mean over ages."""

    n: Count
    ages: list[int]
    cells: Count | None = None
    of_cells: Count | None = None
    mae: MetricValue


class NistOrigins(ResultModel):
    """MAE by origin and sex."""

    column: str
    groups: dict[str, NistGroup]


class NistErrors(ResultModel):
    """MAE over cells of sex and age: overall, by sex, by origin."""

    mae: CellAverage
    by_sex: dict[str, NistGroup]
    by_origin: NistOrigins | None


class NistChallenge(ResultModel):
    """False positive rate of Challenge 25."""

    ages: list[int]
    challenge: int
    n: Count
    cells: Count
    of_cells: Count
    origin: str | None
    fpr: MetricValue


class NistChildSafety(ResultModel):
    """The task Child Online Safety (13-16)."""

    mae: CellAverage
    tpr: CellAverage
    fnr_below: CellAverage
    fnr_above: CellAverage
    fpr_below: CellAverage
    fpr_above: CellAverage


class NistAllAges(NistErrors):
    """The same metrics over all ages of a test set."""

    accuracy: dict[str, MetricValue] = Field(description="years -> share of images within them")
    challenge_25: GateResult | None


class NistFateResult(NistErrors):
    """The metrics of NIST FATE AEV."""

    challenge_25: NistChallenge
    child_online_safety: NistChildSafety
    all_ages: NistAllAges


class FailureRate(ResultModel):
    """Images in which no face could be prepared."""

    n: Count = Field(default=0, description="images")
    failed: Count = 0
    rate: MetricValue = Field(default=_UNDEFINED, description="share that failed, with Wilson's interval")


class GroupFailureRate(FailureRate):
    """The failure rate of one group."""

    eligible: bool | None = _renamed(
        "eligible", "ranked", None, description="whether it has enough images to be compared"
    )


class FailureGap(ResultModel):
    """The difference between the highest and the lowest failure rate of a grouping."""

    worst: str
    best: str
    difference: Number
    p: Number = Field(description="p value of the permutation test of equal rates")
    p_holm: Number = Field(default=1.0, description="p value after Holm's correction over all groupings")


class FailureToProcess(FailureRate):
    """Failure to process: overall, by group, and the gaps between groups."""

    groups: dict[str, dict[str, GroupFailureRate]] = {}
    gaps: dict[str, FailureGap] = {}


class ClassRecall(ResultModel):
    """Recall of one class."""

    n: Count
    recall: MetricValue


class TaskGroupMetrics(ResultModel):
    """Metrics of an auxiliary target in one group."""

    n: Count
    eligible: bool | None = _renamed(
        "eligible", "ranked", None, description="whether it has enough images to be compared"
    )
    accuracy: MetricValue
    balanced_accuracy: MetricValue


class TaskMetrics(ResultModel):
    """Metrics of one auxiliary target, such as gender."""

    n: Count = Field(description="labeled images")
    n_unknown: Count = _renamed("n_unknown", "unknown", 0, description="images without a label")
    majority: Number | None = Field(default=None, description="share of the most frequent class")
    accuracy: MetricValue = _UNDEFINED
    balanced_accuracy: MetricValue = Field(default=_UNDEFINED, description="mean recall over classes")
    classes: dict[str, ClassRecall] = {}
    groups: dict[str, dict[str, TaskGroupMetrics]] = {}


IntervalKind = Literal["bca", "percentile"]


class BootstrapMethod(ResultModel):
    """The method of the confidence intervals of an entry."""

    interval: IntervalKind
    level: Number = 0.95
    resamples: int
    resampled: str = Field(default="images", description="`subjects` or `images`")
    seed: int = Field(ge=0)
    version: int = Field(default=1, description="of the method; files without a version have 1")


class SeedMetric(ResultModel):
    """One metric over the seeds of a system."""

    values: list[Number]
    mean: Number
    sd: Number


class SeedSummary(ResultModel):
    """The overall metrics of every seed."""

    count: Count
    metrics: dict[str, SeedMetric] = _renamed("metrics", "figures")


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
    """Why the MAE on a dataset differs from that on the held-out part of the training set."""

    source: str = Field(description="the training set, whose held-out part was tested")
    difference: MetricValue = Field(description="MAE on this test set minus MAE on the source's held-out part, years")
    parts: ShiftParts
    with_groups: ShiftParts | None = Field(default=None, description="the same with cells of age and groups")
    recalibration: list[Recalibration] = []


class TestResult(ResultModel):
    """All metrics of one test set."""

    __test__: ClassVar[bool] = False  # no test case, in spite of its name

    n: Count = Field(description="images")
    subjects: Count | None = Field(default=None, description="people, where they are known")
    overall: dict[str, MetricValue] = Field(default={}, description="metric name -> value over all images")
    cs: list[Number | None] = Field(default=[], description="cumulative score at 0, 1, … 10 years")
    groups: dict[str, dict[str, GroupMetrics]] = Field(default={}, description="grouping -> group -> metrics")
    gaps: dict[str, Gap] = Field(default={}, description="grouping -> gap")
    n_unknown: dict[str, Count] = _renamed("n_unknown", "unknown", {}, description="grouping -> images without a group")
    train_ages: Annotated[list[Number], Field(min_length=2, max_length=2)] | None = None
    method: BootstrapMethod | None = None
    undercovering: list[str] = Field(default=[], description="metrics whose intervals cover less than 95 %")
    notes: list[str] = []
    baseline_mae: Number | None = Field(default=None, description="MAE of the median-age baseline, years")
    training_overlap: str | None = _renamed(
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
    shift: ShiftResult | None = Field(default=None, description="why it is worse than the source's held-out part")

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
        return self.overall.get(name, _UNDEFINED)


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
    tests: dict[str, TestResult] = {}
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


class SystemMae(ResultModel):
    """The MAE of one system over its seeds."""

    seeds: Count
    mae: MetricValue


class PairComparison(ResultModel):
    """The difference between two systems."""

    a: str
    b: str
    difference: MetricValue = Field(description="MAE of a minus MAE of b, years")
    p: Number | None = Field(description="bootstrap p value; None without resamples")
    p_holm: Number | None = Field(default=None, description="p value after Holm's correction over all pairs")
    shown: bool = Field(description="whether a difference is shown")
    better: str | None = Field(description="the better system where a difference is shown")
    images_needed: Count | None = Field(description="images that would show a difference of 0.1 years")
    verdict: str


class MarginTest(ResultModel):
    """Two one-sided tests of a difference, each at 5 %, against a margin that does not matter."""

    margin: Number = Field(description="in the figure's unit")
    low: Number = Field(description="lower end of the paired 90 % interval of a minus b")
    high: Number = Field(description="upper end of this interval")
    a_not_inferior: bool | None = Field(description="whether a is shown not to be worse than b by the margin or more")
    b_not_inferior: bool | None = Field(description="the same for b against a; None where neither direction is worse")
    equivalent: bool = Field(description="whether the difference is shown to be smaller than the margin either way")


class FigureDifference(ResultModel):
    """The difference of two systems in one figure."""

    kind: str = Field(description="mae, bias, cs5, fpr, fnr, gap or failure")
    difference: MetricValue = Field(description="figure of a minus figure of b, with its paired interval")
    p: Number | None = Field(description="bootstrap p value; None without resamples")
    p_holm: Number | None = Field(default=None, description="p value after Holm's correction over all pairs")
    shown: bool = Field(description="whether a difference is shown, by the corrected p value and by the interval")
    margin: MarginTest | None = None


class FigureDifferences(ResultModel):
    """Systems compared by several figures; names of figures are such as `mae`, `fpr(18@25)` and `gap(gender)`."""

    n: Count = Field(description="images that were to be processed")
    n_common: Count = Field(description="images that every system answered")
    systems: dict[str, dict[str, MetricValue]] = Field(description="system -> figure -> value")
    pairs: list[Annotated[list[str], Field(min_length=2, max_length=2)]]
    differences: list[dict[str, FigureDifference]] = Field(description="for each pair: figure -> difference")
    unanswered: dict[str, Count] = Field(description="system -> images that it did not answer")
    groups_at_equal_ages: dict[str, bool] = Field(
        default={}, description="grouping -> whether its gap is taken at equal ages"
    )


class ComparisonResult(ResultModel):
    """Systems compared on the images that all of them have."""

    n: Count
    subjects: Count | None
    left_out: Count
    systems: dict[str, SystemMae]
    pairs: list[PairComparison]
    figures: FigureDifferences | None = None


class FriedmanTest(ResultModel):
    """Friedman's test over data sets."""

    statistic: Number | None
    p: Number | None


class NemenyiPair(ResultModel):
    """Nemenyi's test of two systems."""

    a: str
    b: str
    p: Number


class RankComparison(ResultModel):
    """Mean ranks of systems over data sets."""

    datasets: list[str]
    systems: list[str]
    ranks: dict[str, Number]
    friedman: FriedmanTest
    critical_difference: Number
    nemenyi: list[NemenyiPair]
    groups: list[list[str]] = Field(description="systems whose ranks lie within the critical difference")


class NewDatasetClaim(ResultModel):
    """The ratio of MAE to baseline MAE on datasets like those that were tested, with 95 % intervals."""

    datasets: Count
    ratio: Number
    ci_low: Number
    ci_high: Number
    prediction_low: Number = Field(description="lower end of the prediction interval for a new dataset")
    prediction_high: Number
    tau: Number = Field(description="standard deviation between datasets, of the logarithm")


class RankedSystem(ResultModel):
    """One system of a ranking."""

    name: str
    train: str | None = Field(description="training set; None for a system that was not trained here")
    runs: list[str] = Field(description="ids of its records")
    value: MetricValue = Field(description="MAE in years, or mean ratio of MAE to baseline MAE; interval of its own")
    rank_low: Count = Field(description="one more than the number of systems shown to be better")
    rank_high: Count = Field(description="number of systems less those shown to be worse")
    unusual_seeds: bool = Field(default=False, description="whether its seeds differ more than those of other systems")
    new_datasets: NewDatasetClaim | None = Field(default=None, description="None with fewer than five other datasets")


class SystemRanking(ResultModel):
    """Systems tested on the same images, with simultaneous 95 % intervals of all differences and of all ranks."""

    inputs: str = Field(description="digest of the estimates, the datasets and the method")
    tests: list[str] = Field(description="test sets; several: the metric is the mean ratio of MAE to baseline MAE")
    held_out: list[bool] = Field(description="whether each is the held-out part of the systems' own training set")
    images: list[Count] = Field(description="images of each test set, those of several seeds counted once")
    people: list[Count | None] = Field(description="people on them; None where subjects are unknown")
    resamples: Count
    critical: Number = Field(description="critical value of the largest studentized difference, normal scale")
    systems: list[RankedSystem] = Field(description="by value, best first")
    differences: list[list[Number]] = Field(
        description="for each pair of places in `systems` i < j: i, j, value of j minus that of i, low, high"
    )
    single_runs: bool = Field(default=False, description="whether the variance between trainings is unknown")

    @property
    def pairs_shown(self) -> int:
        """Number of pairs of systems that are shown to differ."""
        return sum(low > 0 or high < 0 for *_, low, high in self.differences)


class ComparisonFile(ResultModel):
    """The content of a comparison.json."""

    tests: dict[str, ComparisonResult]
    across: RankComparison | None = None
    measurement: Measurement | None = Field(default=None, description="of `agebench compare`")

    def to_json(self) -> dict[str, Any]:
        """Return the content of comparison.json, schema 2."""
        return {"schema": SCHEMA, **super().to_json()}


class PilotFigures(ResultModel):
    """Properties of the errors that a plan is computed from."""

    n: Count = Field(description="images of the pilot; 0: typical values")
    people: Count | None = Field(description="people on them; None where subjects are unknown or never repeat")
    mae: Number | None = Field(description="years")
    spread: Number = Field(description="standard deviation of the absolute error, years")
    shared: Number = Field(description="share of this variance that the images of a person have in common")


class IntervalSize(ResultModel):
    """The images that an interval of the MAE needs."""

    half_width: Number = Field(description="of the 95 % interval, years")
    people: Count
    images: Count


class GapSize(ResultModel):
    """The images that a difference between two groups of equal size needs."""

    gap: Number = Field(description="true difference in MAE, years")
    people_per_group: Count
    images_per_group: Count


class RateSize(ResultModel):
    """The minors that showing a false positive rate needs."""

    limit: Number = Field(description="rate that is to be shown")
    rate: Number = Field(description="true rate that was assumed")
    minors: Count = Field(description="minors with one image each")
    allowed: Count = Field(description="minors that may pass")
    minors_without_any: Count = Field(description="minors that show the limit if none passes")


class GroupPower(ResultModel):
    """The power of an existing test set for one group."""

    grouping: str
    group: str
    n: Count
    people: Count
    mae: Number = Field(description="years")
    mae_shrunk: Number | None = Field(description="shrunk towards the whole by empirical Bayes; not for ranking")
    half_width: Number | None = Field(description="of the MAE's 95 % interval, years; None for one person")
    smallest_gap: Number | None = Field(description="difference to the other groups that the power shows, years")
    minors: Count
    smallest_fpr: Number | None = Field(
        description="lowest false positive rate that could be shown, if no minor passes"
    )


class LabelNoise(ResultModel):
    """The MAE against true ages under errors of the labels."""

    label_sd: Number = Field(description="standard deviation of the labels' errors, years")
    mae: Number | None = Field(description="years; None where labels cannot err so much")


class PlanResult(ResultModel):
    """The result of `agebench plan`."""

    pilot: PilotFigures
    power: Number
    images_per_person: Number
    intervals: list[IntervalSize]
    gaps: list[GapSize]
    rates: list[RateSize]
    groups: list[GroupPower] = []
    label_noise: list[LabelNoise] = []
