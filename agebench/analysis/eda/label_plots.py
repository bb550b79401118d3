"""The figures of a dataset's labels: sober, each with units and n, one colour a group throughout."""

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
from agebench.reports.plots.style import GRAY, group_colors, styled
from agebench.reports.plots.style import SPLIT_COLORS as PART_COLOURS

FIGURE_WIDTH = 9.0  # inches
_MOST_GROUPS = 12  # groups of one grouping with a violin or a pyramid of their own; the largest ones
_FEW = 30  # fewer images have no shape: they are shown as points


@styled
def plot_histograms(found: DatasetProfile) -> Figure:
    """Images by year of age, and by group."""
    groups = group_columns(found.samples)[:4]
    above, below = _halves(3.6, 2.9 if groups else 0)
    figure: Figure = above.figure
    upper = above.subplots()
    counts = age_histogram(found.table["age"])
    last = int(np.flatnonzero(counts)[-1])
    upper.bar(np.arange(last + 1), counts[: last + 1], width=0.9, color=GRAY)
    median = float(found.table["age"].median())
    upper.axvline(median, color="black", ls="--", lw=1)
    upper.set_title(f"{label(found.card.title)}: age (n = {len(found.table):,}; dashed: median, {median:g} years)")
    upper.set(xlabel="age (years, a bar a year)", ylabel="images", xlim=(-1, last + 1))
    upper.grid(axis="y")
    for place, column in enumerate(groups):
        axes = below.add_subplot(1, len(groups), place + 1)
        _bars(axes, column, found.summary["groups"][column])
    return figure


def _bars(axes: Axes, column: str, counts: Mapping[str, int]) -> None:
    shown = sorted(counts.items(), key=lambda item: (item[0] == UNKNOWN, -item[1]))[:_MOST_GROUPS]
    palette = group_colors(counts)
    places = np.arange(len(shown))
    axes.barh(places, [count for _, count in shown], color=[palette[name] for name, _ in shown])
    for place, (_, count) in enumerate(shown):
        axes.annotate(f" {count:,}", (count, place), va="center", fontsize=9)
    axes.set_yticks(places, [label(name, 18) for name, _ in shown])
    axes.set(xlabel="images", ylim=(len(shown) - 0.4, -0.6), xlim=(0, max(count for _, count in shown) * 1.25))
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.set_title(f"{label(column)} (n = {sum(counts.values()):,})")
    axes.spines[["top", "right"]].set_visible(False)


@styled
def plot_crosstab(found: DatasetProfile, one: str, other: str) -> Figure:
    """A cross-tabulation: counts, and the share of each row."""
    table = crosstab(found.table, one, other).iloc[:_MOST_GROUPS, :_MOST_GROUPS]
    counts = table.to_numpy(int)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    most = max(0.5, float(shares.max()))
    figure = Figure(figsize=(FIGURE_WIDTH, 1.4 + 0.62 * len(table)), layout="constrained")
    axes = figure.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=most, aspect="auto")
    for row in range(len(table)):
        for column in range(table.shape[1]):
            colour = "white" if shares[row, column] > 0.6 * most else "black"
            text = f"{counts[row, column]:,}\n{100 * shares[row, column]:.1f} %"
            axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=9)
    axes.set_xticks(range(table.shape[1]), [label(name, 16) for name in table.columns])
    axes.set_yticks(
        range(len(table)),
        [f"{label(name, 16)} ({n:,})" for name, n in zip(table.index, counts.sum(axis=1), strict=True)],
    )
    axes.set_title(f"{label(one)} × {label(other)}: images, and their share of the row (n = {len(found.table):,})")
    axes.tick_params(length=0)
    return figure


@styled
def plot_age_violins(found: DatasetProfile) -> Figure | None:
    """Age by group: the shape (violin), median, quartiles and whiskers (box). None without groups."""
    groups = group_columns(found.samples)[:4]
    if not groups:
        return None
    shown = {column: _largest(found.table, column) for column in groups}
    figure = Figure(figsize=(FIGURE_WIDTH, 3.5 * len(groups)), layout="constrained")
    for axes, (column, ages) in zip(np.atleast_1d(figure.subplots(len(groups), 1)), shown.items(), strict=True):
        palette = group_colors(found.summary["groups"][column])
        for place, (name, values) in enumerate(ages.items()):
            plot_violin(axes, place, values, palette[name])
        axes.set_xticks(range(len(ages)), [f"{label(name, 16)}\nn = {len(values):,}" for name, values in ages.items()])
        axes.set(ylabel="age (years)", ylim=(0, None), xlim=(-0.6, len(ages) - 0.4))
        axes.set_title(f"{label(found.card.title)}: age by {label(column)}")
        axes.grid(axis="y")
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def plot_violin(axes: Axes, place: int, values: np.ndarray, colour: str) -> None:
    """The shape of some numbers with their box at `place` on the horizontal axis; few of them as points."""
    if len(values) < _FEW or np.ptp(values) == 0:
        spread = np.random.default_rng(0).uniform(-0.08, 0.08, len(values))
        axes.plot(place + spread, values, "o", ms=5, mfc="white", mec=colour)
        return
    bodies: Any = axes.violinplot([values], [place], widths=0.85, showextrema=False, points=120)["bodies"]
    for body in bodies:
        body.set(facecolor=colour, edgecolor=colour, alpha=0.45)
    axes.boxplot(
        [values], positions=[place], widths=0.13, showfliers=False, patch_artist=True,
        boxprops={"facecolor": "white"}, medianprops={"color": "black", "lw": 2},
    )  # fmt: skip


@styled
def plot_population_pyramids(found: DatasetProfile) -> Figure | None:
    """Women to the left, men to the right, five years of age a bar; for all and for every race. None without gender."""
    table = found.table
    if not table["gender"].notna().any():
        return None
    races = _largest(table, "race", UNKNOWN) if table["race"].notna().any() else {}
    panels = [("all", table), *((name, table[labels_or_unknown(table["race"]).eq(name)]) for name in [*races][:5])]
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(FIGURE_WIDTH if columns > 1 else 5.5, 3.3 * rows + 0.3), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharey=True).ravel()
    palette = group_colors(["female", "male"])
    edges = np.arange(0, (int(table["age"].max()) // 5 + 1) * 5 + 1, 5)
    for axes, (name, members) in zip(grid, panels, strict=False):
        widest = 1
        for gender, sign in (("female", -1), ("male", 1)):
            counts = np.histogram(members.loc[members["gender"].eq(gender), "age"], edges)[0]
            axes.barh(edges[:-1] + 2.5, sign * counts, height=4.5, color=palette[gender])
            axes.set_yticks(edges[::2])
            widest = max(widest, int(counts.max()))
            corner = (0.03, 0.97) if sign < 0 else (0.97, 0.97)
            text = f"{gender}\n{counts.sum():,}"
            axes.text(
                *corner, text, transform=axes.transAxes, va="top", ha="left" if sign < 0 else "right", fontsize=8,
                color="black",
            )  # fmt: skip
        axes.axvline(0, color="black", lw=0.8)
        axes.set(xlim=(-1.12 * widest, 1.12 * widest), ylim=(0, edges[-1] * 1.14), xlabel="images")
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
def plot_splits(found: DatasetProfile) -> Figure | None:
    """Ages of train, val and test side by side, and the groups' shares in each. None where there is no division."""
    if "note" in found.summary["parts"]:
        return None
    table, groups = found.table, group_columns(found.samples)[:3]
    above, below = _halves(3.2, 2.8 if groups else 0)
    last = int(np.ceil(table["age"].max() / 5) * 5) + 5
    edges = np.arange(0, last + 1, 5)
    first: Axes | None = None
    for place, part in enumerate(SPLITS):
        axes = above.add_subplot(1, 3, place + 1, sharey=first)
        first = first or axes
        ages = table.loc[table["part"].eq(part), "age"]
        weights = np.full(len(ages), 100 / max(1, len(ages)))
        axes.hist(ages, edges, weights=weights, color=PART_COLOURS[part], rwidth=0.9)
        axes.axvline(ages.median(), color="black", ls="--", lw=1)
        axes.set_title(f"{part} (n = {len(ages):,}, median {ages.median():g})", fontsize=10)
        axes.set(xlabel="age (years)")
        axes.grid(axis="y")
        if place == 0:
            axes.set_ylabel("% of the part")
    for place, column in enumerate(groups):
        counts = found.summary["parts"]["groups"][column]
        _shares(below.add_subplot(1, len(groups), place + 1), column, counts, PART_COLOURS)
    figure: Figure = above.figure
    return figure


def _halves(upper: float, lower: float) -> tuple[Any, Any]:
    """Two parts of a figure, inches high, laid out each for itself; without a lower one both are the whole."""
    figure = Figure(figsize=(FIGURE_WIDTH, upper + lower), layout="constrained")
    if not lower:
        only = figure.subfigures(1, 1)
        return only, only
    halves: Any = figure.subfigures(2, 1, height_ratios=[upper, lower])
    return halves[0], halves[1]


def _shares(axes: Axes, column: str, counts: Mapping[str, Mapping[str, int]], palette: Mapping[str, str]) -> None:
    """Bars side by side: each set's share of every group."""
    names = sorted({name for of in counts.values() for name in of}, key=lambda name: (name == UNKNOWN, name))[
        :_MOST_GROUPS
    ]
    width = 0.8 / len(counts)
    for place, (key, of) in enumerate(counts.items()):
        total = max(1, sum(of.values()))
        heights = [100 * of.get(name, 0) / total for name in names]
        axes.bar(
            np.arange(len(names)) + (place - (len(counts) - 1) / 2) * width, heights, width * 0.9, color=palette[key]
        )
    axes.set_xticks(range(len(names)), [label(name, 12) for name in names], fontsize=9 if len(names) < 5 else 8)
    axes.set_title(f"{label(column)}: {', '.join(label(key) for key in counts)}", fontsize=10)
    axes.set_ylabel("% of each")
    axes.grid(axis="y")


@styled
def plot_comparison(first: DatasetProfile, second: DatasetProfile, palette: Mapping[str, str]) -> Figure:
    """Two datasets: their ages, as shares and cumulated, and the groups that both know."""
    shared = [column for column in group_columns(first.samples) if column in group_columns(second.samples)][:3]
    above, below = _halves(3.6, 2.8 if shared else 0)
    left, right = above.subplots(1, 2)
    years = np.arange(MAX_AGE + 1)
    last = max(float(of.table["age"].max()) for of in (first, second)) + 2
    for found in (first, second):
        counts = age_histogram(found.table["age"])
        name = f"{label(found.card.name)} (n = {len(found.table):,})"
        colour = palette[found.card.name]
        reach = np.convolve(np.ones(len(counts)), np.ones(3), "same")
        smooth = np.convolve(counts, np.ones(3), "same") / reach / counts.sum() * 100
        left.fill_between(years, smooth, color=colour, alpha=0.3, lw=0)
        left.plot(years, smooth, color=colour, lw=1.5, label=name)
        right.plot(years, 100 * counts.cumsum() / counts.sum(), color=colour, lw=2, drawstyle="steps-post")
    left.set(xlabel="age (years)", ylabel="% of images, a year", xlim=(0, last), ylim=(0, None))
    left.set_title("ages (mean over three years)", fontsize=10)
    right.set(xlabel="age (years)", ylabel="% of images up to this age", xlim=(0, last), ylim=(0, 101))
    right.set_title("cumulated", fontsize=10)
    for axes in (left, right):
        axes.grid(True)
    for place, column in enumerate(shared):
        counts_of = {of.card.name: of.summary["groups"][column] for of in (first, second)}
        _shares(below.add_subplot(1, len(shared), place + 1), column, counts_of, palette)
    above.legend(*left.get_legend_handles_labels(), loc="outside upper center", ncols=2)
    figure: Figure = above.figure
    return figure


def _largest(table: pd.DataFrame, column: str, without: str = "") -> dict[str, np.ndarray]:
    """Group -> its ages, the largest groups, `unknown` last."""
    ages = {str(name): rows.to_numpy(float) for name, rows in table["age"].groupby(labels_or_unknown(table[column]))}
    order: Sequence[str] = sorted(ages, key=lambda name: (name == UNKNOWN, -len(ages[name])))
    kept = sorted([name for name in order if name != without][:_MOST_GROUPS], key=lambda name: (name == UNKNOWN, name))
    return {name: ages[name] for name in kept}
