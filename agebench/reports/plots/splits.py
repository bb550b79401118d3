"""The picture of how a protocol divides a dataset."""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from agebench.reports.formatting import format_count, format_number
from agebench.reports.plots.style import FIGURE_WIDTH, SPLIT_COLORS, styled

_COLOURS = {"train": SPLIT_COLORS["train"], "valid": SPLIT_COLORS["val"], "test": SPLIT_COLORS["test"]}


@styled
def ages_of_parts(folder: Path) -> Figure | None:
    """How old the faces of train, valid and test are: histograms of the lists that a protocol's run saves.

    Args:
        folder: the run's.

    Returns:
        None where there are no such lists.
    """
    files = {part: folder / "lists" / f"{part}.csv" for part in _COLOURS}
    if not all(file.exists() for file in files.values()):
        return None
    ages = {part: pd.read_csv(file, usecols=["age"])["age"].to_numpy(float) for part, file in files.items()}
    every = np.concatenate(list(ages.values()))
    bins = np.arange(np.floor(every.min()), np.floor(every.max()) + 2)
    figure = Figure(figsize=(FIGURE_WIDTH, 3.0), layout="constrained")
    for axes, (part, values) in zip(figure.subplots(1, 3, sharex=True), ages.items(), strict=True):
        axes.hist(values, bins=list(bins), color=_COLOURS[part])
        axes.set_title(
            f"{part}: {format_count(len(values))} images, median {format_number(float(np.median(values)), digits=0)}",
        )
        axes.set(xlabel="age (years)", ylabel="images" if part == "train" else "")
        axes.grid(axis="y")
    return figure
