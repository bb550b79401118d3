"""Comparisons of systems, and the content of a comparison.json."""

from typing import Annotated, Any

from pydantic import Field

from agebench.metrics.schema.base import SCHEMA, Count, MetricValue, Number, ResultModel
from agebench.metrics.schema.results import Measurement


class SystemMae(ResultModel):
    """The MAE of one system over its seeds."""

    seeds: Count
    mae: MetricValue


class PairComparison(ResultModel):
    """The difference between two systems."""

    a: str
    b: str
    difference: MetricValue = Field(description="MAE of a minus MAE of b, years")
    p: Number | None = Field(description="bootstrap p value; None without resamples")
    p_holm: Number | None = Field(default=None, description="p value after Holm's correction over all pairs")
    shown: bool = Field(description="whether a difference is shown")
    better: str | None = Field(description="the better system where a difference is shown")
    images_needed: Count | None = Field(description="images that would show a difference of 0.1 years")
    verdict: str


class MarginTest(ResultModel):
    """Two one-sided tests of a difference, each at 5 %, against a margin that does not matter."""

    margin: Number = Field(description="in the figure's unit")
    low: Number = Field(description="lower end of the paired 90 % interval of a minus b")
    high: Number = Field(description="upper end of this interval")
    a_not_inferior: bool | None = Field(description="whether a is shown not to be worse than b by the margin or more")
    b_not_inferior: bool | None = Field(description="the same for b against a; None where neither direction is worse")
    equivalent: bool = Field(description="whether the difference is shown to be smaller than the margin either way")


class FigureDifference(ResultModel):
    """The difference of two systems in one figure."""

    kind: str = Field(description="mae, bias, cs5, fpr, fnr, gap or failure")
    difference: MetricValue = Field(description="figure of a minus figure of b, with its paired interval")
    p: Number | None = Field(description="bootstrap p value; None without resamples")
    p_holm: Number | None = Field(default=None, description="p value after Holm's correction over all pairs")
    shown: bool = Field(description="whether a difference is shown, by the corrected p value and by the interval")
    margin: MarginTest | None = None


class FigureDifferences(ResultModel):
    """Systems compared by several figures; names of figures are such as `mae`, `fpr(18@25)` and `gap(gender)`."""

    n: Count = Field(description="images that were to be processed")
    n_common: Count = Field(description="images that every system answered")
    systems: dict[str, dict[str, MetricValue]] = Field(description="system -> figure -> value")
    pairs: list[Annotated[list[str], Field(min_length=2, max_length=2)]]
    differences: list[dict[str, FigureDifference]] = Field(description="for each pair: figure -> difference")
    unanswered: dict[str, Count] = Field(description="system -> images that it did not answer")
    groups_at_equal_ages: dict[str, bool] = Field(
        default={}, description="grouping -> whether its gap is taken at equal ages"
    )


class ComparisonResult(ResultModel):
    """Systems compared on the images that all of them have."""

    n: Count
    subjects: Count | None
    left_out: Count
    systems: dict[str, SystemMae]
    pairs: list[PairComparison]
    figures: FigureDifferences | None = None


class FriedmanTest(ResultModel):
    """Friedman's test over data sets."""

    statistic: Number | None
    p: Number | None


class NemenyiPair(ResultModel):
    """Nemenyi's test of two systems."""

    a: str
    b: str
    p: Number


class RankComparison(ResultModel):
    """Mean ranks of systems over data sets."""

    datasets: list[str]
    systems: list[str]
    ranks: dict[str, Number]
    friedman: FriedmanTest
    critical_difference: Number
    nemenyi: list[NemenyiPair]
    groups: list[list[str]] = Field(description="systems whose ranks lie within the critical difference")


class NewDatasetClaim(ResultModel):
    """The ratio of MAE to baseline MAE on datasets like those that were tested, with 95 % intervals."""

    datasets: Count
    ratio: Number
    ci_low: Number
    ci_high: Number
    prediction_low: Number = Field(description="lower end of the prediction interval for a new dataset")
    prediction_high: Number
    tau: Number = Field(description="standard deviation between datasets, of the logarithm")


class RankedSystem(ResultModel):
    """One system of a ranking."""

    name: str
    train: str | None = Field(description="training set; None for a system that was not trained here")
    runs: list[str] = Field(description="ids of its records")
    value: MetricValue = Field(description="MAE in years, or mean ratio of MAE to baseline MAE; interval of its own")
    rank_low: Count = Field(description="one more than the number of systems shown to be better")
    rank_high: Count = Field(description="number of systems less those shown to be worse")
    unusual_seeds: bool = Field(default=False, description="whether its seeds differ more than those of other systems")
    new_datasets: NewDatasetClaim | None = Field(default=None, description="None with fewer than five other datasets")


class SystemRanking(ResultModel):
    """Systems tested on the same images, with simultaneous 95 % intervals of all differences and of all ranks."""

    inputs: str = Field(description="digest of the estimates, the datasets and the method")
    tests: list[str] = Field(description="test sets; several: the metric is the mean ratio of MAE to baseline MAE")
    held_out: list[bool] = Field(description="whether each is the held-out part of a system's own training set")
    images: list[Count] = Field(description="images of each test set, those of several seeds counted once")
    people: list[Count | None] = Field(description="people on them; None where subjects are unknown")
    resamples: Count
    critical: Number = Field(description="critical value of the largest difference, normal scale")
    systems: list[RankedSystem] = Field(description="by value, best first")
    differences: list[list[Number]] = Field(
        description="for each pair of places in `systems` i < j: i, j, value of j minus that of i, low, high"
    )
    single_runs: bool = Field(default=False, description="whether the variance between trainings is unknown")

    @property
    def pairs_shown(self) -> int:
        """Number of pairs of systems that are shown to differ."""
        return sum(low > 0 or high < 0 for *_, low, high in self.differences)


class ComparisonFile(ResultModel):
    """The content of a comparison.json."""

    tests: dict[str, ComparisonResult]
    rankings: list[SystemRanking] = Field(
        default=[], description="of each test set with three systems or more, then over all test sets"
    )
    across: RankComparison | None = Field(default=None, description="mean ranks over five test sets or more")
    measurement: Measurement | None = Field(default=None, description="of `agebench compare`")

    def to_json(self) -> dict[str, Any]:
        """Return the content of comparison.json, schema 2."""
        return {"schema": SCHEMA, **super().to_json()}
