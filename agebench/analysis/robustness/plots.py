"""The pictures of a stress test: what was done to a face, how the error grows, what matters most, for whom."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from agebench.analysis.robustness.corruptions import Corruption, CorruptionContext, to_float_images, to_uint8
from agebench.reports.formatting import format_number, group_name
from agebench.reports.plots.run import label
from agebench.reports.plots.style import COLORS, GRAY, group_colors, styled
from agebench.training.dataloader import FaceDataset, derive_seed

_WIDTH = 9.0  # inches
_COLUMNS = 4
_MOST_GROUPS = 8  # lines in one panel that can still be told apart

CAPTIONS = {
    "examples": "One face of the test set under every corruption, from the weakest to the strongest.",
    "overview": "What each corruption does to the error on average over its strengths; 1: nothing.",
    "curves": "Error and bias against strength, with 95 % intervals; the dotted line is the MAE on the faces as they are.",
    "groups": "Relative error by group: the mean MAE over the strengths, divided by the group's own MAE on the faces as they are.",
    "by": "MAE against strength by group, with 95 % intervals; groups too small to rank are left out.",
}


@styled
def plot_examples(
    data: FaceDataset, row: int, corruptions: Sequence[Corruption], coverage: float, title: str, *, seed: int = 0
) -> Figure:
    """The face at `row` at every strength of every corruption."""
    face = to_float_images(torch.from_numpy(np.ascontiguousarray(data.pixels[data.rows[[row]]])))
    columns = 1 + max(len(corruption.severities) for corruption in corruptions)
    half = -(-len(corruptions) // 2)  # two corruptions side by side
    figure = Figure(figsize=(_WIDTH * 1.25, 0.93 * half + 0.4), layout="constrained")
    figure.suptitle(f"{title}: one face (true age {data.ages[row]:g}) under every corruption")
    grid = figure.subplots(half, 2 * columns, squeeze=False)
    for axes in grid.ravel():
        axes.axis("off")
    for place, corruption in enumerate(corruptions):
        line = grid[place % half, place // half * columns :]
        line[0].text(
            1.0, 0.5, _heading(corruption.title), ha="right", va="center", fontsize=7.5, transform=line[0].transAxes
        )
        for axes, strength in zip(line[1:], corruption.severities, strict=False):
            generator = torch.Generator().manual_seed(derive_seed(seed, corruption.name, 0))
            scene = CorruptionContext(coverage, torch.rand(1, generator=generator), generator)
            axes.imshow(to_uint8(corruption.change(face, strength, scene))[0].numpy())
            axes.set_title(f"{strength:g}", fontsize=7, pad=2)
    return figure


@styled
def plot_overview(found: Mapping[str, Any], title: str) -> Figure:
    """Relative error of every corruption with its interval, the worst on top, and the mean of all."""
    rows = sorted(found["corruptions"].items(), key=lambda row: row[1]["relative"]["value"])
    figure = Figure(figsize=(_WIDTH, 1.2 + 0.27 * len(rows)), layout="constrained")
    axes = figure.subplots()
    for place, (_, entry) in enumerate(rows):
        _bar(axes, place, entry["relative"], COLORS[0])
    summary = found["summary"]["relative_error"]
    axes.axvline(1, color="black", lw=0.8)
    axes.axvline(summary["value"], color=COLORS[1], lw=1.2, ls="--")
    axes.set_yticks(range(len(rows)), [_plain(entry["title"]) for _, entry in rows])
    axes.set_title(f"{title}: relative error {_written(summary)} on average (dashed; n = {found['n']:,})")
    axes.set(xlabel="MAE, mean over five strengths, divided by the MAE on the faces as they are; 95 % interval")
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.grid(axis="x")
    return figure


@styled
def plot_curves(found: Mapping[str, Any], title: str, colour: str) -> Figure:
    """MAE and bias against strength, a panel a corruption."""
    figure, grid = _panels(len(found["corruptions"]))
    clean = found["clean"]
    for axes, entry in zip(grid, found["corruptions"].values(), strict=False):
        axes.axhline(clean["mae"]["value"], color="black", lw=0.8, ls=":")
        axes.axhline(0, color="black", lw=0.6)
        _line(axes, [clean["mae"], *entry["mae"]], colour)
        _line(axes, [clean["bias"], *entry["bias"]], GRAY, style="--")
        _strengths(axes, entry)
    marks = [Line2D([], [], color=colour, marker="o", ms=4), Line2D([], [], color=GRAY, ls="--", marker="o", ms=4)]
    names = ["MAE", "bias: predicted − true"]
    figure.legend(marks, names, loc="outside upper right", ncols=2)
    figure.suptitle(f"{title}: error against strength (n = {found['n']:,})", x=0.02, ha="left")
    _share_axes(figure, grid, "years")
    return figure


@styled
def plot_by_group(found: Mapping[str, Any], grouping: str, title: str) -> Figure | None:
    """MAE against strength of every group of a grouping; None where fewer than two are large enough."""
    entries = {name: entry for name, entry in found["groups"][grouping].items() if entry["ranked"]}
    if not 2 <= len(entries) <= _MOST_GROUPS:
        return None
    palette = group_colors(found["groups"][grouping])
    figure, grid = _panels(len(found["corruptions"]))
    for axes, (name, whole) in zip(grid, found["corruptions"].items(), strict=False):
        for group, entry in entries.items():
            _line(axes, [entry["clean"]["mae"], *entry["corruptions"][name]["mae"]], palette[group], shade=0.1)
        _strengths(axes, whole)
    grid[0].set_ylim(bottom=0)  # last: the axis is shared, and from here on it is fixed
    marks = [Line2D([], [], color=palette[group], marker="o", ms=4) for group in entries]
    names = [f"{label(group_name(grouping, group), 20)} (n = {entry['n']:,})" for group, entry in entries.items()]
    figure.legend(marks, names, loc="outside lower center", ncols=4, fontsize=8)
    heading = _grouping(grouping)
    figure.suptitle(f"{title}: MAE against strength, by {heading}", x=0.02, ha="left")
    _share_axes(figure, grid, "MAE (years)")
    return figure


@styled
def plot_groups(found: Mapping[str, Any], title: str) -> Figure | None:
    """A table of relative errors, groups by corruptions; None without groups."""
    rows = [
        (grouping, name, entry)
        for grouping, entries in found["groups"].items()
        for name, entry in entries.items()
        if entry["ranked"]
    ]
    if not rows:
        return None
    names = list(found["corruptions"])
    values = np.array(
        [[entry["corruptions"][name]["relative"]["value"] or np.nan for name in names] for _, _, entry in rows], float
    )
    whole = np.array([[found["corruptions"][name]["relative"]["value"] for name in names]], float)
    values = np.concatenate([whole, values])
    figure = Figure(figsize=(_WIDTH * 1.15, 1.9 + 0.29 * len(values)), layout="constrained")
    axes = figure.subplots()
    shades = LinearSegmentedColormap.from_list("relative", [COLORS[0], "#FFFFFF", COLORS[1]])
    reach = max(1.0, float(np.nanmax(np.abs(np.log2(values)))))
    drawn = axes.imshow(np.log2(values), cmap=shades, vmin=-reach, vmax=reach, aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        strong = abs(math.log2(value)) > 0.75 * reach if np.isfinite(value) else False
        axes.text(
            column,
            row,
            format_number(value, digits=1) if np.isfinite(value) else "–",
            ha="center",
            va="center",
            fontsize=7.5,
            color="white" if strong else "black",
        )
    axes.set_xticks(range(len(names)), names, rotation=40, ha="right", rotation_mode="anchor")
    labels = [f"all (n = {found['n']:,})"]
    labels += [f"{label(group_name(grouping, name), 24)} (n = {entry['n']:,})" for grouping, name, entry in rows]
    axes.set_yticks(range(len(values)), labels)
    starts = [place for place in range(len(rows)) if not place or rows[place][0] != rows[place - 1][0]]
    for place in starts:
        axes.axhline(place + 0.5, color="black", lw=1)
    axes.set_title(f"{title}: MAE under corruption, as a multiple of the group's own clean MAE")
    ticks = np.arange(-math.floor(reach), math.floor(reach) + 1)
    bar = figure.colorbar(drawn, ax=axes, ticks=ticks, shrink=0.8, pad=0.01)
    bar.ax.set_yticklabels([f"× {2.0**tick:g}" for tick in ticks])
    axes.tick_params(length=0, labelsize=8)
    return figure


def _panels(count: int) -> tuple[Figure, list[Axes]]:
    rows = -(-count // _COLUMNS)
    columns = min(count, _COLUMNS)
    figure = Figure(figsize=(_WIDTH * 1.15, 0.9 + 1.75 * rows), layout="constrained")
    grid = list(figure.subplots(rows, columns, squeeze=False, sharey=True).ravel())
    for axes in grid[count:]:
        axes.axis("off")
    return figure, grid[:count]


def _share_axes(figure: Figure, grid: Sequence[Axes], unit: str) -> None:
    for axes in grid[::_COLUMNS]:
        axes.set_ylabel(unit, fontsize=8)


def _line(
    axes: Axes, points: Sequence[Mapping[str, Any]], colour: str, *, style: str = "-", shade: float = 0.2
) -> None:
    places = np.arange(len(points))
    value, low, high = (np.array([point[end] for point in points], float) for end in ("value", "low", "high"))
    axes.plot(places, value, "o" + style, ms=3, lw=1.4, color=colour)
    axes.fill_between(places, low, high, color=colour, alpha=shade, lw=0)


def _strengths(axes: Axes, entry: Mapping[str, Any]) -> None:
    axes.set_title(_heading(entry["title"]), fontsize=8)
    axes.set_xticks(range(len(entry["strengths"]) + 1), ["none", *(f"{strength:g}" for strength in entry["strengths"])])
    axes.tick_params(labelsize=7)
    axes.grid(axis="y")


def _bar(axes: Axes, place: float, figure: Mapping[str, Any], colour: str) -> None:
    if figure["low"] is not None:
        axes.plot([figure["low"], figure["high"]], [place, place], color=colour, lw=1.5)
    axes.plot(figure["value"], place, "o", ms=5.5, color=colour, zorder=3)


def _heading(title: str) -> str:
    """`Blur: σ (% of the side)` on two lines."""
    name, found, rest = title.partition(": ")
    if found:
        return f"{name}\n{rest}"
    name, found, rest = title.partition(" (")
    return f"{name}\n({rest}" if found else name


def _plain(title: str) -> str:
    """`Blur: σ (% of the side)` without what its strengths are."""
    return title.partition(": ")[0].partition(" (% of")[0]


def _grouping(name: str) -> str:
    return "age band" if name == "age_band" else group_name(name, name)


def _written(figure: Mapping[str, Any]) -> str:
    ends = "" if figure["low"] is None else f" [{figure['low']:.2f}, {figure['high']:.2f}]"
    return f"× {figure['value']:.2f}{ends}"
