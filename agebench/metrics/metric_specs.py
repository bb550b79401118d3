"""The properties of each metric: its unit, the range of its values, and which direction is better.

Ranges, units and directions are looked up here by the metric's own name, never derived from the names of columns, groups or files.
"""

from dataclasses import dataclass
from enum import StrEnum

# Identifies one figure: what it is computed on (a grouping, a group, a system), then a name of `SPECS`. A tuple, because names
# of columns and groups may contain any character that could separate them.
FigureKey = tuple[str, ...]


class Unit(StrEnum):
    """The unit of a metric."""

    YEARS = "years"
    SHARE = "share"
    NATS = "nats"
    NONE = ""


class Better(StrEnum):
    """Which values of a metric are better."""

    LOWER = "lower"
    HIGHER = "higher"
    ZERO = "nearer to zero"
    ONE = "nearer to one"
    NEITHER = ""


@dataclass(frozen=True)
class MetricSpec:
    """A metric.

    Attributes:
        name: key in metrics.json.
        unit: what its values are measured in.
        lower, upper: the values it can have; intervals are clipped to them.
        better: which values are better.
        label: name in reports.
    """

    name: str
    unit: Unit
    lower: float
    upper: float
    better: Better
    label: str

    @property
    def header(self) -> str:
        """The label with the unit, for tables."""
        return f"{self.label} (years)" if self.unit is Unit.YEARS else self.label


_INF = float("inf")
_ERRORS = {
    "mae": "MAE",
    "rmse": "RMSE",
    "median_ae": "median absolute error",
    "p95_ae": "95th percentile of the absolute error",
    "balanced_mae": "MAE, macro-averaged over ages",
    "balanced_mae_bands": "MAE, macro-averaged over age bands",
    "mae_within_train_ages": "MAE within the training ages",
    "age_standardized_mae": "age-standardized MAE",
    "range_mae": "distance to the label's range",
    "crps": "CRPS",
    "width": "interval width",
}
_SHARES = {
    **{f"cs{years}": f"CS@{years}" for years in range(11)},
    "range_hit": "within the label's range",
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "recall": "recall",
}
SPECS = {
    spec.name: spec
    for spec in (
        *(MetricSpec(name, Unit.YEARS, 0.0, _INF, Better.LOWER, label) for name, label in _ERRORS.items()),
        *(MetricSpec(name, Unit.SHARE, 0.0, 1.0, Better.HIGHER, label) for name, label in _SHARES.items()),
        MetricSpec("coverage", Unit.SHARE, 0.0, 1.0, Better.NEITHER, "coverage"),
        MetricSpec("epsilon_error", Unit.NONE, 0.0, 1.0, Better.LOWER, "epsilon-error"),
        MetricSpec("bias", Unit.YEARS, -_INF, _INF, Better.ZERO, "bias"),
        MetricSpec("age_standardized_bias", Unit.YEARS, -_INF, _INF, Better.ZERO, "age-standardized bias"),
        MetricSpec("mean_change", Unit.YEARS, -_INF, _INF, Better.NEITHER, "mean change"),
        MetricSpec("difference", Unit.YEARS, -_INF, _INF, Better.ZERO, "difference"),
        MetricSpec("ratio", Unit.NONE, 0.0, _INF, Better.ONE, "ratio"),
        MetricSpec("r2", Unit.NONE, -_INF, 1.0, Better.HIGHER, "R²"),
        MetricSpec("pearson", Unit.NONE, -1.0, 1.0, Better.HIGHER, "Pearson"),
        MetricSpec("spearman", Unit.NONE, -1.0, 1.0, Better.HIGHER, "Spearman"),
        MetricSpec("nll", Unit.NATS, -_INF, _INF, Better.LOWER, "NLL"),
    )
}


def metric_of(key: FigureKey) -> MetricSpec:
    """Return the metric that the figure `key` is of."""
    return SPECS[key[-1]]
