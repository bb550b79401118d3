"""Figures of evaluations and comparisons: age gates, uncertainty, differences and ranks."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from agebench.metrics.schema import (
    ComparisonFile,
    ComparisonResult,
    GateResult,
    MetricsFile,
    MetricValue,
    RankComparison,
    UncertaintyResult,
)
from agebench.reports.plots.run import figures_of_tests, label
from agebench.reports.plots.style import COLORS, FIGURE_WIDTH, GRAY, styled

BLUE, VERMILLION = COLORS[:2]
_MAX_PAIRS = 40

CAPTIONS = {
    "gates": "Age gates: errors by the estimate from which a person passes; shaded: 95 % intervals.",
    "det": "DET curves: minors that pass against people of age that are refused; points: T; shaded: 95 % intervals of FPR.",
    "uncertainty": "Left: observed against nominal coverage. Right: MAE when the most uncertain images are rejected.",
    "differences": "Difference in MAE with 95 % intervals; blue: shown after Holm's correction.",
    "critical": "Mean ranks over test sets; systems under one bar are not distinguishable (Nemenyi).",
}


def score_figures(metrics: MetricsFile, predictions: Mapping[str, pd.DataFrame]) -> dict[str, Figure | None]:
    """All figures of scored test sets; `gates-0` is of the first.

    Args:
        metrics: the content of metrics.json.
        predictions: test set -> age and age_pred, in years.
    """
    made = figures_of_tests(metrics, predictions)
    for place, entry in enumerate(metrics.tests.values()):
        made |= gate_figures(entry.age_gates, place)
        made[f"uncertainty-{place}"] = doubt(entry.uncertainty) if entry.uncertainty else None
    return made


def gate_figures(age_gates: Mapping[str, GateResult], place: int) -> dict[str, Figure | None]:
    """Draw the age gates of one test set: error rates over challenge ages, and DET curves.

    Args:
        age_gates: legal age -> its rates; none: no figures.
        place: number of the test set, for the figures' names.
    """
    if not age_gates:
        return {}
    return {f"gates-{place}": gates(age_gates), f"det-{place}": _det_curves(age_gates)}


def comparison_figures(result: ComparisonFile) -> dict[str, Figure | None]:
    """The figures of a comparison: every test set's differences, and the ranks over test sets."""
    made: dict[str, Figure | None] = {
        f"differences-{place}": differences(name, found) for place, (name, found) in enumerate(result.tests.items())
    }
    made["critical-difference"] = critical_difference(result.across) if result.across else None
    return made


@styled
def gates(found: Mapping[str, GateResult]) -> Figure:
    """False positive and false negative rate of every legal age over challenge ages, one panel each."""
    count = len(found)
    figure, axes = _figure(0.4 + 2.5 * ((count + 1) // 2), columns=min(count, 2), rows=(count + 1) // 2)
    panels = np.atleast_1d(axes).ravel()
    for axis, (legal, gate) in zip(panels, found.items(), strict=False):
        det = gate.det
        if det is not None:
            for low, high, color in ((det.fpr_low, det.fpr_high, VERMILLION), (det.fnr_low, det.fnr_high, BLUE)):
                if low:
                    axis.fill_between(
                        det.challenge,
                        100 * np.asarray(low),
                        100 * np.asarray(high),
                        color=color,
                        alpha=0.15,
                        linewidth=0,
                    )
            axis.plot(det.challenge, 100 * np.asarray(det.fpr), color=VERMILLION, label="under-age passed (FPR)")
            axis.plot(
                det.challenge, 100 * np.asarray(det.fnr), color=BLUE, linestyle="--", label="of age refused (FNR)"
            )
        for challenge, rates in gate.challenge.items():
            for rate, color in ((rates.fpr, VERMILLION), (rates.fnr, BLUE)):
                value, spread = _errorbars([rate])
                axis.errorbar(
                    [float(challenge)], 100 * value, yerr=100 * spread, fmt="o", color=color, markersize=4, capsize=2
                )
        axis.axvline(float(legal), color=GRAY, linewidth=0.9, linestyle=":")
        axis.set_title(f"legal age {legal}: {gate.n_under:,} under, {gate.n_over:,} over", fontsize=9)
        axis.set(xlabel="passes from this estimate on (years)", ylabel="% of images", ylim=(-2, 102))
    for axis in panels[count:]:
        axis.set_visible(False)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return figure


@styled
def _det_curves(age_gates: Mapping[str, GateResult]) -> Figure:
    """Draw the detection error trade-off of every legal age on logarithmic axes; points are labeled with T.

    Args:
        age_gates: legal age -> its rates.
    """
    figure, axes = _figure(4.2)
    floor = 1e-3
    for color, (legal, gate) in zip(COLORS, age_gates.items(), strict=False):
        det = gate.det
        if det is None:
            continue
        fpr, fnr = np.asarray(det.fpr), np.asarray(det.fnr)
        shown = (fpr > floor) & (fnr > floor)
        axes.plot(100 * fpr[shown], 100 * fnr[shown], color=color, label=legal)
        if det.fpr_low:
            axes.fill_betweenx(
                100 * fnr[shown],
                100 * np.maximum(det.fpr_low, floor)[shown],
                100 * np.asarray(det.fpr_high)[shown],
                color=color,
                alpha=0.12,
                linewidth=0,
            )
        for margin in (0, 3, 7, 12):
            place = int(np.searchsorted(det.challenge, float(legal) + margin))
            if not shown[place]:
                continue
            point = (100 * fpr[place], 100 * fnr[place])
            axes.plot(*point, "o", color=color, markersize=3)
            axes.annotate(f"{det.challenge[place]:g}", point, xytext=(3, 3), textcoords="offset points", fontsize=7)
    axes.set(xscale="log", yscale="log", xlim=(100 * floor, 110), ylim=(100 * floor, 110))
    ticks = [0.1, 0.3, 1, 3, 10, 30, 100]
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_ticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set(xlabel="minors that pass (FPR, %)", ylabel="of age refused (FNR, %)")
    axes.legend(title="legal age", loc="lower left")
    return figure


@styled
def doubt(found: UncertaintyResult) -> Figure:
    """Reliability diagram (left), error against rejection (right)."""
    figure, (left, right) = _figure(3.0, columns=2)
    left.plot([0, 100], [0, 100], color="black", linewidth=0.8)
    reliability = found.reliability
    left.plot(
        100 * np.asarray(reliability.nominal),
        100 * np.asarray(reliability.observed),
        "o-",
        color=BLUE,
        markersize=3,
    )
    left.set(
        xlabel="nominal coverage (%)", ylabel="measured coverage (%)", xlim=(0, 100), ylim=(0, 100), aspect="equal"
    )
    rejection = found.rejection
    right.plot(100 * np.asarray(rejection.kept), rejection.mae, color=BLUE)
    right.axhline(rejection.area_random, color=GRAY, linewidth=0.9, linestyle="--", label="rejecting at random")
    right.set(xlabel="images kept (%), least doubtful first", ylabel="MAE (years)", ylim=(0, None))
    right.legend()
    return figure


@styled
def differences(name: str, found: ComparisonResult) -> Figure:
    """A forest plot: MAE of a minus MAE of b, with its interval."""
    pairs = found.pairs[:_MAX_PAIRS]
    figure, axes = _figure(0.9 + 0.32 * len(pairs))
    for place, row in enumerate(pairs):
        value, spread = _errorbars([row.difference])
        axes.errorbar(value, [place], xerr=spread, fmt="o", color=BLUE if row.shown else GRAY, capsize=3)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(range(len(pairs)), [f"{label(row.a)} − {label(row.b)}" for row in pairs])
    axes.set(xlabel="difference in MAE (years); left of 0 the first is better", ylim=(len(pairs) - 0.5, -0.5))
    axes.set_title(label(name), fontsize=11)
    axes.grid(axis="y", visible=False)
    return figure


@styled
def critical_difference(across: RankComparison) -> Figure:
    """Demšar's diagram: systems on an axis of mean ranks, bars over those within the critical difference."""
    names, ranks = across.systems, across.ranks
    half = (len(names) + 1) // 2
    figure, axes = _figure(1.3 + 0.24 * half + 0.12 * len(across.groups))
    low, high = 1, len(names)
    axes.set(xlim=(low - 0.8, high + 0.8), ylim=(-(half + 1) - 0.45 * len(across.groups), 2.2))
    axes.axis("off")
    axes.plot([low, high], [0, 0], color="black", linewidth=1)
    for rank in range(low, high + 1):
        axes.plot([rank, rank], [0, 0.25], color="black", linewidth=1)
        axes.text(rank, 0.4, str(rank), ha="center", va="bottom")
    width = across.critical_difference
    axes.plot([low, low + width], [1.7, 1.7], color=VERMILLION, linewidth=2, solid_capstyle="butt")
    axes.text(low + width, 1.7, f"  critical difference {width:.2f}", va="center")
    depth = 0.45 * len(across.groups)
    for place, name in enumerate(names):
        left = place < half
        level = -depth - 0.8 - (place if left else len(names) - 1 - place)
        edge = low - 0.1 if left else high + 0.1
        axes.plot([ranks[name], ranks[name], edge], [0, level, level], color=GRAY, linewidth=0.9)
        text = f"{label(name)} ({ranks[name]:.2f})"
        axes.text(edge, level, f"{text} " if left else f" {text}", ha="right" if left else "left", va="center")
    for place, group in enumerate(across.groups):
        ends = [ranks[name] for name in group]
        level = -0.4 - 0.45 * place
        axes.plot([min(ends) - 0.04, max(ends) + 0.04], [level, level], color=BLUE, linewidth=4, solid_capstyle="round")
    axes.set_xlim(low - 1.6 - 0.3 * high / 2, high + 1.6 + 0.3 * high / 2)
    return figure


def _errorbars(metrics: Sequence[MetricValue]) -> tuple[np.ndarray, np.ndarray]:
    """Values (k,) and distances to the interval's ends (2, k); 0 where there is none."""
    value = np.array([metric.value for metric in metrics], float)
    low = np.array([metric.value if metric.ci_low is None else metric.ci_low for metric in metrics], float)
    high = np.array([metric.value if metric.ci_high is None else metric.ci_high for metric in metrics], float)
    return value, np.maximum(np.stack([value - low, high - value]), 0)


def _figure(height: float, *, columns: int = 1, rows: int = 1) -> tuple[Figure, Any]:
    figure = Figure(figsize=(FIGURE_WIDTH, max(height, 1.4)), layout="constrained")
    axes = figure.subplots(rows, columns)
    for axis in np.atleast_1d(axes).ravel():
        _style(axis)
    return figure, axes


def _style(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#DDDDDD", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8)
