"""A run's pictures: no display needed, colours that colour-blind readers tell apart, the same colour for a test set everywhere."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from agebench.files import atomic

# Okabe & Ito (2008): eight colours that stay apart under the common kinds of colour blindness.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
WIDTH = 9.0  # inches: a page's width


def save(figure: Figure, path: Path) -> None:
    """Write a PNG."""
    FigureCanvasAgg(figure)
    with atomic(path) as temporary:
        figure.savefig(temporary, dpi=130, format="png")


def scatter(predictions: dict[str, pd.DataFrame], metrics: dict[str, Any]) -> Figure:
    """Predicted against true age, one panel a test set; darker where more images lie."""
    names = list(predictions)
    columns = min(3, len(names))
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(max(4.6, WIDTH / 3 * columns + 0.6), 3.6 * rows), layout="constrained")
    top = 10 * np.ceil(max(table[["age", "age_pred"]].to_numpy().max() for table in predictions.values()) / 10)
    for name, axes in zip(names, np.atleast_1d(figure.subplots(rows, columns, squeeze=False)).flat, strict=False):
        table, mae = predictions[name], metrics[name]["overall"]["mae"]["value"]
        if len(table) < 300:
            axes.plot(table["age"], table["age_pred"], "o", ms=3.5, alpha=0.5, mec="none", color=COLOURS[0])
        else:
            shades = axes.hexbin(
                table["age"],
                table["age_pred"],
                gridsize=45,
                extent=(0, top, 0, top),
                mincnt=1,
                bins="log",
                cmap="viridis_r",
            )
            figure.colorbar(shades, ax=axes, label="images", fraction=0.045, pad=0.02)
        axes.plot([0, top], [0, top], color="black", lw=1, ls="--")
        axes.set(
            title=f"{name}\nn = {len(table):,}, MAE {mae:.2f}",
            xlabel="true age (years)",
            ylabel="predicted age (years)",
        )
        axes.set(xlim=(0, top), ylim=(0, top), aspect="equal")
    for axes in figure.axes[len(names) :]:
        if not axes.has_data():
            axes.set_visible(False)
    return figure


def error_by_age(tests: dict[str, Any]) -> Figure:
    """MAE and bias by age band, with 95 % intervals."""
    figure = Figure(figsize=(WIDTH, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    bands = list(dict.fromkeys(band for test in tests.values() for band in test["groups"].get("age_band", {})))
    bands.sort(key=lambda band: float(band.rstrip("+").split("-")[0]))
    for axes, figure_name, title in ((left, "mae", "Mean absolute error"), (right, "bias", "Bias (predicted − true)")):
        for number, (name, test) in enumerate(tests.items()):
            groups = test["groups"].get("age_band", {})
            places = [place for place, band in enumerate(bands) if band in groups]
            found = [groups[bands[place]][figure_name] for place in places]
            nudge = (number - (len(tests) - 1) / 2) * 0.14
            _points(axes, np.array(places) + nudge, found, COLOURS[number % len(COLOURS)], name)
        axes.set(title=title, xlabel="true age (years)", ylabel="years")
        axes.set_xticks(range(len(bands)), bands, rotation=35, ha="right")
        axes.grid(axis="y", alpha=0.3)
    right.axhline(0, color="black", lw=1)
    left.set_ylim(bottom=0)
    left.legend(frameon=False)
    return figure


def cumulative_scores(tests: dict[str, Any]) -> Figure:
    """CS@k: the share of images with an error of at most k years."""
    figure = Figure(figsize=(WIDTH * 0.6, 3.6), layout="constrained")
    axes = figure.subplots()
    for number, (name, test) in enumerate(tests.items()):
        curve = np.array(test["cs"], dtype=float) * 100
        colour = COLOURS[number % len(COLOURS)]
        axes.plot(range(len(curve)), curve, "o-", ms=4, color=colour, label=f"{name} (n = {test['n']:,})")
    axes.set(title="Cumulative score", xlabel="error at most k (years)", ylabel="share of images (%)", ylim=(0, 100))
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, loc="upper left")
    return figure


def groups(name: str, test: dict[str, Any]) -> Figure | None:
    """MAE of every group with its 95 % interval; small groups are hollow. None where there are no groups."""
    listed = [
        (grouping, group, entry)
        for grouping, found in test["groups"].items()
        if grouping != "age_band"
        for group, entry in found.items()
    ]
    if not listed:
        return None
    figure = Figure(figsize=(WIDTH * 0.8, 1.1 + 0.27 * len(listed)), layout="constrained")
    axes = figure.subplots()
    order = list(dict.fromkeys(grouping for grouping, _, _ in listed))
    for place, (grouping, _, entry) in enumerate(listed):
        colour = COLOURS[order.index(grouping) % len(COLOURS)]
        mae = entry["mae"]
        if mae["low"] is not None:
            axes.plot([mae["low"], mae["high"]], [place, place], color=colour, lw=2)
        axes.plot(mae["value"], place, "o", color=colour, mfc=colour if entry.get("ranked", True) else "white")
    overall = test["overall"]["mae"]["value"]
    axes.axvline(overall, color="black", lw=1, ls="--")
    axes.set_yticks(range(len(listed)), [f"{group} (n = {entry['n']:,})" for _, group, entry in listed])
    axes.invert_yaxis()
    axes.set(
        title=f"{name}: for whom it is worse (dashed: all images, {overall:.2f})",
        xlabel="mean absolute error (years), 95 % interval",
    )
    axes.grid(axis="x", alpha=0.3)
    return figure


def learning_curves(history: Sequence[dict[str, float]]) -> Figure:
    """Training loss and validation MAE by epoch."""
    figure = Figure(figsize=(WIDTH, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    epochs = [entry["epoch"] for entry in history]
    left.plot(epochs, [entry["loss"] for entry in history], "o-", color=COLOURS[0])
    left.set(title="Training loss", xlabel="epoch", ylabel="loss")
    errors = [entry["val_mae"] for entry in history]
    right.plot(epochs, errors, "o-", color=COLOURS[1])
    best = int(np.argmin(errors))
    right.plot(epochs[best], errors[best], "o", ms=12, mfc="none", mec="black")
    right.set(
        title=f"Validation MAE (best: epoch {epochs[best]:.0f}, {errors[best]:.2f})", xlabel="epoch", ylabel="years"
    )
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def _points(axes: Axes, places: np.ndarray, found: Sequence[dict[str, Any]], colour: str, label: str) -> None:
    values = np.array([entry["value"] for entry in found], dtype=float)
    low, high = (np.array([entry[end] for entry in found], dtype=float) for end in ("low", "high"))
    spread = np.abs(np.nan_to_num(np.stack([values - low, high - values])))
    axes.errorbar(places, values, yerr=spread, fmt="o-", ms=4, lw=1.2, capsize=2, color=colour, label=label)
