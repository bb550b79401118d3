"""Figures of NIST's FATE AEV."""

from pydantic import Field

from agebench.metrics.schema.age_gates import GateResult
from agebench.metrics.schema.base import Count, MetricValue, ResultModel


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


class NistAgeErrors(ResultModel):
    """Errors of the people of some completed years, as means over images."""

    ages: list[int] = Field(description="first and last completed year")
    mae: MetricValue
    by_sex: dict[str, MetricValue] = Field(description="MAE of each sex")
    accuracy: dict[str, MetricValue] = Field(description="years -> share of images within them")


class NistFateResult(NistErrors):
    """The metrics of NIST FATE AEV."""

    challenge_25: NistChallenge
    child_online_safety: NistChildSafety
    all_ages: NistAllAges
    by_age: list[NistAgeErrors] = Field(default=[], description="ages with images, in bands")
