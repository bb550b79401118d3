"""The pictures of an explanation: single faces, mean maps by group, and the checks beside them."""

from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from agebench.analysis.attribution.run import AttributionResult, normalize_maps
from agebench.analysis.attribution.sanity_checks import format_verdict
from agebench.analysis.robustness import operators
from agebench.metrics.groups import Grouping
from agebench.reports.formatting import format_number, group_name
from agebench.reports.plots.run import label
from agebench.reports.plots.style import COLORS, GRAY

BLUE, VERMILLION = COLORS[:2]
DIVERGING_CMAP = LinearSegmentedColormap.from_list("signed", [BLUE, "#FFFFFF", VERMILLION])
_SHARE = LinearSegmentedColormap.from_list("share", ["#FFFFFF", "#F3C8A0", VERMILLION, "#5A2400"])
_SIDE = 1.55  # inches
_SMOOTHING = 0.02  # of the side: single pixels' gradients are noise to the eye

CAPTIONS = {
    "faces": "Single faces. Orange: makes the face look older to the model; blue: younger. Every map has its own scale.",
    "mean": "Mean maps on the aligned face: how much is marked, as a multiple of an even spread.",
    "sanity": "The checks. Left: a map, and what a network with random weights gives. Right: how far the answer moves when "
    "cells are covered (deletion) or uncovered (insertion) in the map's order, against a random order.",
}


def plot_examples(looked: AttributionResult, title: str) -> Figure:
    """A row a face: the face, and the signed map of every method over it."""
    methods = looked.summary["methods"]
    figure, grid = _grid(len(looked.singles), 1 + len(methods), title)
    for row, (place, single) in enumerate(zip(looked.singles, looked.summary["singles"], strict=True)):
        face = looked.faces[place]
        grid[row][0].imshow(face)
        grid[row][0].set_ylabel(
            f"{label(single['sample_id'], 16)}\ntrue {single['age']:g}, says {single['age_pred']:.0f}", fontsize=8
        )
        for axes, method in zip(grid[row][1:], methods, strict=True):
            drawn = blur_for_display(looked.maps[method][place])
            reach = float(np.abs(drawn).max()) or 1.0
            axes.imshow(_under(face), cmap="gray", vmin=0, vmax=255)
            axes.imshow(drawn, cmap=DIVERGING_CMAP, vmin=-reach, vmax=reach, alpha=0.65)
    _headings(grid[0], methods)
    return figure


def plot_mean_maps(looked: AttributionResult, grouping: Grouping, title: str) -> Figure | None:
    """A row a group: its mean face, and every method's mean map on one scale. None where no group has enough faces.

    That by age band is always there: its first row is of all faces.
    """
    methods = looked.summary["methods"]
    first = next(iter(methods.values()))["groups"][grouping.name]
    shown = [(place, name) for place, name in enumerate(grouping.names) if first[name]["shown"]]
    if not shown and grouping.name != "age_band":
        return None
    figure, grid = _grid(len(shown) + 1, 1 + len(methods), title)
    rows = [("all", np.ones(len(looked.faces), dtype=bool))]
    rows += [(group_name(grouping.name, name), grouping.codes == place) for place, name in shown]
    means = {
        method: [normalize_maps(looked.maps[method][inside]).mean(axis=0) for _, inside in rows] for method in methods
    }
    reach = max(2.0, float(np.percentile(np.concatenate([np.ravel(of) for of in means.values()]), 99.5)))
    for row, (name, inside) in enumerate(rows):
        face = looked.faces[inside].mean(axis=0).round().astype(np.uint8)
        grid[row][0].imshow(face)
        grid[row][0].set_ylabel(f"{label(name, 18)}\nn = {int(inside.sum()):,}", fontsize=8)
        for axes, method in zip(grid[row][1:], methods, strict=True):
            axes.imshow(_under(face), cmap="gray", vmin=0, vmax=255)
            image = axes.imshow(means[method][row], cmap=_SHARE, vmin=0, vmax=reach, alpha=0.7)
    _headings(grid[0], methods)
    bar = figure.colorbar(
        image, ax=[axes for line in grid for axes in line], location="bottom", shrink=0.6, aspect=40, pad=0.01
    )
    bar.set_label("marked, as a multiple of an even spread", fontsize=8)
    bar.ax.tick_params(labelsize=8)
    return figure


def plot_sanity(looked: AttributionResult, title: str) -> Figure:
    """A row a method: face, map, map of a random network, deletion and insertion."""
    methods = looked.summary["methods"]
    figure = Figure(figsize=(10.4, 0.7 + 2.15 * len(methods)), layout="constrained")
    figure.suptitle(title, fontsize=11)
    grid = figure.subplots(len(methods), 5, squeeze=False, width_ratios=[1, 1, 1, 1.5, 1.5])
    place = len(looked.checked) // 2
    face = looked.faces[looked.checked[place]]
    for line, (method, entry) in zip(grid, methods.items(), strict=True):
        line[0].imshow(face)
        line[0].set_ylabel(f"{entry['title']}\n{format_verdict(entry['sanity'])}", fontsize=8)
        drawings = [looked.maps[method][looked.checked[place]]]
        drawings += [looked.random[method][place]] if method in looked.random else []
        for axes, drawn in zip(line[1:3], map(blur_for_display, drawings), strict=False):
            reach = float(np.abs(drawn).max()) or 1.0
            axes.imshow(drawn, cmap=DIVERGING_CMAP, vmin=-reach, vmax=reach)
        for axes in line[:3]:
            axes.set(xticks=[], yticks=[])
        line[1].set_title("trained weights", fontsize=8)
        if method in looked.random:
            rho = entry["sanity"]["randomised"]["rank_correlation"]
            line[2].set_title(f"random weights\nrank corr. {_interval(rho)}", fontsize=8)
        else:
            line[2].set_title("random weights:\nnot possible", fontsize=8)
        for axes, way in zip(line[3:], ("deletion", "insertion"), strict=True):
            _curve(axes, way, entry["sanity"][way])
    grid[0][3].legend(fontsize=7, frameon=False)
    return figure


def blur_for_display(drawn: np.ndarray) -> np.ndarray:
    """(S, S) blurred a little, for the eye."""
    size = drawn.shape[-1]
    blurred: np.ndarray = operators.apply_separable(
        torch.from_numpy(np.asarray(drawn, np.float32)), operators.gaussian_matrix(size, _SMOOTHING * size)
    ).numpy()
    return blurred


def _curve(axes: Axes, way: str, entry: dict[str, Any]) -> None:
    share = 100 * np.array(entry["share"])
    axes.plot(share, entry["curve"], "-", color=BLUE, lw=1.6, label="the map's order")
    axes.plot(share, entry["random"], "--", color=GRAY, lw=1.3, label="random order")
    axes.set_title(f"{way}: {_interval(entry['difference'], sign=True)} years", fontsize=8)
    axes.set_xlabel(f"cells {'covered' if way == 'deletion' else 'uncovered'} (%)", fontsize=8)
    axes.set_ylabel("answer moves by (years)", fontsize=8)
    axes.set_ylim(bottom=0)
    axes.tick_params(labelsize=7)
    axes.grid(alpha=0.3)


def _grid(rows: int, columns: int, title: str) -> tuple[Figure, list[list[Axes]]]:
    figure = Figure(figsize=(_SIDE * columns + 1.0, _SIDE * rows + 1.0), layout="constrained")
    figure.suptitle(title, fontsize=11)
    grid = [list(line) for line in figure.subplots(rows, columns, squeeze=False)]
    for line in grid:
        for axes in line:
            axes.set(xticks=[], yticks=[])
    return figure, grid


def _headings(line: list[Axes], methods: dict[str, Any]) -> None:
    """The method's name and, beside it, what its checks say."""
    line[0].set_title("face", fontsize=8)
    for axes, entry in zip(line[1:], methods.values(), strict=True):
        colour = "black" if entry["passed"] else VERMILLION
        words = format_verdict(entry["sanity"]).replace(": ", ":\n").replace(", ", ",\n")
        axes.set_title(f"{entry['title']}\n{words}", fontsize=8, color=colour)


def _under(face: np.ndarray) -> np.ndarray:
    grey: np.ndarray = face.mean(axis=2)
    return grey


def _interval(figure: dict[str, Any], *, sign: bool = False) -> str:
    value, low, high = (format_number(figure[end]) for end in ("value", "low", "high"))
    return f"{'+' if sign and figure['value'] > 0 else ''}{value} [{low}, {high}]"
