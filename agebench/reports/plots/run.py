"""Figures of a run, drawn without a display, with one color per dataset."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap, LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from agebench.metrics.schema import GroupMetrics, MetricsFile, MetricValue, TestResult
from agebench.reports.formatting import MIN_GROUP, format_count, format_number, group_name, is_below_min_n, sanitize
from agebench.reports.plots.style import COLORS, FIGURE_WIDTH, GRAY, SPLIT_COLORS, styled
from agebench.utils.integrity import read_table
from agebench.utils.io import atomic_write

_DPI = 130
_MAX_POINTS = 2500  # more images are shown as a density, because points would hide each other
_MAX_GROUPS = 40
_BAND = re.compile(r"(\d+)(?:-(\d+)|\+)")

CAPTIONS = {
    "ages": "Ages in the three splits, which are listed in lists/train.csv, valid.csv and test.csv.",
    "cumulative": "CS@k of each test set; shaded: 95 % interval.",
    "error": "Points: age bands with 95 % intervals. Hollow: too few images to compare; their intervals may exceed the axes. "
    "Lines: moving average over five years of age.",
    "groups": "MAE by group; gray: age-standardized MAE. Hollow: too few images to compare; their intervals may exceed the axes.",
    "learning": "Loss, MAE, learning rate and speed by epoch; circled: the epoch of the final weights.",
    "scatter": f"Each point is an image (above {_MAX_POINTS:,} images: density). Dashed line: perfect prediction.",
}


def dataset_colors(train: str | None, tests: Iterable[str]) -> dict[str, str]:
    """Assign a color to each dataset: blue to the training set, and further colors to the test sets in their order."""
    names = dict.fromkeys([*([train] if train else []), *tests])
    return {name: COLORS[place % len(COLORS)] for place, name in enumerate(names)}


@styled
def save(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, atomically."""
    figure.set_dpi(_DPI)
    with atomic_write(path) as temporary:
        # `savefig` would draw a figure with a constrained layout twice.
        FigureCanvasAgg(figure).print_png(temporary)  # type: ignore[no-untyped-call]


def label(name: object, most: int = 34) -> str:
    """Shorten a name and escape matplotlib's math mode."""
    text = sanitize(name)
    text = text if len(text) <= most else text[: most - 1] + "…"
    return text.replace("\\", "/").replace("$", r"\$")


def _band_ages(band: str) -> tuple[float, float]:
    """Parse the name of an age band, such as `0-12`.

    Args:
        band: the name.

    Returns:
        The start (inclusive) and the end (exclusive) in years, such as (0, 13); an open band is drawn 20 years wide.

    Raises:
        ValueError: `band` is not the name of an age band.
    """
    found = _BAND.fullmatch(band)
    if not found:
        raise ValueError(f"'{band}' is not an age band")
    low = float(found[1])
    return low, float(found[2]) + 1 if found[2] else low + 20


def plot_run(folder: Path, metrics: MetricsFile, history: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Write every figure that a run has into its `figures/`.

    Args:
        folder: the folder of the run; `predictions/<test>.parquet` is read if it exists.
        metrics: the content of metrics.json.
        history: the content of history.json.

    Returns:
        The captions of the figures by name, such as `groups-0` for the first test set.
    """
    files = {name: f"predictions/{name}.parquet" for name in metrics.tests}
    predictions = {
        name: read_table(folder, file, ["age", "age_pred"]) for name, file in files.items() if (folder / file).exists()
    }
    blue = next(iter(dataset_colors(metrics.train or "", ["-"]).values()))
    learning = learning_curves(history, blue) if history else None
    more = {"learning-curves": learning, "ages-of-parts": _ages_of_splits(folder)}
    return plot_tests(folder, figures_of_tests(metrics, predictions) | more, CAPTIONS)


def figures_of_tests(metrics: MetricsFile, predictions: Mapping[str, pd.DataFrame]) -> dict[str, Figure | None]:
    """The figures that every metrics.json has, with predictions (age, age_pred) of a test set where they are known."""
    tests = metrics.tests
    palette = dataset_colors(metrics.train, tests)
    return {
        "scatter": scatter(predictions, tests, palette) if predictions else None,
        "error-by-age": _error_by_age(tests, predictions, palette),
        "cumulative-scores": _cumulative_scores(tests, palette),
        **{f"groups-{place}": groups(name, test, palette[name]) for place, (name, test) in enumerate(tests.items())},
    }


def plot_tests(folder: Path, made: Mapping[str, Figure | None], captions: Mapping[str, str]) -> dict[str, str]:
    """Write figures to `folder/figures`, and return their captions, which are selected by the first word of the name."""
    drawn = {name: figure for name, figure in made.items() if figure is not None}
    for name, figure in drawn.items():
        save(figure, folder / "figures" / f"{name}.png")
    return {name: captions[name.partition("-")[0]] for name in drawn}


@styled
def scatter(
    predictions: Mapping[str, pd.DataFrame], tests: Mapping[str, TestResult], palette: Mapping[str, str]
) -> Figure:
    """Predicted against true age, one panel a test set; points, or a density where there are many.

    Args:
        predictions: the tables of `age` and `age_pred` in years by test set.
        tests: the test sets of metrics.json, for n and MAE.
        palette: the color of each dataset by name.

    Returns:
        The figure.
    """
    columns = min(len(predictions), 2 if len(predictions) <= 4 else 3)
    rows = -(-len(predictions) // columns)
    side = 5.0 if columns == 1 else FIGURE_WIDTH / columns
    figure = Figure(figsize=(side * columns, side * rows), layout="constrained")
    ages = np.concatenate([table[["age", "age_pred"]].to_numpy(float).ravel() for table in predictions.values()])
    low, high = min(0.0, float(np.floor(ages.min()))) - 1, float(np.ceil(ages.max())) + 1
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).ravel()
    for axes, (name, table) in zip(grid, predictions.items(), strict=False):
        _panel(axes, table["age"].to_numpy(float), table["age_pred"].to_numpy(float), palette[name])
        axes.plot([low, high], [low, high], color="black", lw=0.8, ls="--")
        mae = tests[name].metric("mae").value
        axes.set_title(f"{label(name, 26)}\nn = {len(table):,}, MAE {format_number(mae)} years", fontsize=10)
        axes.set(xlim=(low, high), ylim=(low, high), aspect="equal", xlabel="true age (years)")
        axes.set_ylabel("predicted age (years)")
        axes.tick_params(labelbottom=True, labelleft=True)
    for axes in grid[len(predictions) :]:
        axes.remove()
    return figure


def _panel(axes: Axes, age: np.ndarray, predicted: np.ndarray, color: str) -> None:
    if len(age) <= _MAX_POINTS:
        size, alpha = (9, 0.4) if len(age) > 300 else (25, 0.7)
        axes.scatter(age, predicted, s=size, alpha=alpha, linewidths=0, color=color)
        return
    # One bin per year, centered on whole years, because most labels are whole years.
    edges = np.arange(np.floor(min(age.min(), predicted.min())) - 0.5, np.ceil(max(age.max(), predicted.max())) + 1)
    counts = np.histogram2d(age, predicted, bins=(edges, edges))[0].T
    shades = LinearSegmentedColormap.from_list("density", ["#CCCCCC", color, "#000000"])
    norm = LogNorm(vmin=1, vmax=max(counts.max(), 10))
    drawn = axes.pcolormesh(edges, edges, np.ma.masked_equal(counts, 0), cmap=shades, norm=norm)
    axes.figure.colorbar(drawn, ax=axes, label="images per bin of 1 × 1 year", shrink=0.7, format="%d")


@styled
def _error_by_age(
    tests: Mapping[str, TestResult], predictions: Mapping[str, pd.DataFrame], palette: Mapping[str, str]
) -> Figure | None:
    """Plot MAE and bias by true age: age bands with 95 % intervals, and a moving average over five years of age.

    The axes do not cover the intervals of small bands, which would compress all others.

    Args:
        tests: the test sets of metrics.json.
        predictions: the available tables of `age` and `age_pred` in years by test set.
        palette: the color of each dataset by name.

    Returns:
        The figure, or None without age bands.
    """
    found = {
        name: {band: entry for band, entry in test.groups.get("age_band", {}).items() if _BAND.fullmatch(band)}
        for name, test in tests.items()
    }
    bands = sorted({band for groups in found.values() for band in groups}, key=_band_ages)
    if not bands:
        return None
    figure = Figure(figsize=(FIGURE_WIDTH, 6.4), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True)
    middles = {band: sum(_band_ages(band)) / 2 for band in bands}
    for axes, key, title in ((upper, "mae", "Mean absolute error"), (lower, "bias", "Bias: predicted − true")):
        for band in bands[::2]:
            axes.axvspan(*_band_ages(band), color="black", alpha=0.04, lw=0)
        for place, (name, groups) in enumerate(found.items()):
            if name in predictions:
                axes.plot(*_running_mean(predictions[name], key), color=palette[name], lw=2, alpha=0.35)
            nudge = (place - (len(found) - 1) / 2) * min(1.2, 4 / len(found))
            for band, entry in groups.items():
                _point(axes, middles[band] + nudge, getattr(entry, key), palette[name], hollow=is_below_min_n(entry))
        axes.set_title(title, fontsize=11)
        axes.set(ylabel="years", ylim=_reach([entry for groups in found.values() for entry in groups.values()], key))
        axes.grid(axis="y")
    lower.axhline(0, color="black", lw=0.8)
    lower.set_xticks(list(middles.values()), bands)
    lower.set(xlabel="true age (years)", xlim=(_band_ages(bands[0])[0], _band_ages(bands[-1])[1]))
    _legend(figure, tests, palette)
    return figure


def _running_mean(table: pd.DataFrame, key: str, reach: float = 2.0) -> tuple[np.ndarray, np.ndarray]:
    """Return ages in steps of one year, and the mean (absolute) error within `reach` years, NaN for few images."""
    ordered = table.sort_values("age")
    age = ordered["age"].to_numpy(float)
    error = (ordered["age_pred"] - ordered["age"]).to_numpy(float)
    sums = np.concatenate([[0.0], np.cumsum(np.abs(error) if key == "mae" else error)])
    years = np.arange(np.floor(age[0]), np.ceil(age[-1]) + 1)
    first, last = np.searchsorted(age, years - reach), np.searchsorted(age, years + reach, side="right")
    n = last - first
    return years, np.where(n >= MIN_GROUP, (sums[last] - sums[first]) / np.maximum(n, 1), np.nan)


@styled
def _cumulative_scores(tests: Mapping[str, TestResult], palette: Mapping[str, str]) -> Figure | None:
    """CS@k of every test set, with 95 % intervals where there are any. None where no test set has the scores."""
    shown = {name: test for name, test in tests.items() if test.cs}
    if not shown:
        return None
    figure = Figure(figsize=(FIGURE_WIDTH, 4.2), layout="constrained")
    axes = figure.subplots()
    for name, test in shown.items():
        levels = np.arange(len(test.cs))
        axes.plot(
            levels, 100 * np.array(test.cs, float), "o-", ms=4, color=palette[name], clip_on=False, label=label(name)
        )
        scores = [test.metric(f"cs{level}") for level in levels]
        low = 100 * np.array([score.ci_low for score in scores], float)
        high = 100 * np.array([score.ci_high for score in scores], float)
        axes.fill_between(levels, low, high, color=palette[name], alpha=0.15, lw=0)
    axes.set_title("Cumulative score: CS@k, the share of images that are off by at most k years")
    axes.set(xlabel="k (years)", ylabel="CS@k (% of images)", ylim=(0, 100))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlim(left=0)
    axes.grid(True)
    _legend(figure, shown, palette)
    return figure


@styled
def groups(name: str, test: TestResult, color: str) -> Figure | None:
    """MAE of every group, as it is and at equal ages, with 95 % intervals; small groups hollow. None without groups."""
    found = {key: entries for key, entries in test.groups.items() if key != "age_band" and entries}
    rows = [(grouping, group, entry) for grouping, entries in found.items() for group, entry in entries.items()]
    if not rows:
        return None
    largest = sorted(rows, key=lambda row: -row[2].n)[:_MAX_GROUPS]
    rows = [row for row in rows if row in largest]
    figure = Figure(figsize=(FIGURE_WIDTH, 1.3 + 0.27 * (len(rows) + len(found))), layout="constrained")
    axes = figure.subplots()
    labels: list[str] = []
    headings = []
    for row, (grouping, group, entry) in enumerate(rows):
        if not row or grouping != rows[row - 1][0]:
            headings.append(len(labels))
            labels.append(label(group_name(grouping, grouping)))
        even = entry.age_standardized_mae
        nudge = 0.14 if even else 0.0
        _point(axes, len(labels) - nudge, entry.mae, color, hollow=is_below_min_n(entry), flat=True)
        _point(axes, len(labels) + nudge, even, GRAY, flat=True, marker="D", hollow=is_below_min_n(entry))
        labels.append(f"{label(group_name(grouping, group))} (n = {entry.n:,})")
    axes.set_yticks(range(len(labels)), labels)
    for place in headings:
        axes.get_yticklabels()[place].set_fontweight("bold")
    overall = test.metric("mae").value
    if overall is not None:
        axes.axvline(overall, color="black", lw=0.8, ls="--")
    axes.set(
        ylim=(len(labels) - 0.4, -0.6),
        xlim=_reach([entry for _, _, entry in rows], "mae", "age_standardized_mae", zero=False),
    )
    axes.set_title(f"{label(name)}: MAE by group (dashed: all images, {format_number(overall)})")
    axes.set_xlabel("mean absolute error (years), 95 % interval")
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")
    return figure


@styled
def learning_curves(history: Sequence[Mapping[str, Any]], color: str) -> Figure | None:
    """Plot loss, MAE, learning rate and speed by epoch; None without recorded epochs."""
    if not history:
        return None
    figure = Figure(figsize=(FIGURE_WIDTH, 5.6), layout="constrained")
    epochs = np.array([entry["epoch"] for entry in history], float)
    size = 5 if len(history) <= 40 else 2
    panels = {"loss": "Training loss", "val_mae": "Validation MAE", "lr": "Learning rate", "images_per_s": "Speed"}
    units = ("loss", "MAE (years)", "learning rate at the epoch's end", "images/s")
    for axes, (key, title), unit in zip(figure.subplots(2, 2).ravel(), panels.items(), units, strict=True):
        values = np.array([entry.get(key) for entry in history], float)
        axes.plot(epochs, values, "o-", ms=size, color=color, label="validation")
        if key == "val_mae" and np.isfinite(values).any():
            best = int(np.nanargmin(values))
            axes.plot(epochs[best], values[best], "o", ms=12, mfc="none", mec="black")
            title += f" (lowest: {values[best]:.2f} in epoch {epochs[best]:.0f})"
            training = np.array([entry.get("train_mae") for entry in history], float)
            if np.isfinite(training).any():
                axes.plot(epochs, training, "s--", ms=size, color=GRAY, label="training, during the epoch")
                axes.legend(fontsize=8)
        axes.set_title(title)
        axes.set(xlabel="epoch", ylabel=unit, xlim=(epochs[0] - 0.5, epochs[-1] + 0.5))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.grid(True)
    return figure


def _point(
    axes: Axes,
    place: float,
    metric: MetricValue | None,
    color: str,
    *,
    hollow: bool = False,
    flat: bool = False,
    marker: str = "o",
) -> None:
    """A figure and its interval at `place` along x, or, lying `flat`, along y. Nothing where there is no value."""
    if metric is None or metric.value is None:
        return
    if metric.ci_low is not None and metric.ci_high is not None:
        ends, places = [metric.ci_low, metric.ci_high], [place, place]
        axes.plot(*((ends, places) if flat else (places, ends)), color=color, lw=1.5)
    spot = (metric.value, place) if flat else (place, metric.value)
    axes.plot(*spot, marker, ms=5.5 if marker == "o" else 4, color=color, mfc="white" if hollow else color, zorder=3)


def _reach(entries: Sequence[GroupMetrics], *keys: str, zero: bool = True) -> tuple[float | None, float | None]:
    """Limits of an axis that hold every value, the intervals of groups that are not small and, with `zero`, the zero."""
    inside = [0.0] if zero else []
    some_large = not all(map(is_below_min_n, entries))
    for entry in entries:
        ends = ("value",) if some_large and is_below_min_n(entry) else ("value", "ci_low", "ci_high")
        found = [getattr(getattr(entry, key) or MetricValue(), end) for key in keys for end in ends]
        inside += [value for value in found if value is not None]
    if not inside:
        return None, None
    low, high = min(inside), max(inside)
    margin = 0.08 * (high - low) or 0.5
    return low - margin * (low != 0 or not zero), high + margin * (high != 0 or not zero)


def _legend(figure: Figure, tests: Mapping[str, TestResult], palette: Mapping[str, str]) -> None:
    """One line of names above the panels, with n."""
    names = [f"{label(name)} (n = {test.n:,})" for name, test in tests.items()]
    marks = [Line2D([], [], color=palette[name], marker="o", lw=1.5) for name in tests]
    columns = 3 if max(map(len, names)) <= 30 else 2
    figure.legend(marks, names, loc="outside upper center", ncols=columns)


# Names of files in `lists/` -> colors of their splits.
_LIST_COLORS = {"train": SPLIT_COLORS["train"], "valid": SPLIT_COLORS["val"], "test": SPLIT_COLORS["test"]}


@styled
def _ages_of_splits(folder: Path) -> Figure | None:
    """Plot age histograms of the splits that the run of a protocol saves in `lists/`.

    Args:
        folder: the folder of the run.

    Returns:
        The figure, or None if the run has no such files.
    """
    files = {split: folder / "lists" / f"{split}.csv" for split in _LIST_COLORS}
    if not all(file.exists() for file in files.values()):
        return None
    ages = {split: pd.read_csv(file, usecols=["age"])["age"].to_numpy(float) for split, file in files.items()}
    all_ages = np.concatenate(list(ages.values()))
    bins = np.arange(np.floor(all_ages.min()), np.floor(all_ages.max()) + 2)
    figure = Figure(figsize=(FIGURE_WIDTH, 3.0), layout="constrained")
    for axes, (split, values) in zip(figure.subplots(1, 3, sharex=True), ages.items(), strict=True):
        axes.hist(values, bins=list(bins), color=_LIST_COLORS[split])
        axes.set_title(
            f"{split}: {format_count(len(values))} images, median {format_number(float(np.median(values)), digits=0)}",
        )
        axes.set(xlabel="age (years)", ylabel="images" if split == "train" else "")
        axes.grid(axis="y")
    return figure
