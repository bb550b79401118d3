"""Failures to process."""

from pydantic import Field

from agebench.metrics.schema.base import UNDEFINED, Count, MetricValue, Number, ResultModel, renamed_field


class FailureRate(ResultModel):
    """Images in which no face could be prepared."""

    n: Count = Field(default=0, description="images")
    failed: Count = 0
    rate: MetricValue = Field(default=UNDEFINED, description="share that failed, with Wilson's interval")


class GroupFailureRate(FailureRate):
    """The failure rate of one group."""

    eligible: bool | None = renamed_field(
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

    groups: dict[str, dict[str, GroupFailureRate]] = Field(default={})
    gaps: dict[str, FailureGap] = Field(default={})
