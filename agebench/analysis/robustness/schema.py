"""Results of a robustness test, as `<test>.json` stores them."""

from typing import Any

from pydantic import Field

from agebench.metrics.schema import AnalysisMetricValue, Count, Number, ResultModel
from agebench.runs.estimators import SubjectDescription

SCHEMA = 1


class CleanMetrics(ResultModel):
    """Errors on the unchanged faces."""

    mae: AnalysisMetricValue = Field(description="mean absolute error, years")
    bias: AnalysisMetricValue = Field(description="mean of predicted minus true age, years")


class CorruptionMetrics(ResultModel):
    """Errors of a group under one corruption; lists have one entry for each strength."""

    relative: AnalysisMetricValue = Field(description="mean MAE over the strengths over the MAE on unchanged faces")
    mae: list[AnalysisMetricValue] = Field(description="mean absolute error, years")
    bias: list[AnalysisMetricValue] = Field(description="mean of predicted minus true age, years")


class OverallCorruptionMetrics(CorruptionMetrics):
    """Errors of all faces under one corruption."""

    title: str
    strengths: list[float]
    change: list[AnalysisMetricValue] = Field(description="mean absolute change of the predictions, years")


class ConsistencyMetrics(ResultModel):
    """The effect of a transform that should not change the prediction."""

    change: AnalysisMetricValue = Field(description="mean absolute change of the predictions, years")


class CorruptionSummary(ResultModel):
    """All corruptions together."""

    relative_error: AnalysisMetricValue = Field(description="mean of `relative` over all corruptions")
    change: AnalysisMetricValue = Field(description="mean absolute change of the predictions, years")
    corruptions: list[str]
    strengths: Count = Field(description="largest number of strengths of a corruption")


class GroupRobustness(ResultModel):
    """Errors of one group."""

    n: Count
    ranked: bool = Field(description="whether it has enough images to be compared")
    relative: AnalysisMetricValue
    clean: CleanMetrics
    corruptions: dict[str, CorruptionMetrics]


class RobustnessMethod(ResultModel):
    """The method of the intervals."""

    interval: str
    level: Number
    resamples: Count
    resampled: str = Field(description="subjects or images")
    seed: int


class RobustnessFile(SubjectDescription):
    """The content of a `<test>.json`."""

    test: str = Field(default="", description="name of the dataset")
    n: Count
    subjects: Count | None
    summary: CorruptionSummary
    clean: CleanMetrics
    corruptions: dict[str, OverallCorruptionMetrics]
    consistency: dict[str, ConsistencyMetrics]
    groups: dict[str, dict[str, GroupRobustness]]
    method: RobustnessMethod
    label_ranges: bool = Field(
        default=False,
        description="whether some labels are ranges, to the middle of which errors are measured; absent if not",
    )
    notes: list[str] = Field(default=[], description="corruptions that were left out, and why; absent without any")

    def by_harm(self) -> list[tuple[str, OverallCorruptionMetrics]]:
        """Return the corruptions with their names, the most harmful first."""
        return sorted(self.corruptions.items(), key=lambda item: -item[1].relative.number)

    def to_json(self) -> dict[str, Any]:
        """Return the content of the file."""
        return {"schema": SCHEMA, **super().to_json()}
