"""Guarantees for single predictions: intervals, error rates of gates, errors by estimated age."""

from typing import Annotated

from pydantic import Field

from agebench.metrics.schema.age_gates import CountedGateRates
from agebench.metrics.schema.base import Count, MetricValue, Number, ResultModel


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


class DeploymentGuarantees(ResultModel):
    """Guarantees about the predictions of one model, as the card of an exported file states them."""

    gates: dict[str, dict[str, GateGuarantee]] = Field(
        default={}, description="legal age -> challenge age -> error rates"
    )
    errors: EstimateErrors = Field(default={}, description="test set -> band of estimated ages -> errors")
    intervals: dict[str, CalibratedInterval] | None = Field(
        default=None, description="level -> interval; None without validation predictions"
    )
