"""The figure of the splits of a protocol."""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from agebench.reports.formatting import format_count, format_number
from agebench.reports.plots.style import FIGURE_WIDTH, SPLIT_COLORS, styled

_COLORS = {"train": SPLIT_COLORS["train"], "valid": SPLIT_COLORS["val"], "test": SPLIT_COLORS["test"]}


@styled
def ages_of_parts(folder: Path) -> Figure | None:
    """Plot age histograms of the splits that the run of a protocol saves in `lists/`.

    Args:
        folder: the folder of the run.

    Returns:
        The figure, or None if the run has no such files.
    """
    files = {split: folder / "lists" / f"{split}.csv" for split in _COLORS}
    if not all(file.exists() for file in files.values()):
        return None
    ages = {split: pd.read_csv(file, usecols=["age"])["age"].to_numpy(float) for split, file in files.items()}
    all_ages = np.concatenate(list(ages.values()))
    bins = np.arange(np.floor(all_ages.min()), np.floor(all_ages.max()) + 2)
    figure = Figure(figsize=(FIGURE_WIDTH, 3.0), layout="constrained")
    for axes, (split, values) in zip(figure.subplots(1, 3, sharex=True), ages.items(), strict=True):
        axes.hist(values, bins=list(bins), color=_COLORS[split])
        axes.set_title(
            f"{split}: {format_count(len(values))} images, median {format_number(float(np.median(values)), digits=0)}",
        )
        axes.set(xlabel="age (years)", ylabel="images" if split == "train" else "")
        axes.grid(axis="y")
    return figure
