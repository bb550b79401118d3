"""Base of all results: the frozen model, constrained numbers, and metric values."""

import math
from typing import Annotated, Any

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, model_serializer

SCHEMA = 2
MAX_MAGNITUDE = 10**12  # larger numbers in untrusted files are no results: they overflow when combined or drawn
Number = Annotated[float, Field(allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0, le=MAX_MAGNITUDE)]
Probability = Annotated[float, Field(ge=0, le=1)]
# A data set's name becomes part of a path.
Name = Annotated[str, Field(pattern=r"^[^/\\\x00-\x1f]{1,200}$")]


def renamed_field(name: str, schema_1: str, default: Any = ..., **options: Any) -> Any:
    """Return a field that schema 1 calls by another name.

    Args:
        name: the field's name.
        schema_1: its name in schema 1.
        default: its default; without one it is required.
        options: further arguments of `pydantic.Field`.
    """
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
    ci_low: Number | None = renamed_field(
        "ci_low", "low", None, description="lower end of the 95 % confidence interval"
    )
    ci_high: Number | None = renamed_field("ci_high", "high", None, description="upper end; None with `ci_low`: open")
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


UNDEFINED = MetricValue()
