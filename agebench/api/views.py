"""Data frames and values of one test set's metrics. The only module of the API that knows the layout of metrics.json."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import pandas as pd

TestMetrics = Mapping[str, Any]  # one entry of `tests` in metrics.json


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


def test_entry(metrics: Any, name: str) -> TestMetrics:
    """Return the entry of one test set, as stored in metrics.json.

    Args:
        metrics: content of metrics.json or comparison.json: a mapping, or a model with `to_json`.
        name: name of the test set.
    """
    content: Mapping[str, Any] = metrics.to_json() if hasattr(metrics, "to_json") else metrics
    entry: TestMetrics = content["tests"][name]
    return entry


def overall_metrics(entry: TestMetrics) -> dict[str, MetricValue]:
    """Return the metrics of all images, by name."""
    return {name: _metric_value(raw, entry["n"]) for name, raw in entry["overall"].items()}


def overall_frame(entry: TestMetrics) -> pd.DataFrame:
    """Return one row a metric: value, ci_low, ci_high, n."""
    return pd.DataFrame.from_dict(
        {name: value._asdict() for name, value in overall_metrics(entry).items()}, orient="index"
    ).rename_axis("metric")


def group_frame(entry: TestMetrics) -> pd.DataFrame:
    """Return one row a subgroup, indexed by (grouping, group): n, eligible, and each metric with its interval.

    `eligible` is False where a subgroup has too few images to be compared.
    """
    rows = {}
    for grouping, groups in entry["groups"].items():
        for group, raw in groups.items():
            row: dict[str, Any] = {"n": raw["n"], "eligible": raw.get("eligible", raw.get("ranked"))}
            for name, value in raw.items():
                if _is_metric(value):
                    row |= _columns(name, _metric_value(value, raw["n"]))
            rows[grouping, group] = row
    frame = pd.DataFrame.from_dict(rows, orient="index")
    if rows:
        frame.index = pd.MultiIndex.from_tuples(rows, names=["grouping", "group"])
    return frame


def gap_frame(entry: TestMetrics) -> pd.DataFrame:
    """Return one row a grouping: the worst and the best subgroup, and their difference and ratio of MAE."""
    rows: dict[str, dict[str, Any]] = {}
    for grouping, raw in entry["gaps"].items():
        row = {name: value for name, value in raw.items() if isinstance(value, str | bool | int | float)}
        for name, value in raw.items():
            if _is_metric(value):
                row |= _columns(name, _metric_value(value, entry["n"]))
        rows[grouping] = row
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("grouping")


def gate_frame(entry: TestMetrics) -> pd.DataFrame:
    """Return one row an age gate, indexed by (legal_age, challenge_age): counts, and false positive and negative rates."""
    rows = {}
    for legal_age, gate in entry["age_gates"].items():
        for challenge_age, rates in gate.get("challenge", {}).items():
            row: dict[str, Any] = {"n_under": gate["n_under"], "n_over": gate["n_over"]}
            for name, n in (("fpr", gate["n_under"]), ("fnr", gate["n_over"])):
                if _is_metric(rates.get(name)):
                    row |= _columns(name, _metric_value(rates[name], n))
            rows[int(legal_age), float(challenge_age)] = row
    frame = pd.DataFrame.from_dict(rows, orient="index")
    if rows:
        frame.index = pd.MultiIndex.from_tuples(rows, names=["legal_age", "challenge_age"])
    return frame


def system_frame(comparison: TestMetrics) -> pd.DataFrame:
    """Return one row a compared system: number of seeds, MAE with its interval, number of images."""
    rows = {
        name: {"seeds": raw["seeds"], **_columns("mae", _metric_value(raw["mae"], comparison["n"]))}
        for name, raw in comparison["systems"].items()
    }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("system")


def pair_frame(comparison: TestMetrics) -> pd.DataFrame:
    """Return one row a pair of systems, indexed by (a, b): the paired difference of MAE, its interval and p values."""
    rows = {}
    for raw in comparison["pairs"]:
        row = {key: value for key, value in raw.items() if key not in ("a", "b") and not isinstance(value, Mapping)}
        rows[raw["a"], raw["b"]] = row | _columns("difference", _metric_value(raw["difference"], comparison["n"]))
    frame = pd.DataFrame.from_dict(rows, orient="index")
    frame.index = pd.MultiIndex.from_tuples(rows, names=["a", "b"])
    return frame


def figure_frame(comparison: TestMetrics) -> pd.DataFrame:
    """Return one row a pair of systems and a figure, indexed by (a, b, figure): the paired difference, p values, the margin."""
    figures = comparison["figures"]
    rows = {}
    for (a, b), differences in zip(figures["pairs"], figures["differences"], strict=True):
        for figure, raw in differences.items():
            row = {key: raw.get(key) for key in ("p", "p_holm", "shown")}
            margin = raw.get("margin") or {}
            row |= {key: margin.get(key) for key in ("margin", "a_not_inferior", "b_not_inferior", "equivalent")}
            rows[a, b, figure] = _columns("difference", _metric_value(raw["difference"], figures["n"])) | row
    frame = pd.DataFrame.from_dict(rows, orient="index")
    frame.index = pd.MultiIndex.from_tuples(rows, names=["a", "b", "figure"])
    return frame


def requirement_frame(entry: TestMetrics) -> pd.DataFrame:
    """Return one row a requirement: its verdict, limit, and the measured value with its interval."""
    rows = {
        raw["requirement"]: {
            "verdict": raw["verdict"],
            "limit": raw["limit"],
            **_columns("value", _metric_value(raw["value"], entry["n"])),
            "group": raw.get("group"),
        }
        for raw in entry.get("requirements", ())
    }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("requirement")


def metric_row(raw: Mapping[str, Any], n: int = 0) -> dict[str, float]:
    """Return a stored metric value as a row of a table: value, ci_low, ci_high."""
    return {key: value for key, value in _metric_value(raw, n)._asdict().items() if key != "n"}


def _is_metric(raw: object) -> bool:
    return isinstance(raw, Mapping) and ("value" in raw or "ci_low" in raw)


def _metric_value(raw: Mapping[str, Any], n: int) -> MetricValue:
    ends = {**{"ci_low": raw.get("low"), "ci_high": raw.get("high")}, **raw}  # schema 1 has low and high
    value, low, high = (
        float("nan") if ends.get(key) is None else float(ends[key]) for key in ("value", "ci_low", "ci_high")
    )
    return MetricValue(value, low, high, int(raw.get("n") or n))


def _columns(name: str, value: MetricValue) -> dict[str, float]:
    return {name: value.value, f"{name}_ci_low": value.ci_low, f"{name}_ci_high": value.ci_high}
