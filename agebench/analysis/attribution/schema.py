"""Results of an attribution analysis, as `<test>.json` stores them."""

from typing import Any

from pydantic import Field

from agebench.metrics.schema import AnalysisMetricValue, Count, Number, ResultModel
from agebench.runs.estimators import SubjectDescription

SCHEMA = 1


class RandomWeightsCheck(ResultModel):
    """Similarity of the maps to those of networks with random weights."""

    rank_correlation: AnalysisMetricValue = Field(description="Spearman's, mean over the faces and networks")
    draws: Count = Field(description="networks with random weights")
    passed: bool | None = Field(
        description="None where it is not determined: the faces are of one person, so that there is no interval"
    )


class CoveringCheck(ResultModel):
    """Change of the prediction as cells are covered (deletion) or uncovered (insertion)."""

    share: list[Number] = Field(description="share of the cells")
    curve: list[Number] = Field(description="change in the order of the map, years")
    random: list[Number] = Field(description="change in random order, years")
    difference: AnalysisMetricValue = Field(description="mean of `curve` minus `random`, years")
    passed: bool | None = Field(description="None where it is not determined, as above")


class SanityChecks(ResultModel):
    """The checks of one method."""

    randomised: RandomWeightsCheck | None = Field(default=None, description="None for an estimator without a network")
    deletion: CoveringCheck
    insertion: CoveringCheck
    passed: bool | None = Field(description="whether all checks pass; None where that is not determined")

    def verdict(self) -> str:
        """Return the failed checks, or that all checks passed, or that nothing could be determined."""
        if self.passed is None:
            return "not determined: one person"
        checks = {"random weights": self.randomised, "deletion": self.deletion, "insertion": self.insertion}
        failed = [title for title, check in checks.items() if check is not None and not check.passed]
        return f"fails: {', '.join(failed)}" if failed else "passes all checks"


class RegionShare(ResultModel):
    """The attribution within one region of the face."""

    area: Number = Field(description="share of the image's area")
    share: Number = Field(description="share of the attribution")
    times: Number = Field(description="`share` over `area`; 1 for a uniform map")


class GroupAttribution(ResultModel):
    """The attribution of one group of faces."""

    n: Count
    shown: bool = Field(description="whether it has enough faces for a mean map")
    regions: dict[str, RegionShare] | None = None


class MethodAttribution(ResultModel):
    """The results of one attribution method."""

    title: str
    passed: bool | None
    sanity: SanityChecks
    regions: dict[str, RegionShare]
    groups: dict[str, dict[str, GroupAttribution]]


class ExplainedFace(ResultModel):
    """A face that is shown individually."""

    sample_id: str
    age: Number = Field(description="true age, years")
    age_pred: Number = Field(description="predicted age, years")


class AttributionFile(SubjectDescription):
    """The content of a `<test>.json`."""

    test: str = Field(default="", description="name of the dataset")
    n: Count = Field(description="explained faces")
    of: Count = Field(description="faces of the dataset")
    checked: Count = Field(description="faces of the sanity checks")
    target: str = Field(description="the explained quantity: age or expectation")
    layer: str = Field(description="the layer that Grad-CAM explains; empty without one")
    methods: dict[str, MethodAttribution]
    singles: list[ExplainedFace]
    notes: list[str]

    @property
    def groups(self) -> dict[str, dict[str, GroupAttribution]]:
        """Grouping -> group -> the attribution by the first method; which groups are shown is the same for all methods."""
        return next(iter(self.methods.values())).groups

    def to_json(self) -> dict[str, Any]:
        """Return the content of the file."""
        return {"schema": SCHEMA, **super().to_json()}
