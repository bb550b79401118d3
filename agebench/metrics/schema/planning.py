"""The result of `agebench plan`."""

from pydantic import Field

from agebench.metrics.schema.base import Count, Number, ResultModel


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
    groups: list[GroupPower] = Field(default=[])
    label_noise: list[LabelNoise] = Field(default=[])
