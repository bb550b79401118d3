"""Metrics of auxiliary targets."""

from pydantic import Field

from agebench.metrics.schema.base import UNDEFINED, Count, MetricValue, Number, ResultModel, renamed_field


class ClassRecall(ResultModel):
    """Recall of one class."""

    n: Count
    recall: MetricValue


class TaskGroupMetrics(ResultModel):
    """Metrics of an auxiliary target in one group."""

    n: Count
    eligible: bool | None = renamed_field(
        "eligible", "ranked", None, description="whether it has enough images to be compared"
    )
    accuracy: MetricValue
    balanced_accuracy: MetricValue


class TaskMetrics(ResultModel):
    """Metrics of one auxiliary target, such as gender."""

    n: Count = Field(description="labeled images")
    n_unknown: Count = renamed_field("n_unknown", "unknown", 0, description="images without a label")
    majority: Number | None = Field(default=None, description="share of the most frequent class")
    accuracy: MetricValue = UNDEFINED
    balanced_accuracy: MetricValue = Field(default=UNDEFINED, description="mean recall over classes")
    classes: dict[str, ClassRecall] = Field(default={})
    groups: dict[str, dict[str, TaskGroupMetrics]] = Field(default={})
