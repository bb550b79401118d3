"""What each metric is: its unit, the range of its values, and which direction is better.

Ranges, units and directions are looked up here by the metric's own name, never derived from the names of columns, groups or files.
"""

from dataclasses import dataclass
from enum import StrEnum

# Identifies one figure: what it is computed on (a grouping, a group, a system), then a name of `SPECS`. A tuple, because names
# of columns and groups may contain any character that could separate them.
FigureKey = tuple[str, ...]


class Unit(StrEnum):
    """What a metric is measured in."""

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
    """

    name: str
    unit: Unit
    lower: float
    upper: float
    better: Better


_INF = float("inf")
_ERRORS = (
    "mae",
    "rmse",
    "median_ae",
    "p95_ae",
    "balanced_mae",
    "balanced_mae_bands",
    "mae_within_train_ages",
    "age_standardized_mae",
    "range_mae",
    "crps",
    "width",
)
_SHARES = (*(f"cs{years}" for years in range(11)), "range_hit", "accuracy", "balanced_accuracy", "recall")
SPECS = {
    spec.name: spec
    for spec in (
        *(MetricSpec(name, Unit.YEARS, 0.0, _INF, Better.LOWER) for name in _ERRORS),
        *(MetricSpec(name, Unit.SHARE, 0.0, 1.0, Better.HIGHER) for name in _SHARES),
        MetricSpec("coverage", Unit.SHARE, 0.0, 1.0, Better.NEITHER),
        MetricSpec("epsilon_error", Unit.NONE, 0.0, 1.0, Better.LOWER),
        MetricSpec("bias", Unit.YEARS, -_INF, _INF, Better.ZERO),
        MetricSpec("mean_change", Unit.YEARS, -_INF, _INF, Better.NEITHER),
        MetricSpec("difference", Unit.YEARS, -_INF, _INF, Better.ZERO),
        MetricSpec("ratio", Unit.NONE, 0.0, _INF, Better.ONE),
        MetricSpec("r2", Unit.NONE, -_INF, 1.0, Better.HIGHER),
        MetricSpec("pearson", Unit.NONE, -1.0, 1.0, Better.HIGHER),
        MetricSpec("spearman", Unit.NONE, -1.0, 1.0, Better.HIGHER),
        MetricSpec("nll", Unit.NATS, -_INF, _INF, Better.LOWER),
    )
}


def metric_of(key: FigureKey) -> MetricSpec:
    """Return the metric that the figure `key` is of."""
    return SPECS[key[-1]]
