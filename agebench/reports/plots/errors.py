"""Error and loss by age, overall and by group."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from agebench.metrics.bootstrap import ClusterBootstrap
from agebench.metrics.clustered_rates import row_clusters
from agebench.metrics.confidence_intervals import bootstrap_interval
from agebench.metrics.schema import MetricsFile
from agebench.reports.plots.run import label
from agebench.reports.plots.style import FIGURE_WIDTH, GRAY, group_colors, styled
from agebench.utils.integrity import read_arrow

CAPTION = (
    "Mean absolute error{loss} by true age, five years per point, with 95 % intervals; points with fewer than 10 images "
    "are omitted."
)
_LOSS = " and loss (negative log-likelihood of the true age)"
_STEP = 5  # years
_MIN_IMAGES, _MAX_GROUPS, _RESAMPLES = 10, 7, 300


def error_curves(folder: Path, metrics: MetricsFile, palette: Mapping[str, str]) -> dict[str, tuple[Figure, str]]:
    """Plot the errors of each test set with predictions.

    Args:
        folder: the folder of the run.
        metrics: the run's metrics.
        palette: the color of each dataset by name.

    Returns:
        The figures and their captions by name: `errors-0` for the first test set, and so on.
    """
    figures = {}
    for index, (name, test) in enumerate(metrics.tests.items()):
        file = folder / "predictions" / f"{name}.parquet"
        if file.exists():
            table = _with_loss(folder, f"predictions/{name}.parquet")
            groupings = [key for key in test.groups if key in table and key != "age_band"][:3]
            caption = CAPTION.format(loss=_LOSS if "loss" in table else "")
            figures[f"errors-{index}"] = (_plot_error_curves(name, table, groupings, palette[name]), caption)
    return figures


def _with_loss(folder: Path, name: str) -> pd.DataFrame:
    """Read predictions and add the error and, if the head predicts a distribution, the loss.

    Args:
        folder: the folder of the run.
        name: the path of the predictions in the folder.

    Returns:
        One row per image with the additional columns `error` (absolute, years) and `loss` (negative log-likelihood, nats).
    """
    content = read_arrow(folder, name)
    ages = content.column("p").combine_chunks() if "p" in content.column_names else None
    table: pd.DataFrame = content.drop_columns(["p"] if ages is not None else []).to_pandas()
    table["error"] = (table["age_pred"] - table["age"]).abs()
    if ages is not None and len(table):
        probs = ages.flatten().to_numpy(zero_copy_only=False).reshape(len(table), -1).astype(np.float64)
        index = np.clip(table["age"].to_numpy(float).round().astype(int), 0, probs.shape[1] - 1)
        table["loss"] = -np.log(np.maximum(probs[np.arange(len(table)), index], 1e-6))
    elif "age_std" in table:
        std = np.maximum(table["age_std"].to_numpy(float), 0.1)
        table["loss"] = (table["error"] / std) ** 2 / 2 + np.log(std) + np.log(2 * np.pi) / 2
    return table


@styled
def _plot_error_curves(name: str, table: pd.DataFrame, groupings: list[str], color: str) -> Figure:
    """Plot error and loss by age: one row for all images and one per grouping.

    Args:
        name: the name of the test set.
        table: the result of `_with_loss`.
        groupings: group columns of `table`.
        color: the color of the test set.

    Returns:
        The figure.
    """
    measures = {"error": "MAE (years)", "loss": "mean loss (nats)"} if "loss" in table else {"error": "MAE (years)"}
    rows: list[tuple[str, Mapping[str, pd.DataFrame], Mapping[str, str]]] = [
        ("all images", {"all": table}, {"all": color})
    ]
    for grouping in groupings:
        by_group = {str(key): rows_of_group for key, rows_of_group in table.groupby(table[grouping].astype("object"))}
        largest = sorted(by_group, key=lambda key: -len(by_group[key]))[:_MAX_GROUPS]
        rows.append((grouping, {key: by_group[key] for key in sorted(largest)}, group_colors(by_group)))
    figure = Figure(figsize=(FIGURE_WIDTH, 2.9 * len(rows)), layout="constrained")
    grid = figure.subplots(len(rows), len(measures), squeeze=False, sharex=True)
    for line, (title, groups, colors) in zip(grid, rows, strict=True):
        for axes, (measure, unit) in zip(line, measures.items(), strict=True):
            tops = [
                _plot_curve(axes, group, measure, colors[key], key, faint=len(groups) > 1)
                for key, group in groups.items()
            ]
            axes.set(ylabel=unit, xlabel="true age (years)")
            axes.set_title(f"{label(name)}: {unit.partition(' (')[0]}, {label(title)}", fontsize=10)
            axes.grid(True)
            axes.tick_params(labelbottom=True)
            if measure == "error" and max(tops) > 0:
                axes.set_ylim(0, (1.1 + 0.13 * (len(groups) // 2)) * max(tops))  # room for the legend
        if title != "all images":
            line[0].legend(fontsize=8, ncols=2, loc="upper left")
    return figure


def _plot_curve(axes: Axes, table: pd.DataFrame, measure: str, color: str, name: str, *, faint: bool) -> float:
    """Plot the curve of one group, and return its maximum."""
    bins = np.floor(table["age"].to_numpy(float) / _STEP).astype(int)
    counts = np.bincount(bins)
    bins_shown = np.flatnonzero(counts >= _MIN_IMAGES)
    text = f"{label(name, 16)} (n = {len(table):,})"
    if not len(bins_shown):
        axes.plot([], [], color=GRAY, label=f"{text}: too few")
        return 0.0
    selected = np.isin(bins, bins_shown)
    codes = np.searchsorted(bins_shown, bins[selected])
    features = np.stack([np.ones(selected.sum()), table[measure].to_numpy(float)[selected]], axis=1)
    resampler = ClusterBootstrap(features, [codes], row_clusters(table[selected]))
    bootstrap = resampler.replicates(lambda sums: sums[0][:, 1] / sums[0][:, 0], resamples=_RESAMPLES, seed=0)
    low, high = bootstrap_interval(bootstrap, "percentile")
    ages = np.bincount(codes, table["age"].to_numpy(float)[selected]) / np.bincount(codes)
    axes.plot(ages, bootstrap.value, "o-", ms=3, lw=1.5, color=color, label=text)
    if np.isfinite(low).any():
        axes.fill_between(ages, low, high, color=color, alpha=0.12 if faint else 0.2, lw=0)
    return float(bootstrap.value.max())
