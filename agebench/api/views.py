"""Data frames and values of one test set's metrics."""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import pandas as pd

from agebench.metrics import schema

Cell = str | float | bool | None


class MetricValue(NamedTuple):
    """The value of one metric with its 95 % confidence interval.

    Attributes:
        value: the value, in the metric's unit; NaN where it is undefined.
        ci_low: lower end of the interval; NaN without an interval.
        ci_high: upper end of the interval; NaN without an interval.
        n: number of images behind the value.
    """

    value: float
    ci_low: float
    ci_high: float
    n: int


def overall_metrics(entry: schema.TestResult) -> dict[str, MetricValue]:
    """Return the metrics of all images, by name."""
    return {name: _metric_value(metric, entry.n) for name, metric in entry.overall.items()}


def overall_frame(entry: schema.TestResult) -> pd.DataFrame:
    """Return one row a metric: value, ci_low, ci_high, n."""
    return pd.DataFrame.from_dict(
        {name: value._asdict() for name, value in overall_metrics(entry).items()}, orient="index"
    ).rename_axis("metric")


def group_frame(entry: schema.TestResult) -> pd.DataFrame:
    """Return one row a subgroup, indexed by (grouping, group): n, eligible, and each metric with its interval.

    `eligible` is False where a subgroup has too few images to be compared.
    """
    rows = {
        (grouping, group): {"n": metrics.n, "eligible": metrics.eligible} | _metric_cells(metrics)
        for grouping, groups in entry.groups.items()
        for group, metrics in groups.items()
    }
    return _indexed(rows, ["grouping", "group"])


def gap_frame(entry: schema.TestResult) -> pd.DataFrame:
    """Return one row a grouping: the worst and the best subgroup, and their difference and ratio of MAE."""
    rows = {
        grouping: {
            **{name: value for name, value in _set_fields(gap) if isinstance(value, str | bool | int | float)},
            **_metric_cells(gap),
        }
        for grouping, gap in entry.gaps.items()
    }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("grouping")


def gate_frame(entry: schema.TestResult) -> pd.DataFrame:
    """Return one row an age gate, indexed by (legal_age, challenge_age): counts, and false positive and negative rates."""
    rows: dict[tuple[int, float], dict[str, float]] = {}
    for legal_age, gate in entry.age_gates.items():
        for challenge_age, rates in gate.challenge.items():
            rows[int(legal_age), float(challenge_age)] = {
                "n_under": gate.n_under,
                "n_over": gate.n_over,
                **_metric_columns("fpr", rates.fpr),
                **_metric_columns("fnr", rates.fnr),
            }
    return _indexed(rows, ["legal_age", "challenge_age"])


def system_frame(comparison: schema.ComparisonResult) -> pd.DataFrame:
    """Return one row a compared system: number of seeds, MAE with its interval, number of images."""
    rows = {
        name: {"seeds": system.seeds, **_metric_columns("mae", system.mae)}
        for name, system in comparison.systems.items()
    }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("system")


def pair_frame(comparison: schema.ComparisonResult) -> pd.DataFrame:
    """Return one row a pair of systems, indexed by (a, b): the paired difference of MAE, its interval and p values."""
    rows = {
        (pair.a, pair.b): {
            name: value
            for name, value in _set_fields(pair)
            if name not in ("a", "b") and not isinstance(value, schema.ResultModel)
        }
        | _metric_columns("difference", pair.difference)
        for pair in comparison.pairs
    }
    return _indexed(rows, ["a", "b"])


def figure_frame(comparison: schema.ComparisonResult) -> pd.DataFrame:
    """Return one row a pair of systems and a figure, indexed by (a, b, figure): the paired difference, p values, the margin."""
    rows: dict[tuple[str, str, str], dict[str, Cell]] = {}
    figures = comparison.figures
    for (a, b), differences in zip(figures.pairs, figures.differences, strict=True) if figures else ():
        for name, figure in differences.items():
            margin = figure.margin
            rows[a, b, name] = {
                **_metric_columns("difference", figure.difference),
                "p": figure.p,
                "p_holm": figure.p_holm,
                "shown": figure.shown,
                "margin": None if margin is None else margin.margin,
                "a_not_inferior": None if margin is None else margin.a_not_inferior,
                "b_not_inferior": None if margin is None else margin.b_not_inferior,
                "equivalent": None if margin is None else margin.equivalent,
            }
    return _indexed(rows, ["a", "b", "figure"])


def requirement_frame(entry: schema.TestResult) -> pd.DataFrame:
    """Return one row a requirement: its verdict, limit, and the measured value with its interval."""
    rows = {
        result.requirement: {
            "verdict": result.verdict,
            "limit": result.limit,
            **_metric_columns("value", result.value),
            "group": result.group,
        }
        for result in entry.requirements
    }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("requirement")


def metric_row(metric: schema.MetricValue) -> dict[str, float]:
    """Return a metric value as a row of a table: value, ci_low, ci_high."""
    value = _metric_value(metric, 0)
    return {"value": value.value, "ci_low": value.ci_low, "ci_high": value.ci_high}


def _indexed(rows: dict[Any, Any], names: list[str]) -> pd.DataFrame:
    """Return rows as a table whose index has one level for each name."""
    frame: pd.DataFrame = pd.DataFrame.from_dict(rows, orient="index")
    if rows:
        frame.index = pd.MultiIndex.from_tuples(list(rows), names=names)
    return frame


def _set_fields(model: schema.ResultModel) -> Iterator[tuple[str, object]]:
    """Yield the fields that were set with their values, in the order of the model's definition."""
    for name in type(model).model_fields:
        if name in model.model_fields_set:
            yield name, getattr(model, name)


def _metric_cells(model: schema.ResultModel) -> dict[str, float]:
    """Return the columns of every metric that a model has."""
    cells: dict[str, float] = {}
    for name, value in _set_fields(model):
        if isinstance(value, schema.MetricValue):
            cells |= _metric_columns(name, value)
    return cells


def _metric_columns(name: str, metric: schema.MetricValue) -> dict[str, float]:
    value = _metric_value(metric, 0)
    return {name: value.value, f"{name}_ci_low": value.ci_low, f"{name}_ci_high": value.ci_high}


def _metric_value(metric: schema.MetricValue, n: int) -> MetricValue:
    value, low, high = (
        math.nan if end is None else float(end) for end in (metric.value, metric.ci_low, metric.ci_high)
    )
    return MetricValue(value, low, high, metric.n or n)
