"""Metrics of groups of images, and the gaps between them."""

from typing import Any

from pydantic import Field, model_validator

from agebench.metrics.schema.base import UNDEFINED, Count, MetricValue, Number, ResultModel, renamed_field


class GroupMetrics(ResultModel):
    """Metrics of one group of images."""

    n: Count = Field(default=0, description="images")
    subjects: Count | None = Field(
        default=None, description="people, or what else is resampled as one; absent where that is every image"
    )
    eligible: bool | None = renamed_field(
        "eligible", "ranked", None, description="whether it has enough images to be compared"
    )
    mae: MetricValue = Field(default=UNDEFINED, description="mean absolute error, years")
    bias: MetricValue = Field(default=UNDEFINED, description="mean of predicted minus true age, years")
    rmse: MetricValue = Field(default=UNDEFINED, description="root mean squared error, years")
    cs5: MetricValue = Field(default=UNDEFINED, description="share of images with an error of at most five years")
    age_standardized_mae: MetricValue | None = renamed_field(
        "age_standardized_mae", "mae_standardised", None, description="directly age-standardized MAE, years"
    )


class GroupDifference(ResultModel):
    """The largest difference in MAE between the groups of one grouping, and its test."""

    difference: MetricValue = Field(default=UNDEFINED, description="MAE of `worst` minus MAE of `best`, years")
    ratio: MetricValue = Field(default=UNDEFINED, description="MAE of `worst` over MAE of `best`")
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


class BiasGap(ResultModel):
    """The largest difference in bias between the groups of one grouping, and its test."""

    difference: MetricValue = Field(default=UNDEFINED, description="bias of `highest` minus bias of `lowest`, years")
    highest: str = Field(description="group whose ages are estimated highest")
    lowest: str = Field(description="group whose ages are estimated lowest")
    at_equal_ages: bool = Field(description="whether biases are directly standardized to one age distribution")
    p: Number | None = Field(default=None, description="p value of the permutation test of equal biases")
    p_holm: Number | None = Field(default=None, description="p value after Holm's correction over all groupings")


class Gap(GroupDifference):
    """The gap between the groups of one grouping: raw, and at equal ages."""

    age_standardized: AgeStandardizedGap | None = renamed_field("age_standardized", "standardised", None)
    explained_by_age: bool | None = renamed_field(
        "explained_by_age", "shrinks", None, description="whether over a tenth of the raw gap is gone at equal ages"
    )
    flagged: bool | None = Field(
        default=None, description="whether the test shows a difference, at equal ages where possible"
    )
    bias: BiasGap | None = Field(default=None, description="the same question about the bias")

    @model_validator(mode="before")
    @classmethod
    def _complete_bare_difference(cls, content: Any) -> Any:
        """Complete early files of schema 1, whose gap at equal ages is the difference alone."""
        even = content.get("standardised") if isinstance(content, dict) else None
        if not isinstance(even, dict) or "value" not in even:
            return content
        ends = {end: content.get(end) for end in ("worst", "best")}
        return content | {"standardised": {"difference": even, **ends}}
