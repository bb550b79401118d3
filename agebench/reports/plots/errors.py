"""Where a run errs: error and loss against age, for all and for every group."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from agebench.metrics.bootstrap import ClusterBootstrap
from agebench.metrics.clustered_rates import row_clusters
from agebench.metrics.confidence_intervals import bootstrap_interval
from agebench.reports.plots.run import label
from agebench.reports.plots.style import GRAY, group_colors, styled
from agebench.utils.integrity import read_arrow

CAPTION = (
    "Mean absolute error{loss} by true age, five years a point, with 95 % intervals; points of fewer than 10 images "
    "are left out."
)
_LOSS = " and loss (negative log-likelihood of the true age)"
_WIDTH, _STEP, _LEAST, _MOST_GROUPS, _RESAMPLES = 9.0, 5, 10, 7, 300


def error_curves(folder: Path, metrics: Mapping[str, Any], palette: Mapping[str, str]) -> dict[str, tuple[Figure, str]]:
    """`errors-0` of the first test set, and so on: the figure and its caption. Test sets without predictions have none."""
    found = {}
    for place, (name, test) in enumerate(metrics["tests"].items()):
        file = folder / "predictions" / f"{name}.parquet"
        if file.exists():
            table = with_loss(folder, f"predictions/{name}.parquet")
            groupings = [key for key in test.get("groups") or {} if key in table and key != "age_band"][:3]
            caption = CAPTION.format(loss=_LOSS if "loss" in table else "")
            found[f"errors-{place}"] = (plot_error_curves(name, table, groupings, palette[name]), caption)
    return found


def with_loss(folder: Path, name: str) -> pd.DataFrame:
    """The predictions with `error` (years, absolute) and, where the head gives a distribution, `loss` (nats) of every image."""
    content = read_arrow(folder, name)
    ages = content.column("p").combine_chunks() if "p" in content.column_names else None
    table: pd.DataFrame = content.drop_columns(["p"] if ages is not None else []).to_pandas()
    table["error"] = (table["age_pred"] - table["age"]).abs()
    if ages is not None and len(table):
        probs = ages.flatten().to_numpy(zero_copy_only=False).reshape(len(table), -1).astype(np.float64)
        place = np.clip(table["age"].to_numpy(float).round().astype(int), 0, probs.shape[1] - 1)
        table["loss"] = -np.log(np.maximum(probs[np.arange(len(table)), place], 1e-6))
    elif "age_std" in table:
        std = np.maximum(table["age_std"].to_numpy(float), 0.1)
        table["loss"] = (table["error"] / std) ** 2 / 2 + np.log(std) + np.log(2 * np.pi) / 2
    return table


@styled
def plot_error_curves(name: str, table: pd.DataFrame, groupings: list[str], colour: str) -> Figure:
    """A row for all images and for every grouping, a column for the error and one for the loss where there is one."""
    measures = {"error": "MAE (years)", "loss": "mean loss (nats)"} if "loss" in table else {"error": "MAE (years)"}
    rows: list[tuple[str, Mapping[str, pd.DataFrame], Mapping[str, str]]] = [
        ("all images", {"all": table}, {"all": colour})
    ]
    for grouping in groupings:
        parts = {str(key): part for key, part in table.groupby(table[grouping].astype("object"))}
        largest = sorted(parts, key=lambda key: -len(parts[key]))[:_MOST_GROUPS]
        rows.append((grouping, {key: parts[key] for key in sorted(largest)}, group_colors(parts)))
    figure = Figure(figsize=(_WIDTH, 2.9 * len(rows)), layout="constrained")
    grid = figure.subplots(len(rows), len(measures), squeeze=False, sharex=True)
    for line, (title, parts_of, colours) in zip(grid, rows, strict=True):
        for axes, (measure, unit) in zip(line, measures.items(), strict=True):
            tops = [
                _curve(axes, part, measure, colours[key], key, small=len(parts_of) > 1)
                for key, part in parts_of.items()
            ]
            axes.set(ylabel=unit, xlabel="true age (years)")
            axes.set_title(f"{label(name)}: {unit.partition(' (')[0]}, {label(title)}", fontsize=10)
            axes.grid(True)
            axes.tick_params(labelbottom=True)
            if measure == "error" and max(tops) > 0:
                axes.set_ylim(0, (1.1 + 0.13 * (len(parts_of) // 2)) * max(tops))  # room for the legend
        if title != "all images":
            line[0].legend(fontsize=8, ncols=2, loc="upper left")
    return figure


def _curve(axes: Axes, table: pd.DataFrame, measure: str, colour: str, name: str, *, small: bool) -> float:
    """One group's curve; returns the height that the axis needs."""
    bins = np.floor(table["age"].to_numpy(float) / _STEP).astype(int)
    counts = np.bincount(bins)
    shown = np.flatnonzero(counts >= _LEAST)
    text = f"{label(name, 16)} (n = {len(table):,})"
    if not len(shown):
        axes.plot([], [], color=GRAY, label=f"{text}: too few")
        return 0.0
    kept = np.isin(bins, shown)
    codes = np.searchsorted(shown, bins[kept])
    features = np.stack([np.ones(kept.sum()), table[measure].to_numpy(float)[kept]], axis=1)
    resampler = ClusterBootstrap(features, [codes], row_clusters(table[kept]))
    made = resampler.replicates(lambda sums: sums[0][:, 1] / sums[0][:, 0], resamples=_RESAMPLES, seed=0)
    low, high = bootstrap_interval(made, "percentile")
    ages = np.bincount(codes, table["age"].to_numpy(float)[kept]) / np.bincount(codes)
    axes.plot(ages, made.value, "o-", ms=3, lw=1.5, color=colour, label=text)
    if np.isfinite(low).any():
        axes.fill_between(ages, low, high, color=colour, alpha=0.12 if small else 0.2, lw=0)
    return float(made.value.max())
