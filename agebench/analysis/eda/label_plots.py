"""Figures of a dataset's labels: ages, groups, splits, and comparisons of two datasets."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from agebench.analysis.eda.distances import MAX_AGE, age_histogram
from agebench.analysis.eda.profile import UNKNOWN, DatasetProfile, crosstab, group_columns, labels_or_unknown
from agebench.data.splits.splits import SPLITS
from agebench.reports.plots.run import label
from agebench.reports.plots.style import FIGURE_WIDTH, GRAY, SPLIT_COLORS, group_colors, styled

_MAX_GROUPS = 12  # the largest groups of a grouping
_MIN_VIOLIN = 30  # images; smaller groups are shown as points


@styled
def plot_histograms(profile: DatasetProfile) -> Figure:
    """Plot the number of images by year of age and by group.

    Args:
        profile: the dataset's profile.

    Returns:
        The figure.
    """
    groups = group_columns(profile.samples)[:4]
    above, below = _subfigures(3.6, 2.9 if groups else 0)
    figure: Figure = above.figure
    upper = above.subplots()
    counts = age_histogram(profile.table["age"])
    last = int(np.flatnonzero(counts)[-1])
    upper.bar(np.arange(last + 1), counts[: last + 1], width=0.9, color=GRAY)
    median = float(profile.table["age"].median())
    upper.axvline(median, color="black", ls="--", lw=1)
    upper.set_title(f"{label(profile.card.title)}: age (n = {len(profile.table):,}; dashed: median, {median:g} years)")
    upper.set(xlabel="age (years)", ylabel="images", xlim=(-1, last + 1))
    upper.grid(axis="y")
    for index, column in enumerate(groups):
        axes = below.add_subplot(1, len(groups), index + 1)
        _bars(axes, column, profile.summary.groups[column])
    return figure


def _bars(axes: Axes, column: str, counts: Mapping[str, int]) -> None:
    largest = sorted(counts.items(), key=lambda item: (item[0] == UNKNOWN, -item[1]))[:_MAX_GROUPS]
    palette = group_colors(counts)
    positions = np.arange(len(largest))
    axes.barh(positions, [count for _, count in largest], color=[palette[name] for name, _ in largest])
    for position, (_, count) in enumerate(largest):
        axes.annotate(f" {count:,}", (count, position), va="center", fontsize=9)
    axes.set_yticks(positions, [label(name, 18) for name, _ in largest])
    axes.set(xlabel="images", ylim=(len(largest) - 0.4, -0.6), xlim=(0, max(count for _, count in largest) * 1.25))
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.set_title(f"{label(column)} (n = {sum(counts.values()):,})")
    axes.spines[["top", "right"]].set_visible(False)


@styled
def plot_crosstab(profile: DatasetProfile, first: str, second: str) -> Figure:
    """Plot a cross-tabulation of two groupings: counts and row percentages.

    Args:
        profile: the dataset's profile.
        first: the group column of the rows.
        second: the group column of the columns.

    Returns:
        The figure.
    """
    table = crosstab(profile.table, first, second).iloc[:_MAX_GROUPS, :_MAX_GROUPS]
    counts = table.to_numpy(int)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    top = max(0.5, float(shares.max()))
    figure = Figure(figsize=(FIGURE_WIDTH, 1.4 + 0.62 * len(table)), layout="constrained")
    axes = figure.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=top, aspect="auto")
    for row in range(len(table)):
        for column in range(table.shape[1]):
            color = "white" if shares[row, column] > 0.6 * top else "black"
            text = f"{counts[row, column]:,}\n{100 * shares[row, column]:.1f} %"
            axes.text(column, row, text, ha="center", va="center", color=color, fontsize=9)
    axes.set_xticks(range(table.shape[1]), [label(name, 16) for name in table.columns])
    axes.set_yticks(
        range(len(table)),
        [f"{label(name, 16)} ({n:,})" for name, n in zip(table.index, counts.sum(axis=1), strict=True)],
    )
    axes.set_title(f"{label(first)} × {label(second)}: images and row percentages (n = {len(profile.table):,})")
    axes.tick_params(length=0)
    return figure


@styled
def plot_age_violins(profile: DatasetProfile) -> Figure | None:
    """Plot age by group as violins and boxes.

    Args:
        profile: the dataset's profile.

    Returns:
        The figure, or None if no group is annotated.
    """
    groups = group_columns(profile.samples)[:4]
    if not groups:
        return None
    ages_by_group = {column: _largest_groups(profile.table, column) for column in groups}
    figure = Figure(figsize=(FIGURE_WIDTH, 3.5 * len(groups)), layout="constrained")
    for axes, (column, ages) in zip(np.atleast_1d(figure.subplots(len(groups), 1)), ages_by_group.items(), strict=True):
        palette = group_colors(profile.summary.groups[column])
        for position, (name, values) in enumerate(ages.items()):
            plot_violin(axes, position, values, palette[name])
        axes.set_xticks(range(len(ages)), [f"{label(name, 16)}\nn = {len(values):,}" for name, values in ages.items()])
        axes.set(ylabel="age (years)", ylim=(0, None), xlim=(-0.6, len(ages) - 0.4))
        axes.set_title(f"{label(profile.card.title)}: age by {label(column)}")
        axes.grid(axis="y")
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def plot_violin(axes: Axes, position: int, values: np.ndarray, color: str) -> None:
    """Draw a violin and a box, or points if there are few values.

    Args:
        axes: the axes to draw on.
        position: the position on the horizontal axis.
        values: the values.
        color: the color of the violin or the points.
    """
    if len(values) < _MIN_VIOLIN or np.ptp(values) == 0:
        spread = np.random.default_rng(0).uniform(-0.08, 0.08, len(values))
        axes.plot(position + spread, values, "o", ms=5, mfc="white", mec=color)
        return
    bodies: Any = axes.violinplot([values], [position], widths=0.85, showextrema=False, points=120)["bodies"]
    for body in bodies:
        body.set(facecolor=color, edgecolor=color, alpha=0.45)
    axes.boxplot(
        [values], positions=[position], widths=0.13, showfliers=False, patch_artist=True,
        boxprops={"facecolor": "white"}, medianprops={"color": "black", "lw": 2},
    )  # fmt: skip


@styled
def plot_population_pyramids(profile: DatasetProfile) -> Figure | None:
    """Plot population pyramids of all images and of each race: women left, men right, five years per bar.

    Args:
        profile: the dataset's profile.

    Returns:
        The figure, or None if gender is not annotated.
    """
    table = profile.table
    if not table["gender"].notna().any():
        return None
    races = _largest_groups(table, "race", exclude=UNKNOWN) if table["race"].notna().any() else {}
    panels = [("all", table), *((name, table[labels_or_unknown(table["race"]).eq(name)]) for name in [*races][:5])]
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(FIGURE_WIDTH if columns > 1 else 5.5, 3.3 * rows + 0.3), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharey=True).ravel()
    palette = group_colors(["female", "male"])
    edges = np.arange(0, (int(table["age"].max()) // 5 + 1) * 5 + 1, 5)
    for axes, (name, members) in zip(grid, panels, strict=False):
        largest_count = 1
        for gender, sign in (("female", -1), ("male", 1)):
            counts = np.histogram(members.loc[members["gender"].eq(gender), "age"], edges)[0]
            axes.barh(edges[:-1] + 2.5, sign * counts, height=4.5, color=palette[gender])
            axes.set_yticks(edges[::2])
            largest_count = max(largest_count, int(counts.max()))
            corner = (0.03, 0.97) if sign < 0 else (0.97, 0.97)
            text = f"{gender}\n{counts.sum():,}"
            axes.text(
                *corner, text, transform=axes.transAxes, va="top", ha="left" if sign < 0 else "right", fontsize=8,
                color="black",
            )  # fmt: skip
        axes.axvline(0, color="black", lw=0.8)
        axes.set(xlim=(-1.12 * largest_count, 1.12 * largest_count), ylim=(0, edges[-1] * 1.14), xlabel="images")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{abs(value):,.0f}"))
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.set_title(f"{label(name)} (n = {len(members):,})", fontsize=10)
        axes.tick_params(labelsize=8)
    for axes in grid[::columns]:
        axes.set_ylabel("age (years)")
    for axes in grid[len(panels) :]:
        axes.remove()
    return figure


@styled
def plot_splits(profile: DatasetProfile) -> Figure | None:
    """Plot the ages and the group shares of the train, validation and test splits.

    Args:
        profile: the dataset's profile.

    Returns:
        The figure, or None if the dataset cannot be split.
    """
    if profile.summary.parts.note:
        return None
    table, groups = profile.table, group_columns(profile.samples)[:3]
    above, below = _subfigures(3.2, 2.8 if groups else 0)
    last = int(np.ceil(table["age"].max() / 5) * 5) + 5
    edges = np.arange(0, last + 1, 5)
    first: Axes | None = None
    for index, split in enumerate(SPLITS):
        axes = above.add_subplot(1, 3, index + 1, sharey=first)
        first = first or axes
        ages = table.loc[table["part"].eq(split), "age"]
        weights = np.full(len(ages), 100 / max(1, len(ages)))
        axes.hist(ages, edges, weights=weights, color=SPLIT_COLORS[split], rwidth=0.9)
        axes.axvline(ages.median(), color="black", ls="--", lw=1)
        axes.set_title(f"{split} (n = {len(ages):,}, median {ages.median():g})", fontsize=10)
        axes.set(xlabel="age (years)")
        axes.grid(axis="y")
        if index == 0:
            axes.set_ylabel("% of the split")
    for index, column in enumerate(groups):
        counts = profile.summary.parts.groups[column]
        _share_bars(below.add_subplot(1, len(groups), index + 1), column, counts, SPLIT_COLORS)
    figure: Figure = above.figure
    return figure


def _subfigures(upper: float, lower: float) -> tuple[Any, Any]:
    """Create two subfigures with these heights in inches; if `lower` is 0, both are the whole figure."""
    figure = Figure(figsize=(FIGURE_WIDTH, upper + lower), layout="constrained")
    if not lower:
        only = figure.subfigures(1, 1)
        return only, only
    both: Any = figure.subfigures(2, 1, height_ratios=[upper, lower])
    return both[0], both[1]


def _share_bars(axes: Axes, column: str, counts: Mapping[str, Mapping[str, int]], palette: Mapping[str, str]) -> None:
    """Draw grouped bars of the share of each group, one bar per split or dataset."""
    names = sorted({name for groups in counts.values() for name in groups}, key=lambda name: (name == UNKNOWN, name))[
        :_MAX_GROUPS
    ]
    width = 0.8 / len(counts)
    for index, (key, groups) in enumerate(counts.items()):
        total = max(1, sum(groups.values()))
        heights = [100 * groups.get(name, 0) / total for name in names]
        axes.bar(
            np.arange(len(names)) + (index - (len(counts) - 1) / 2) * width, heights, width * 0.9, color=palette[key]
        )
    axes.set_xticks(range(len(names)), [label(name, 12) for name in names], fontsize=9 if len(names) < 5 else 8)
    axes.set_title(f"{label(column)}: {', '.join(label(key) for key in counts)}", fontsize=10)
    axes.set_ylabel("% of each")
    axes.grid(axis="y")


@styled
def plot_comparison(first: DatasetProfile, second: DatasetProfile, palette: Mapping[str, str]) -> Figure:
    """Plot the ages and the common groups of two datasets.

    Args:
        first: the profile of the first dataset.
        second: the profile of the second dataset.
        palette: the color of each dataset by name.

    Returns:
        The figure.
    """
    shared = [column for column in group_columns(first.samples) if column in group_columns(second.samples)][:3]
    above, below = _subfigures(3.6, 2.8 if shared else 0)
    left, right = above.subplots(1, 2)
    years = np.arange(MAX_AGE + 1)
    last = max(float(profile.table["age"].max()) for profile in (first, second)) + 2
    for profile in (first, second):
        counts = age_histogram(profile.table["age"])
        name = f"{label(profile.card.name)} (n = {len(profile.table):,})"
        color = palette[profile.card.name]
        window = np.convolve(np.ones(len(counts)), np.ones(3), "same")
        smooth = np.convolve(counts, np.ones(3), "same") / window / counts.sum() * 100
        left.fill_between(years, smooth, color=color, alpha=0.3, lw=0)
        left.plot(years, smooth, color=color, lw=1.5, label=name)
        right.plot(years, 100 * counts.cumsum() / counts.sum(), color=color, lw=2, drawstyle="steps-post")
    left.set(xlabel="age (years)", ylabel="% of images per year", xlim=(0, last), ylim=(0, None))
    left.set_title("Ages (moving average over three years)", fontsize=10)
    right.set(xlabel="age (years)", ylabel="% of images up to this age", xlim=(0, last), ylim=(0, 101))
    right.set_title("Cumulative distribution", fontsize=10)
    for axes in (left, right):
        axes.grid(True)
    for index, column in enumerate(shared):
        counts_by_dataset = {profile.card.name: profile.summary.groups[column] for profile in (first, second)}
        _share_bars(below.add_subplot(1, len(shared), index + 1), column, counts_by_dataset, palette)
    above.legend(*left.get_legend_handles_labels(), loc="outside upper center", ncols=2)
    figure: Figure = above.figure
    return figure


def _largest_groups(table: pd.DataFrame, column: str, *, exclude: str = "") -> dict[str, np.ndarray]:
    """Return the ages of the largest groups by name, with `unknown` last."""
    ages = {str(name): rows.to_numpy(float) for name, rows in table["age"].groupby(labels_or_unknown(table[column]))}
    order: Sequence[str] = sorted(ages, key=lambda name: (name == UNKNOWN, -len(ages[name])))
    names = sorted([name for name in order if name != exclude][:_MAX_GROUPS], key=lambda name: (name == UNKNOWN, name))
    return {name: ages[name] for name in names}
