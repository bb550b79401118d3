"""Scores of predicted distributions, and conformal intervals."""

from pydantic import Field

from agebench.metrics.schema.base import Count, MetricValue, Number, ResultModel


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
