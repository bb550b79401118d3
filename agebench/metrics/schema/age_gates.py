"""Error rates of age gates."""

from typing import Annotated

from pydantic import Field

from agebench.metrics.schema.base import UNDEFINED, Count, MetricValue, Number, ResultModel, renamed_field


class GateRates(ResultModel):
    """Error rates of an age gate at one challenge age."""

    fpr: MetricValue = Field(default=UNDEFINED, description="share of under-age images that pass")
    fnr: MetricValue = Field(default=UNDEFINED, description="share of images of legal age that are refused")


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
    n_undecided: Count = Field(
        default=0, description="images in no rate: the label is a range of ages on both sides of the legal age"
    )
    challenge: dict[str, GateRates] = Field(default={})
    by_age: dict[str, dict[str, AgeGateRate]] = Field(
        default={}, description="challenge age -> true age in years -> rate"
    )
    by_group: dict[str, dict[str, dict[str, CountedGateRates]]] = Field(
        default={}, description="… -> grouping -> group"
    )
    required: dict[str, RequiredChallengeAge] = renamed_field(
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
