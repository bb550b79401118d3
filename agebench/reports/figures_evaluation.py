"""Figures of `agebench score` and `agebench compare`: matplotlib without a screen, colours of Okabe and Ito (2008)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from agebench.files import atomic

BLUE, ORANGE, GREEN, VERMILLION, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#666666"
_WIDTH = 7.0  # inches: a page's text, at which 9 point letters are read without a glass.
_DPI = 150
_MOST_ROWS = 40

Drawn = list[tuple[Path, str]]


def score_figures(table: pd.DataFrame, entry: Mapping[str, Any], folder: Path, *, prefix: str = "") -> Drawn:
    """All figures of one test set.

    Args:
        table: its predictions.
        entry: its entry of metrics.json.
        folder: where the PNG files go.
        prefix: begins every file name.

    Returns:
        (file, caption) of each.
    """
    age, predicted = table["age"].to_numpy(float), table["age_pred"].to_numpy(float)
    drawn = [
        _save(
            scatter(age, predicted), folder / f"{prefix}scatter.png", "Estimates against labels; darker: more images."
        ),
        _save(
            error_by_age(age, predicted, entry["groups"]["age_band"]),
            folder / f"{prefix}error-by-age.png",
            "MAE by age band with 95 % intervals, and the mean signed error at each age.",
        ),
        _save(cumulative(entry), folder / f"{prefix}cumulative-score.png", "CS@k: the share of images within k years."),
    ]
    groups = {name: rows for name, rows in entry["groups"].items() if name != "age_band"}
    if groups:
        caption = "MAE by group with 95 % intervals, as it is and at equal ages. The line is the MAE of all images."
        drawn.append(_save(by_group(groups, entry["overall"]["mae"]["value"]), folder / f"{prefix}groups.png", caption))
    if entry.get("age_gates"):
        caption = "Age gates: errors by the estimate from which a person passes."
        drawn.append(_save(gates(entry["age_gates"]), folder / f"{prefix}age-gates.png", caption))
    if entry.get("uncertainty"):
        caption = "Left: what intervals cover against what they promise. Right: MAE when doubtful images are put aside."
        drawn.append(_save(doubt(entry["uncertainty"]), folder / f"{prefix}uncertainty.png", caption))
    return drawn


def comparison_figures(result: Mapping[str, Any], folder: Path) -> Drawn:
    """The figures of a comparison: every test set's differences, and the ranks over test sets."""
    drawn = []
    for place, (name, found) in enumerate(result["tests"].items()):
        caption = f"{literal(name)}: difference in MAE with 95 % intervals; blue: shown after Holm's correction."
        drawn.append(_save(differences(found), folder / f"{place}-differences.png", caption.replace("\\$", "$")))
    if result.get("across"):
        caption = "Mean ranks over test sets; systems under one bar cannot be told apart (Nemenyi)."
        drawn.append(_save(critical_difference(result["across"]), folder / "critical-difference.png", caption))
    return drawn


def literal(name: object) -> str:
    """Somebody's name for a thing, as plain letters: no mathematics, no control characters, not endless."""
    text = "".join(letter if letter.isprintable() else "?" for letter in str(name)).replace("*", " × ")
    text = text if len(text) <= 32 else text[:31] + "…"
    return text.replace("\\", "/").replace("$", r"\$")


def scatter(age: np.ndarray, predicted: np.ndarray) -> Figure:
    """Estimates against labels: points, or a density where there are many."""
    figure, axes = _figure(4.6, square=True)
    low, high = min(age.min(), predicted.min(), 0), max(age.max(), predicted.max())
    if len(age) > 2000:
        # A bin a year: whole-year labels and estimates leave no empty stripes.
        edges = np.arange(np.floor(low) - 0.5, np.ceil(high) + 1)
        counts = np.histogram2d(age, predicted, bins=(edges, edges))[0].T
        shades = LogNorm(vmin=0.3, vmax=max(counts.max(), 1))
        drawn = axes.pcolormesh(edges, edges, np.ma.masked_equal(counts, 0), cmap="Blues", norm=shades)
        figure.colorbar(drawn, ax=axes, label="images", shrink=0.8)
    else:
        axes.scatter(age, predicted, s=9, color=BLUE, alpha=0.4, linewidths=0)
    axes.plot([low, high], [low, high], color="black", linewidth=0.8, label="estimate = label")
    middle, mean = _mean_by_age(age, predicted)
    axes.plot(middle, mean, color=VERMILLION, linewidth=1.6, label="mean estimate")
    axes.set(
        xlabel="label (years)",
        ylabel="estimate (years)",
        xlim=(low - 1, high + 1),
        ylim=(low - 1, high + 1),
        aspect="equal",
    )
    axes.legend(loc="upper left")
    return figure


def error_by_age(age: np.ndarray, predicted: np.ndarray, bands: Mapping[str, Any]) -> Figure:
    """MAE by band with intervals (left), mean signed error by age (right)."""
    figure, (left, right) = _figure(2.9, columns=2)
    places = np.arange(len(bands))
    left.errorbar(places, *_errorbars([row["mae"] for row in bands.values()]), fmt="o", color=BLUE, capsize=3)
    left.set_xticks(places, [f"{name}\n({row['n']:,})" for name, row in bands.items()], fontsize=7)
    left.set(xlabel="age band (images)", ylabel="MAE (years)", ylim=(0, None))
    middle, mean = _mean_by_age(age, predicted - age)
    right.axhline(0, color="black", linewidth=0.8)
    right.plot(middle, mean, color=VERMILLION, linewidth=1.6)
    right.set(xlabel="label (years)", ylabel="bias (years)")
    return figure


def cumulative(entry: Mapping[str, Any]) -> Figure:
    """CS@0 … CS@10 with intervals."""
    figure, axes = _figure(2.9)
    levels = np.arange(len(entry["cs"]))
    found = [entry["overall"][f"cs{level}"] for level in levels]
    value, spread = _errorbars(found)
    axes.fill_between(levels, 100 * (value - spread[0]), 100 * (value + spread[1]), color=BLUE, alpha=0.2, linewidth=0)
    axes.plot(levels, 100 * value, color=BLUE, marker="o", markersize=4)
    axes.set(xlabel="k (years)", ylabel="CS@k (% of images)", ylim=(0, 101), xticks=levels)
    return figure


def by_group(groups: Mapping[str, Any], overall: float) -> Figure:
    """A row a group, raw and age-standardised MAE; the groupings one under another."""
    rows = [(grouping, name, row) for grouping, names in groups.items() for name, row in names.items()][:_MOST_ROWS]
    figure, axes = _figure(0.9 + 0.25 * (len(rows) + len(groups)))
    place, ticks, labels, before = 0.0, [], [], None
    for grouping, name, row in rows:
        if grouping != before:
            place += 0.6 if before else 0
            before = grouping
        raw, raw_spread = _errorbars([row["mae"]])
        faded = 1.0 if row["ranked"] else 0.35
        axes.errorbar(raw, [place - 0.12], xerr=raw_spread, fmt="o", color=BLUE, markersize=4.5, capsize=2, alpha=faded)
        if "mae_standardised" in row:
            even, even_spread = _errorbars([row["mae_standardised"]])
            axes.errorbar(even, [place + 0.14], xerr=even_spread, fmt="D", color=ORANGE, markersize=4, capsize=2)
        ticks.append(place)
        labels.append(f"{literal(name)} ({row['n']:,})")
        place += 1
    axes.axvline(overall, color=GREY, linewidth=0.9, linestyle="--")
    axes.plot([], [], "o", color=BLUE, label="as it is")
    axes.plot([], [], "D", color=ORANGE, label="at equal ages")
    # The intervals of tiny groups would squeeze all others together.
    ends = [row["mae"]["high"] or row["mae"]["value"] for _, _, row in rows if row["ranked"]]
    axes.set(xlabel="MAE (years)", xlim=(0, 1.1 * max([*ends, overall])), ylim=(place - 0.4, -0.8))
    axes.set_yticks(ticks, labels)
    axes.grid(axis="y", visible=False)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper right", ncols=2)
    return figure


def gates(found: Mapping[str, Any]) -> Figure:
    """False positive and false negative rate of every legal age over challenge ages, one panel each."""
    count = len(found)
    figure, axes = _figure(0.4 + 2.5 * ((count + 1) // 2), columns=min(count, 2), rows=(count + 1) // 2)
    panels = np.atleast_1d(axes).ravel()
    for axis, (legal, gate) in zip(panels, found.items(), strict=False):
        det = gate["det"]
        axis.plot(det["challenge"], 100 * np.asarray(det["fpr"]), color=VERMILLION, label="under-age passed (FPR)")
        axis.plot(
            det["challenge"], 100 * np.asarray(det["fnr"]), color=BLUE, linestyle="--", label="of age refused (FNR)"
        )
        for challenge, rates in gate["challenge"].items():
            for name, colour in (("fpr", VERMILLION), ("fnr", BLUE)):
                value, spread = _errorbars([rates[name]])
                axis.errorbar(
                    [float(challenge)], 100 * value, yerr=100 * spread, fmt="o", color=colour, markersize=4, capsize=2
                )
        axis.axvline(float(legal), color=GREY, linewidth=0.9, linestyle=":")
        axis.set_title(f"legal age {legal}: {gate['n_under']:,} under, {gate['n_over']:,} over", fontsize=9)
        axis.set(xlabel="passes from this estimate on (years)", ylabel="% of images", ylim=(-2, 102))
    for axis in panels[count:]:
        axis.set_visible(False)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return figure


def doubt(found: Mapping[str, Any]) -> Figure:
    """Reliability diagram (left), error against rejection (right)."""
    figure, (left, right) = _figure(3.0, columns=2)
    left.plot([0, 100], [0, 100], color="black", linewidth=0.8)
    reliability = found["reliability"]
    left.plot(
        100 * np.asarray(reliability["nominal"]),
        100 * np.asarray(reliability["observed"]),
        "o-",
        color=BLUE,
        markersize=3,
    )
    left.set(xlabel="interval promises (%)", ylabel="covers (%)", xlim=(0, 100), ylim=(0, 100), aspect="equal")
    rejection = found["rejection"]
    right.plot(100 * np.asarray(rejection["kept"]), rejection["mae"], color=BLUE)
    right.axhline(rejection["area_random"], color=GREY, linewidth=0.9, linestyle="--", label="rejecting at random")
    right.set(xlabel="images kept (%), least doubtful first", ylabel="MAE (years)", ylim=(0, None))
    right.legend()
    return figure


def differences(found: Mapping[str, Any]) -> Figure:
    """A forest plot: MAE of a minus MAE of b, with its interval."""
    pairs = found["pairs"][:_MOST_ROWS]
    figure, axes = _figure(0.9 + 0.32 * len(pairs))
    for place, row in enumerate(pairs):
        value, spread = _errorbars([row["difference"]])
        axes.errorbar(value, [place], xerr=spread, fmt="o", color=BLUE if row["shown"] else GREY, capsize=3)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(range(len(pairs)), [f"{literal(row['a'])} − {literal(row['b'])}" for row in pairs])
    axes.set(xlabel="difference in MAE (years); left of 0 the first is better", ylim=(len(pairs) - 0.5, -0.5))
    axes.grid(axis="y", visible=False)
    return figure


def critical_difference(across: Mapping[str, Any]) -> Figure:
    """Demšar's diagram: systems on an axis of mean ranks, bars over those within the critical difference."""
    names, ranks = across["systems"], across["ranks"]
    half = (len(names) + 1) // 2
    figure, axes = _figure(1.3 + 0.24 * half + 0.12 * len(across["groups"]))
    low, high = 1, len(names)
    axes.set(xlim=(low - 0.8, high + 0.8), ylim=(-(half + 1) - 0.45 * len(across["groups"]), 2.2))
    axes.axis("off")
    axes.plot([low, high], [0, 0], color="black", linewidth=1)
    for rank in range(low, high + 1):
        axes.plot([rank, rank], [0, 0.25], color="black", linewidth=1)
        axes.text(rank, 0.4, str(rank), ha="center", va="bottom")
    width = across["critical_difference"]
    axes.plot([low, low + width], [1.7, 1.7], color=VERMILLION, linewidth=2, solid_capstyle="butt")
    axes.text(low + width, 1.7, f"  critical difference {width:.2f}", va="center")
    depth = 0.45 * len(across["groups"])
    for place, name in enumerate(names):
        left = place < half
        level = -depth - 0.8 - (place if left else len(names) - 1 - place)
        edge = low - 0.1 if left else high + 0.1
        axes.plot([ranks[name], ranks[name], edge], [0, level, level], color=GREY, linewidth=0.9)
        label = f"{literal(name)} ({ranks[name]:.2f})"
        axes.text(edge, level, f"{label} " if left else f" {label}", ha="right" if left else "left", va="center")
    for place, group in enumerate(across["groups"]):
        ends = [ranks[name] for name in group]
        level = -0.4 - 0.45 * place
        axes.plot([min(ends) - 0.04, max(ends) + 0.04], [level, level], color=BLUE, linewidth=4, solid_capstyle="round")
    axes.set_xlim(low - 1.6 - 0.3 * high / 2, high + 1.6 + 0.3 * high / 2)
    return figure


def _mean_by_age(age: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean of `values` in windows of two to ten years that hold 20 rows, at the windows' mean ages."""
    order = np.argsort(age, kind="stable")
    wide = max(1, min(40, len(age) // 20))
    parts = np.array_split(order, wide)
    return np.array([age[part].mean() for part in parts]), np.array([values[part].mean() for part in parts])


def _errorbars(found: Sequence[Mapping[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
    """Values (k,) and distances to the interval's ends (2, k); 0 where there is none."""
    value = np.array([np.nan if of["value"] is None else of["value"] for of in found], float)
    low = np.array([of["value"] if of["low"] is None else of["low"] for of in found], float)
    high = np.array([of["value"] if of["high"] is None else of["high"] for of in found], float)
    return value, np.maximum(np.stack([value - low, high - value]), 0)


def _figure(height: float, *, columns: int = 1, rows: int = 1, square: bool = False) -> tuple[Figure, Any]:
    figure = Figure(figsize=(5.4 if square else _WIDTH, max(height, 1.4)), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns)
    for axis in np.atleast_1d(axes).ravel():
        _style(axis)
    return figure, axes


def _style(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#DDDDDD", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8)


def _save(figure: Figure, path: Path, caption: str) -> tuple[Path, str]:
    with atomic(path) as temporary:
        figure.savefig(temporary, dpi=_DPI)
    return path, caption
