"""Results of a dataset profile, as explore.json stores them."""

from typing import Any

from pydantic import Field

from agebench.metrics.schema import Count, ResultModel

SCHEMA = 1
# Group column -> label -> number of images.
GroupCounts = dict[str, dict[str, int]]


class SubjectSizes(ResultModel):
    """Images of one subject."""

    min: Count
    median: float
    max: Count


class GroupAges(ResultModel):
    """The ages of one group, years."""

    n: Count
    q1: float
    median: float
    q3: float
    mean: float


class StatisticRange(ResultModel):
    """The distribution of an image statistic."""

    p5: float
    median: float
    p95: float


class ImageSummary(ResultModel):
    """Statistics of a random sample of images; those of no image are None."""

    n: Count
    grey: float | None = Field(default=None, description="share of images without color")
    width: StatisticRange | None = Field(default=None, description="pixels")
    height: StatisticRange | None = Field(default=None, description="pixels")
    brightness: StatisticRange | None = None
    contrast: StatisticRange | None = None
    sharpness: StatisticRange | None = None
    colour: StatisticRange | None = None


class SplitDistance(ResultModel):
    """The difference between two splits."""

    parts: list[str]
    age_years: float = Field(description="Wasserstein distance between the age histograms")
    age_years_by_chance: float = Field(description="95 % quantile of this distance between random splits")
    groups: dict[str, float] = Field(description="group column -> total variation distance")


class SplitsSummary(ResultModel):
    """The splits of a dataset in a run."""

    note: str = Field(default="", description="why the dataset cannot be split; empty where it can")
    n: dict[str, int] = Field(default={}, description="split -> number of images")
    mean_age: dict[str, float] = Field(default={}, description="split -> mean age, years")
    groups: dict[str, GroupCounts] = Field(default={}, description="group column -> split -> label -> number of images")
    distances: list[SplitDistance] = Field(default=[], description="one for each pair of splits")


class DatasetSummary(ResultModel):
    """The profile of one dataset."""

    name: str
    title: str
    n: Count = Field(description="usable images")
    put_aside: dict[str, int] = Field(description="reason -> number of rejected images")
    subjects: Count | None
    images_of_a_subject: SubjectSizes | None
    exact_copies: Count
    copies_with_other_labels: Count
    ages: dict[str, float] = Field(description="quantiles, mean and standard deviation, years")
    by_year: dict[str, int] = Field(description="age in years -> number of images")
    groups: GroupCounts
    group_ages: dict[str, dict[str, GroupAges]]
    crosstabs: dict[str, GroupCounts] = Field(
        description="first*second column -> first label -> second label -> images"
    )
    parts: SplitsSummary
    images: ImageSummary
    not_annotated: list[str]


class GroupDistance(ResultModel):
    """The difference between two datasets in one group column."""

    first: dict[str, int]
    second: dict[str, int]
    distance: float | None = Field(description="total variation distance; None without a common group")
    only_one_knows: list[str]


class DatasetComparison(ResultModel):
    """Two datasets, in view of a model that is trained on the first and tested on the second."""

    first: str
    second: str
    n: list[int]
    age_overlap: float = Field(description="intersection of the age histograms")
    age_distance_years: float = Field(description="Wasserstein distance between the age histograms")
    outside_training_ages: float = Field(description="share of test images at ages without training images")
    at_rare_training_ages: float = Field(description="share of test images at ages with few training images")
    rare_below: int = Field(description="training images per year of age below which an age is rare")
    same_images: Count
    groups: dict[str, GroupDistance]
    groups_missing: dict[str, list[str]]
    faces: dict[str, str]


class ProfileFile(ResultModel):
    """The content of explore.json."""

    seed: int
    datasets: dict[str, DatasetSummary]
    comparisons: list[DatasetComparison]

    def to_json(self) -> dict[str, Any]:
        """Return the content of the file."""
        return {"schema": SCHEMA, **super().to_json()}
