"""Figures of a robustness test: example corruptions, error by strength, relative errors overall and by group."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from agebench.analysis.robustness.corruptions import Corruption, CorruptionContext, to_float_images, to_uint8
from agebench.analysis.robustness.schema import OverallCorruptionMetrics, RobustnessFile
from agebench.estimators.base import InputSpec
from agebench.metrics.schema import AnalysisMetricValue
from agebench.reports.formatting import format_number, group_name
from agebench.reports.plots.run import label
from agebench.reports.plots.style import COLORS, FIGURE_WIDTH, GRAY, group_colors, styled
from agebench.training.dataloader import FaceDataset, derive_seed

_COLUMNS = 4
_MAX_GROUPS = 8  # more lines in one panel are not distinguishable

CAPTIONS = {
    "examples": "One face of the test set under every corruption, from the weakest to the strongest.",
    "overview": "Relative error of each corruption, averaged over its strengths; 1: no effect.",
    "curves": "Error and bias against strength, with 95 % intervals; the dotted line is the MAE on uncorrupted faces.",
    "groups": "Relative error by group: the mean MAE over the strengths, divided by the group's own MAE on uncorrupted faces.",
    "by": "MAE against strength by group, with 95 % intervals; groups with n < 30 are omitted.",
}


@styled
def plot_examples(
    data: FaceDataset, row: int, corruptions: Sequence[Corruption], framing: InputSpec, title: str, *, seed: int = 0
) -> Figure:
    """Plot one face under each corruption at each strength.

    Args:
        data: the aligned faces.
        row: the index of the face in `data`.
        corruptions: the corruptions to show.
        framing: the images that the estimator expects.
        title: the name of the test set.
        seed: the seed of the corruptions.

    Returns:
        The figure.
    """
    face = to_float_images(torch.from_numpy(np.ascontiguousarray(data.pixels[data.rows[[row]]])))
    columns = 1 + max(len(corruption.severities) for corruption in corruptions)
    half = -(-len(corruptions) // 2)  # two corruptions side by side
    figure = Figure(figsize=(FIGURE_WIDTH * 1.25, 0.93 * half + 0.4), layout="constrained")
    figure.suptitle(f"{title}: one face (true age {data.ages[row]:g}) under every corruption")
    grid = figure.subplots(half, 2 * columns, squeeze=False)
    for axes in grid.ravel():
        axes.axis("off")
    for index, corruption in enumerate(corruptions):
        line = grid[index % half, index // half * columns :]
        line[0].text(
            1.0, 0.5, _heading(corruption.title), ha="right", va="center", fontsize=7.5, transform=line[0].transAxes
        )
        for axes, strength in zip(line[1:], corruption.severities, strict=False):
            generator = torch.Generator().manual_seed(derive_seed(seed, corruption.name, 0))
            draws = torch.rand(1, generator=generator)
            context = CorruptionContext(framing.crop_scale, draws, generator, framing.offset)
            axes.imshow(to_uint8(corruption.change(face, strength, context))[0].numpy())
            axes.set_title(f"{strength:g}", fontsize=7, pad=2)
    return figure


@styled
def plot_overview(metrics: RobustnessFile, title: str) -> Figure:
    """Plot the relative error of each corruption with its interval, the largest on top, and their mean.

    Args:
        metrics: the result of `robustness_metrics`.
        title: the name of the test set.

    Returns:
        The figure.
    """
    rows = metrics.by_harm()[::-1]
    figure = Figure(figsize=(FIGURE_WIDTH, 1.2 + 0.27 * len(rows)), layout="constrained")
    axes = figure.subplots()
    for position, (_, entry) in enumerate(rows):
        _interval_marker(axes, position, entry.relative)
    summary = metrics.summary.relative_error
    axes.axvline(1, color="black", lw=0.8)
    axes.axvline(summary.number, color=COLORS[1], lw=1.2, ls="--")
    axes.set_yticks(range(len(rows)), [_without_unit(entry.title) for _, entry in rows])
    axes.set_title(f"{title}: relative error {_format_factor(summary)} on average (dashed; n = {metrics.n:,})")
    axes.set(xlabel="mean MAE over the strengths, divided by the MAE on uncorrupted faces; 95 % interval")
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.grid(axis="x")
    return figure


@styled
def plot_curves(metrics: RobustnessFile, title: str, color: str) -> Figure:
    """Plot MAE and bias against strength, one panel per corruption.

    Args:
        metrics: the result of `robustness_metrics`.
        title: the name of the test set.
        color: the color of the test set.

    Returns:
        The figure.
    """
    figure, grid = _panels(len(metrics.corruptions))
    clean = metrics.clean
    for axes, entry in zip(grid, metrics.corruptions.values(), strict=False):
        axes.axhline(clean.mae.number, color="black", lw=0.8, ls=":")
        axes.axhline(0, color="black", lw=0.6)
        _line(axes, [clean.mae, *entry.mae], color)
        _line(axes, [clean.bias, *entry.bias], GRAY, style="--")
        _strengths(axes, entry)
    marks = [Line2D([], [], color=color, marker="o", ms=4), Line2D([], [], color=GRAY, ls="--", marker="o", ms=4)]
    names = ["MAE", "bias: predicted − true"]
    figure.legend(marks, names, loc="outside upper right", ncols=2)
    figure.suptitle(f"{title}: error against strength (n = {metrics.n:,})", x=0.02, ha="left")
    _share_axes(figure, grid, "years")
    return figure


@styled
def plot_by_group(metrics: RobustnessFile, grouping: str, title: str) -> Figure | None:
    """Plot MAE against strength for each group of a grouping, one panel per corruption.

    Args:
        metrics: the result of `robustness_metrics`.
        grouping: the name of the grouping.
        title: the name of the test set.

    Returns:
        The figure, or None unless two to eight groups are large enough.
    """
    entries = {name: entry for name, entry in metrics.groups[grouping].items() if entry.ranked}
    if not 2 <= len(entries) <= _MAX_GROUPS:
        return None
    palette = group_colors(metrics.groups[grouping])
    figure, grid = _panels(len(metrics.corruptions))
    for axes, (name, corruption) in zip(grid, metrics.corruptions.items(), strict=False):
        for group, entry in entries.items():
            _line(axes, [entry.clean.mae, *entry.corruptions[name].mae], palette[group], shade=0.1)
        _strengths(axes, corruption)
    grid[0].set_ylim(bottom=0)  # after plotting, because this fixes the shared axis
    marks = [Line2D([], [], color=palette[group], marker="o", ms=4) for group in entries]
    names = [f"{label(group_name(grouping, group), 20)} (n = {entry.n:,})" for group, entry in entries.items()]
    figure.legend(marks, names, loc="outside lower center", ncols=4, fontsize=8)
    figure.suptitle(f"{title}: MAE against strength, by {_grouping_title(grouping)}", x=0.02, ha="left")
    _share_axes(figure, grid, "MAE (years)")
    return figure


@styled
def plot_groups(metrics: RobustnessFile, title: str) -> Figure | None:
    """Plot the relative errors of groups and corruptions as a heat map.

    Args:
        metrics: the result of `robustness_metrics`.
        title: the name of the test set.

    Returns:
        The figure, or None if no group is large enough.
    """
    rows = [
        (grouping, name, entry)
        for grouping, entries in metrics.groups.items()
        for name, entry in entries.items()
        if entry.ranked
    ]
    if not rows:
        return None
    names = list(metrics.corruptions)
    values = np.array(
        [[entry.corruptions[name].relative.number or np.nan for name in names] for _, _, entry in rows], float
    )
    overall = np.array([[metrics.corruptions[name].relative.number for name in names]], float)
    values = np.concatenate([overall, values])
    figure = Figure(figsize=(FIGURE_WIDTH * 1.15, 1.9 + 0.29 * len(values)), layout="constrained")
    axes = figure.subplots()
    shades = LinearSegmentedColormap.from_list("relative", [COLORS[0], "#FFFFFF", COLORS[1]])
    reach = max(1.0, float(np.nanmax(np.abs(np.log2(values)))))
    image = axes.imshow(np.log2(values), cmap=shades, vmin=-reach, vmax=reach, aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        saturated = abs(math.log2(value)) > 0.75 * reach if np.isfinite(value) else False
        axes.text(
            column,
            row,
            format_number(value, digits=1) if np.isfinite(value) else "–",
            ha="center",
            va="center",
            fontsize=7.5,
            color="white" if saturated else "black",
        )
    axes.set_xticks(range(len(names)), names, rotation=40, ha="right", rotation_mode="anchor")
    labels = [f"all (n = {metrics.n:,})"]
    labels += [f"{label(group_name(grouping, name), 24)} (n = {entry.n:,})" for grouping, name, entry in rows]
    axes.set_yticks(range(len(values)), labels)
    for index, row in enumerate(rows):
        if not index or row[0] != rows[index - 1][0]:
            axes.axhline(index + 0.5, color="black", lw=1)
    axes.set_title(f"{title}: MAE under corruption, as a multiple of the group's own clean MAE")
    ticks = np.arange(-math.floor(reach), math.floor(reach) + 1)
    bar = figure.colorbar(image, ax=axes, ticks=ticks, shrink=0.8, pad=0.01)
    bar.ax.set_yticklabels([f"× {2.0**tick:g}" for tick in ticks])
    axes.tick_params(length=0, labelsize=8)
    return figure


def _panels(count: int) -> tuple[Figure, list[Axes]]:
    rows = -(-count // _COLUMNS)
    columns = min(count, _COLUMNS)
    figure = Figure(figsize=(FIGURE_WIDTH * 1.15, 0.9 + 1.75 * rows), layout="constrained")
    grid = list(figure.subplots(rows, columns, squeeze=False, sharey=True).ravel())
    for axes in grid[count:]:
        axes.axis("off")
    return figure, grid[:count]


def _share_axes(figure: Figure, grid: Sequence[Axes], unit: str) -> None:
    for axes in grid[::_COLUMNS]:
        axes.set_ylabel(unit, fontsize=8)


def _line(
    axes: Axes, points: Sequence[AnalysisMetricValue], color: str, *, style: str = "-", shade: float = 0.2
) -> None:
    positions = np.arange(len(points))
    low, high = np.array([point.ends for point in points], float).T
    axes.plot(positions, [point.number for point in points], "o" + style, ms=3, lw=1.4, color=color)
    axes.fill_between(positions, low, high, color=color, alpha=shade, lw=0)


def _strengths(axes: Axes, entry: OverallCorruptionMetrics) -> None:
    axes.set_title(_heading(entry.title), fontsize=8)
    axes.set_xticks(range(len(entry.strengths) + 1), ["none", *(f"{strength:g}" for strength in entry.strengths)])
    axes.tick_params(labelsize=7)
    axes.grid(axis="y")


def _interval_marker(axes: Axes, position: float, metric: AnalysisMetricValue) -> None:
    if metric.ci_low is not None:
        axes.plot(metric.ends, [position, position], color=COLORS[0], lw=1.5)
    axes.plot(metric.number, position, "o", ms=5.5, color=COLORS[0], zorder=3)


def _heading(title: str) -> str:
    """Put a title such as `Blur: σ (% of the side)` on two lines."""
    name, separator, rest = title.partition(": ")
    if separator:
        return f"{name}\n{rest}"
    name, separator, rest = title.partition(" (")
    return f"{name}\n({rest}" if separator else name


def _without_unit(title: str) -> str:
    """Shorten a title such as `Blur: σ (% of the side)` to `Blur`."""
    return title.partition(": ")[0].partition(" (% of")[0]


def _grouping_title(name: str) -> str:
    return "age band" if name == "age_band" else group_name(name, name)


def _format_factor(metric: AnalysisMetricValue) -> str:
    interval = "" if metric.ci_low is None else " [{:.2f}, {:.2f}]".format(*metric.ends)
    return f"× {metric.number:.2f}{interval}"
