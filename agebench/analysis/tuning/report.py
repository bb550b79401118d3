"""A search as a page: a picture and a verdict a step."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from agebench.analysis.tuning.diagnostics import ema
from agebench.analysis.tuning.search import WINNER
from agebench.reports.document import CodeBlock, Document, Heading, Paragraph, TableBlock, figure_block, write_document
from agebench.reports.plots.run import learning_curves
from agebench.reports.plots.style import COLORS, GRAY

_WIDTH = 9.0  # inches


def write_tuning_report(folder: Path, found: Mapping[str, Any]) -> Path:
    """Write report.html, report.md and figures/ of a finished search; returns the HTML page."""
    best, run = found["best"], found["long_run"]
    page = Document(f"Tuning {found['model']} ({found['head']} head) on {found['train']}")
    page.add(
        Paragraph(
            f"Learning rate {best['lr']:g} and weight decay {best['weight_decay']:g} did best: validation MAE {run['val_mae']:.2f} "
            f"years in the long run (epoch {run['best_epoch']:.0f} of {len(run['history'])}).",
            strong=True,
        ),
        Paragraph(
            f"Every choice was made on the {found['images']['val']:,} images of the validation part; no test set was read. The "
            f"best of {len(found['trials'])} trials is a little lucky on the images that chose it: what it is worth, a test says."
        ),
        Paragraph("The same weights go on to the tests without training again:"),
        CodeBlock(test_command(folder)),
    )
    page.add(Heading("1. The untrained model"), Paragraph(found["untrained"]["verdict"]))
    page.add(
        Paragraph(_start_in_words(found["untrained"])),
        figure_block("untrained", plot_initial_loss(found["untrained"]), _CAPTIONS["untrained"]),
    )
    page.add(Heading("2. Learning by heart"), Paragraph(found["by_heart"]["verdict"]))
    page.add(figure_block("by-heart", plot_overfit(found["by_heart"]), _CAPTIONS["by-heart"]))
    page.add(Heading("3. The learning rate"), Paragraph(found["range_test"]["verdict"]))
    page.add(figure_block("range-test", plot_lr_range(found["range_test"]), _CAPTIONS["range-test"]))
    page.add(figure_block("trials", plot_trials(found["trials"]), _CAPTIONS["trials"]))
    page.add(
        Heading("4. Weight decay"),
        Paragraph(_told_apart(found)),
        figure_block("grid", plot_grid(found["trials"], best), _CAPTIONS["grid"]),
    )
    page.add(_table(found["trials"]))
    page.add(
        Heading("5. The long run"),
        figure_block("long-run", learning_curves(run["history"], COLORS[0]), _CAPTIONS["long-run"]),
    )
    return write_document(folder, page)["html"]


def test_command(folder: Path) -> str:
    """The command that tests the winner."""
    return (
        f"agebench run --config {shlex.quote(str(folder / WINNER))} --out {shlex.quote(str(folder / 'run'))} --resume"
    )


_CAPTIONS = {
    "untrained": "Loss of the untrained model on batches of training faces, and of its head on blank features.",
    "by-heart": "Learning a few images by heart: training error by epoch; dashed: always answering their median age.",
    "range-test": "Learning-rate range test: the loss as the rate rises step by step; thin: as measured, thick: smoothed.",
    "trials": "Left: validation MAE of each trial by learning rate, with 95 % intervals. Right: by epoch, at the recipe's decay.",
    "grid": "Validation MAE by learning rate and weight decay, in years; framed: the best.",
    "long-run": "The long run with the winner.",
}


def _start_in_words(found: Mapping[str, Any]) -> str:
    return (
        f"Its error is {found['mae']:.1f} years; always answering the training set's median age is off by "
        f"{found['mae_of_the_median']:.1f}."
    )


def _told_apart(found: Mapping[str, Any]) -> str:
    edge = _at_the_edge(found)
    others = found["not_told_apart"]
    if not others:
        return (
            "The best trial is better than every other one by more than chance, on the same validation images." + edge
        )
    return (
        f"{len(others)} of the other {len(found['trials']) - 1} trials cannot be told apart from the best on the same validation "
        f"images (95 %): {', '.join(others)}. Between those, choose as you like.{edge}"
    )


def _at_the_edge(found: Mapping[str, Any]) -> str:
    """A warning where the best learning rate is the highest or lowest that was tried."""
    tried = sorted({trial["lr"] for trial in found["trials"]})
    if found["search"] != "grid" or len(tried) < 3 or found["best"]["lr"] not in (tried[0], tried[-1]):
        return ""
    end = "highest" if found["best"]["lr"] == tried[-1] else "lowest"
    return f" The best learning rate is the {end} that was tried: search on beyond it, with --rates."


def _table(found: Sequence[Mapping[str, Any]]) -> TableBlock:
    rows = [
        [
            f"{trial['lr']:g}",
            f"{trial['weight_decay']:g}",
            "diverged"
            if trial["val_mae"] is None
            else f"{trial['val_mae']:.2f} [{trial['low']:.2f}, {trial['high']:.2f}]",
            f"{trial['seconds']:.0f}",
        ]
        for trial in found
    ]
    return TableBlock(["learning rate", "weight decay", "validation MAE (years)", "seconds"], rows)


def plot_initial_loss(found: Mapping[str, Any]) -> Figure:
    """Step 1."""
    figure, axes = _axes(2.6)
    places = np.arange(len(found["losses"])) + 1
    axes.plot(places, found["losses"], "o", color=COLORS[0], label="the untrained model")
    axes.plot(
        places, found["expected"], "D", color=GRAY, mfc="white", label="its head on blank features: what is right"
    )
    top = max([*found["losses"], *found["expected"]])
    axes.set(
        xlabel="batch", ylabel="loss", xticks=places, ylim=(min(0, *found["losses"]), 1.25 * top if top > 0 else None)
    )
    axes.set_title("Loss before any training", fontsize=11)
    axes.legend(frameon=False, loc="lower right", fontsize=9)
    return figure


def plot_overfit(found: Mapping[str, Any]) -> Figure:
    """Step 2."""
    figure, axes = _axes(2.9)
    axes.plot(
        [entry["epoch"] for entry in found["curve"]], [entry["mae"] for entry in found["curve"]], color=COLORS[0], lw=2
    )
    axes.axhline(found["mae_of_the_median"], color="black", ls="--", lw=1)
    axes.set(xlabel="epoch", ylabel="training MAE (years)", ylim=(0, None))
    axes.set_title(f"{found['images']} images by heart: off by {found['mae']:.2f} years in the end", fontsize=11)
    return figure


def plot_lr_range(found: Mapping[str, Any]) -> Figure:
    """Step 3, the range test."""
    figure, axes = _axes(3.2)
    axes.plot(found["rates"], found["losses"], color=COLORS[5], lw=0.8)
    axes.plot(found["rates"], ema(found["losses"]), color=COLORS[0], lw=2)
    axes.axvline(found["suggested"], color=COLORS[1], ls="--", lw=1.2)
    axes.set(xscale="log", xlabel="learning rate (logarithmic)", ylabel="training loss, at equal ages")
    axes.set_title(f"Range test, {len(found['rates'])} steps (dashed: {found['suggested']:.2g})", fontsize=11)
    return figure


def plot_trials(found: Sequence[Mapping[str, Any]]) -> Figure | None:
    """Step 3, the sweep: MAE by rate, and by epoch. None where all diverged."""
    done = [trial for trial in found if trial["val_mae"] is not None]
    if not done:
        return None
    figure = Figure(figsize=(_WIDTH, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    decays = sorted({trial["weight_decay"] for trial in done})
    for place, decay in enumerate(decays):
        of = sorted((trial for trial in done if trial["weight_decay"] == decay), key=lambda trial: float(trial["lr"]))
        nudge = 1.05 ** (place - (len(decays) - 1) / 2) if len(decays) < 7 else 1.0
        at, mae = [trial["lr"] * nudge for trial in of], [trial["val_mae"] for trial in of]
        reach = [trial["val_mae"] - trial["low"] for trial in of]
        colour = COLORS[place % len(COLORS)] if len(decays) <= 6 else COLORS[0]
        name = f"weight decay {decay:g}" if len(decays) <= 6 else None
        left.errorbar(at, mae, yerr=reach, fmt="o", color=colour, capsize=2, ms=5, label=name)
    if len(decays) <= 6:
        left.legend(frameon=False, fontsize=8)
    left.set(xscale="log", xlabel="learning rate (logarithmic)", ylabel="validation MAE (years)")
    left.xaxis.set_minor_formatter(NullFormatter())
    left.set_title(
        f"{len(done)} trials" + (f", {len(found) - len(done)} diverged" if len(done) < len(found) else ""), fontsize=11
    )
    first = found[0]["weight_decay"]
    shown = [trial for trial in done if trial["weight_decay"] == first] if len(decays) <= 6 else done
    for place, trial in enumerate(sorted(shown, key=lambda trial: float(trial["val_mae"]))[:6]):
        epochs = [entry["epoch"] for entry in trial["history"]]
        values = [entry["val_mae"] for entry in trial["history"]]
        style = ("-", "--", "-.", ":", "-", "--")[place]
        right.plot(epochs, values, f"o{style}", ms=4, color=COLORS[place % 7], label=f"learning rate {trial['lr']:g}")
    right.set(
        xlabel="epoch", ylabel="validation MAE (years)", xticks=range(1, max(trial["epochs"] for trial in done) + 1)
    )
    right.set_title("by epoch", fontsize=11)
    right.legend(frameon=False, fontsize=8)
    for axes in (left, right):
        axes.grid(alpha=0.3)
    return figure


def plot_grid(found: Sequence[Mapping[str, Any]], best: Mapping[str, Any]) -> Figure | None:
    """Step 4 as a heat map. None where the trials are no grid."""
    decays = sorted({trial["weight_decay"] for trial in found})
    by_rate = {trial["lr"] for trial in found if sum(other["lr"] == trial["lr"] for other in found) > 1}
    if not by_rate or len(decays) > 8 or len(by_rate) > 8:
        return None
    names = sorted(by_rate)
    values = {(trial["lr"], trial["weight_decay"]): trial["val_mae"] for trial in found}
    table = np.array([[values.get((rate, decay)) for decay in decays] for rate in names], float)
    figure = Figure(figsize=(_WIDTH, 1.5 + 0.6 * len(names)), layout="constrained")
    axes = figure.subplots()
    drawn_map = axes.imshow(table, cmap="cividis_r", aspect="auto")
    figure.colorbar(drawn_map, ax=axes, label="validation MAE (years)")
    middle = float(np.nanmean([np.nanmin(table), np.nanmax(table)]))
    for row, rate in enumerate(names):
        for column, decay in enumerate(decays):
            value = table[row, column]
            text = "–" if np.isnan(value) else f"{value:.2f}"
            axes.text(column, row, text, ha="center", va="center", color="white" if value > middle else "black")
            if (rate, decay) == (best["lr"], best["weight_decay"]):
                axes.plot(
                    column + np.array([-0.48, 0.48, 0.48, -0.48, -0.48]), row + np.array([-0.46, -0.46, 0.46, 0.46, -0.46]),
                    color=COLORS[1], lw=3,
                )  # fmt: skip
    axes.set_xticks(range(len(decays)), [f"{decay:g}" for decay in decays])
    axes.set_yticks(range(len(names)), [f"{rate:g}" for rate in names])
    axes.set(xlabel="weight decay", ylabel="learning rate")
    axes.set_title("Validation MAE (years); framed: the best", fontsize=11)
    return figure


def _axes(height: float) -> tuple[Figure, Any]:
    figure = Figure(figsize=(_WIDTH, height), layout="constrained")
    axes = figure.subplots()
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes
