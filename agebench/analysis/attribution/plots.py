"""Figures of an attribution analysis: single faces, mean maps by group, and sanity checks."""

from collections.abc import Mapping

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from agebench.analysis.attribution.run import AttributionResult, normalize_maps
from agebench.analysis.attribution.schema import CoveringCheck, MethodAttribution
from agebench.analysis.robustness import operators
from agebench.metrics.groups import Grouping
from agebench.metrics.schema import AnalysisMetricValue
from agebench.reports.formatting import format_number, group_name
from agebench.reports.plots.run import label
from agebench.reports.plots.style import COLORS, GRAY, styled

BLUE, VERMILLION = COLORS[:2]
DIVERGING_CMAP = LinearSegmentedColormap.from_list("signed", [BLUE, "#FFFFFF", VERMILLION])
_SHARE = LinearSegmentedColormap.from_list("share", ["#FFFFFF", "#F3C8A0", VERMILLION, "#5A2400"])
_TILE_INCHES = 1.55
_DISPLAY_SIGMA = 0.02  # of the side; gradients of single pixels are noisy

CAPTIONS = {
    "faces": "Single faces. Orange pixels increase the predicted age, blue pixels decrease it. Each map has its own scale.",
    "mean": "Mean maps on the aligned face: attribution relative to a uniform map.",
    "sanity": "Sanity checks. Left: a map, and the map of a network with random weights. Right: change of the prediction when "
    "cells are covered (deletion) or uncovered (insertion) in the order of the map, and in random order.",
}


@styled
def plot_examples(result: AttributionResult, title: str) -> Figure:
    """Plot single faces, one per row, with the signed map of each method.

    Args:
        result: the attribution maps.
        title: the title of the figure.

    Returns:
        The figure.
    """
    methods = result.summary.methods
    figure, grid = _grid(len(result.singles), 1 + len(methods), title)
    for row, (index, single) in enumerate(zip(result.singles, result.summary.singles, strict=True)):
        face = result.faces[index]
        grid[row][0].imshow(face)
        grid[row][0].set_ylabel(
            f"{label(single.sample_id, 16)}\ntrue {single.age:g}, predicted {single.age_pred:.0f}", fontsize=8
        )
        for axes, method in zip(grid[row][1:], methods, strict=True):
            smoothed = blur_for_display(result.maps[method][index])
            reach = float(np.abs(smoothed).max()) or 1.0
            axes.imshow(_to_gray(face), cmap="gray", vmin=0, vmax=255)
            axes.imshow(smoothed, cmap=DIVERGING_CMAP, vmin=-reach, vmax=reach, alpha=0.65)
    _headings(grid[0], methods)
    return figure


@styled
def plot_mean_maps(result: AttributionResult, grouping: Grouping, title: str) -> Figure | None:
    """Plot the mean face and the mean maps of each group, one group per row, on one scale.

    Args:
        result: the attribution maps.
        grouping: the grouping; the first row is the mean of all faces.
        title: the title of the figure.

    Returns:
        The figure, or None if no group has enough faces; the figure by age band always exists.
    """
    methods = result.summary.methods
    first = result.summary.groups[grouping.name]
    groups = [(code, name) for code, name in enumerate(grouping.names) if first[name].shown]
    if not groups and grouping.name != "age_band":
        return None
    figure, grid = _grid(len(groups) + 1, 1 + len(methods), title)
    rows = [("all", np.ones(len(result.faces), dtype=bool))]
    rows += [(group_name(grouping.name, name), grouping.codes == code) for code, name in groups]
    means = {
        method: [normalize_maps(result.maps[method][inside]).mean(axis=0) for _, inside in rows] for method in methods
    }
    reach = max(2.0, float(np.percentile(np.concatenate([np.ravel(maps) for maps in means.values()]), 99.5)))
    for row, (name, inside) in enumerate(rows):
        face = result.faces[inside].mean(axis=0).round().astype(np.uint8)
        grid[row][0].imshow(face)
        grid[row][0].set_ylabel(f"{label(name, 18)}\nn = {int(inside.sum()):,}", fontsize=8)
        for axes, method in zip(grid[row][1:], methods, strict=True):
            axes.imshow(_to_gray(face), cmap="gray", vmin=0, vmax=255)
            image = axes.imshow(means[method][row], cmap=_SHARE, vmin=0, vmax=reach, alpha=0.7)
    _headings(grid[0], methods)
    bar = figure.colorbar(
        image, ax=[axes for line in grid for axes in line], location="bottom", shrink=0.6, aspect=40, pad=0.01
    )
    bar.set_label("attribution relative to a uniform map", fontsize=8)
    bar.ax.tick_params(labelsize=8)
    return figure


@styled
def plot_sanity(result: AttributionResult, title: str) -> Figure:
    """Plot the sanity checks, one method per row: face, map, map with random weights, deletion and insertion.

    Args:
        result: the attribution maps and the results of the checks.
        title: the title of the figure.

    Returns:
        The figure.
    """
    methods = result.summary.methods
    figure = Figure(figsize=(10.4, 0.7 + 2.15 * len(methods)), layout="constrained")
    figure.suptitle(title)
    grid = figure.subplots(len(methods), 5, squeeze=False, width_ratios=[1, 1, 1, 1.5, 1.5])
    example = len(result.checked) // 2
    face = result.faces[result.checked[example]]
    for line, (method, entry) in zip(grid, methods.items(), strict=True):
        line[0].imshow(face)
        line[0].set_ylabel(f"{entry.title}\n{entry.sanity.verdict()}", fontsize=8)
        both_maps = [result.maps[method][result.checked[example]]]
        both_maps += [result.random[method][example]] if method in result.random else []
        for axes, smoothed in zip(line[1:3], map(blur_for_display, both_maps), strict=False):
            reach = float(np.abs(smoothed).max()) or 1.0
            axes.imshow(smoothed, cmap=DIVERGING_CMAP, vmin=-reach, vmax=reach)
        for axes in line[:3]:
            axes.set(xticks=[], yticks=[])
        line[1].set_title("trained weights", fontsize=8)
        if entry.sanity.randomised is not None:
            rho = entry.sanity.randomised.rank_correlation
            line[2].set_title(f"random weights\nrank corr. {_interval(rho)}", fontsize=8)
        else:
            line[2].set_title("random weights:\nnot possible", fontsize=8)
        _curve(line[3], "deletion", entry.sanity.deletion)
        _curve(line[4], "insertion", entry.sanity.insertion)
    grid[0][3].legend(fontsize=7)
    return figure


def blur_for_display(attribution: np.ndarray) -> np.ndarray:
    """Smooth a map (S, S) slightly, because the attributions of single pixels are noisy."""
    size = attribution.shape[-1]
    blurred: np.ndarray = operators.apply_separable(
        torch.from_numpy(np.asarray(attribution, np.float32)), operators.gaussian_matrix(size, _DISPLAY_SIGMA * size)
    ).numpy()
    return blurred


def _curve(axes: Axes, check: str, entry: CoveringCheck) -> None:
    share = 100 * np.array(entry.share)
    axes.plot(share, entry.curve, "-", color=BLUE, lw=1.6, label="order of the map")
    axes.plot(share, entry.random, "--", color=GRAY, lw=1.3, label="random order")
    axes.set_title(f"{check}: {_interval(entry.difference, sign=True)} years", fontsize=8)
    axes.set_xlabel(f"cells {'covered' if check == 'deletion' else 'uncovered'} (%)", fontsize=8)
    axes.set_ylabel("change of prediction (years)", fontsize=8)
    axes.set_ylim(bottom=0)
    axes.tick_params(labelsize=7)
    axes.grid(True)


def _grid(rows: int, columns: int, title: str) -> tuple[Figure, list[list[Axes]]]:
    figure = Figure(figsize=(_TILE_INCHES * columns + 1.0, _TILE_INCHES * rows + 1.0), layout="constrained")
    figure.suptitle(title)
    grid = [list(line) for line in figure.subplots(rows, columns, squeeze=False)]
    for line in grid:
        for axes in line:
            axes.set(xticks=[], yticks=[])
    return figure, grid


def _headings(line: list[Axes], methods: Mapping[str, MethodAttribution]) -> None:
    """Set the titles of the columns: the methods and the verdicts of their checks."""
    line[0].set_title("face", fontsize=8)
    for axes, entry in zip(line[1:], methods.values(), strict=True):
        color = VERMILLION if entry.passed is False else "black"
        verdict = entry.sanity.verdict().replace(": ", ":\n").replace(", ", ",\n")
        axes.set_title(f"{entry.title}\n{verdict}", fontsize=8, color=color)


def _to_gray(face: np.ndarray) -> np.ndarray:
    gray: np.ndarray = face.mean(axis=2)
    return gray


def _interval(metric: AnalysisMetricValue, *, sign: bool = False) -> str:
    value, low, high = map(format_number, (metric.value, metric.ci_low, metric.ci_high))
    return f"{'+' if sign and metric.number > 0 else ''}{value} [{low}, {high}]"
