"""The report of a hyperparameter search: one figure and one verdict per step."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from agebench.analysis.tuning.diagnostics import ema
from agebench.analysis.tuning.schema import InitialLoss, OverfitResult, RangeTestResult, Trial, TuneResult
from agebench.analysis.tuning.search import WINNER
from agebench.reports.document import CodeBlock, Document, Heading, Paragraph, TableBlock, figure_block, write_document
from agebench.reports.plots.run import learning_curves
from agebench.reports.plots.style import COLORS, FIGURE_WIDTH, GRAY, styled

_CAPTIONS = {
    "untrained": "Loss of the untrained model on batches of training faces, and of its head on all-zero features.",
    "by-heart": "Overfitting a small subset: training error by epoch; dashed: the median-age baseline.",
    "range-test": "Learning-rate range test: the loss as the learning rate increases; thin: per step, thick: smoothed.",
    "trials": "Left: validation MAE of each trial by learning rate, with 95 % intervals. Right: by epoch, with the recipe's weight "
    "decay.",
    "grid": "Validation MAE by learning rate and weight decay, in years; framed: the best trial.",
    "long-run": "Training with the best settings.",
}
_MAX_DECAY_SERIES = 6
_MAX_EPOCH_CURVES = 6
_MAX_GRID_SIDE = 8


def write_tuning_report(folder: Path, result: TuneResult) -> Path:
    """Write report.html, report.md and figures/ of a finished search.

    Args:
        folder: the folder of the search.
        result: the content of tune.json.

    Returns:
        The path of report.html.
    """
    best, trials = result.best, result.trials
    document = Document(f"Tuning {result.model} ({result.head} head) on {result.train}")
    _add_summary(document, result, folder)
    document.add(
        Heading("1. Initial loss"),
        Paragraph(result.untrained.verdict),
        Paragraph(
            f"The untrained model's MAE is {result.untrained.mae:.1f} years; the baseline that always predicts the training "
            f"set's median age has {result.untrained.mae_of_the_median:.1f}."
        ),
        figure_block("untrained", _plot_initial_loss(result.untrained), _CAPTIONS["untrained"]),
        Heading("2. Overfitting a small subset"),
        Paragraph(result.by_heart.verdict),
        figure_block("by-heart", _plot_overfit(result.by_heart), _CAPTIONS["by-heart"]),
        Heading("3. Learning rate"),
        Paragraph(result.range_test.verdict),
        figure_block("range-test", _plot_lr_range(result.range_test), _CAPTIONS["range-test"]),
        figure_block("trials", _plot_trials(trials), _CAPTIONS["trials"]),
        Heading("4. Weight decay"),
        Paragraph(_compare_trials(result)),
        figure_block("grid", _plot_grid(trials, best), _CAPTIONS["grid"]),
        _trial_table(trials),
        Heading("5. Full training"),
        figure_block("long-run", learning_curves(result.long_run.history, COLORS[0]), _CAPTIONS["long-run"]),
    )
    return write_document(folder, document)["html"]


def test_command(folder: Path) -> str:
    """Return the command that evaluates the best model on the test sets.

    Args:
        folder: the folder of the search.

    Returns:
        The shell command.
    """
    return (
        f"agebench run --config {shlex.quote(str(folder / WINNER))} --out {shlex.quote(str(folder / 'run'))} --resume"
    )


def _add_summary(document: Document, result: TuneResult, folder: Path) -> None:
    best, run = result.best, result.long_run
    document.add(
        Paragraph(
            f"Learning rate {best.lr:g} and weight decay {best.weight_decay:g} gave the lowest error: validation MAE "
            f"{run.val_mae:.2f} years in full training (epoch {run.best_epoch:.0f} of {len(run.history)}).",
            strong=True,
        ),
        Paragraph(
            f"All choices were made on the {result.images['val']:,} images of the validation split; no test set was read. The "
            f"validation MAE of the best of {len(result.trials)} trials is optimistic, because the same images selected it; "
            "only a test set gives an unbiased error."
        ),
        Paragraph("This command evaluates the trained weights on the test sets without training again:"),
        CodeBlock(test_command(folder)),
    )


def _compare_trials(result: TuneResult) -> str:
    boundary = _boundary_warning(result)
    tied = result.not_told_apart
    if not tied:
        return (
            "The best trial is significantly better than every other trial on the same validation images (95 %)."
            + boundary
        )
    return (
        f"{len(tied)} of the other {len(result.trials) - 1} trials do not differ significantly from the best trial on the same "
        f"validation images (95 %): {', '.join(tied)}. The choice between these trials is free.{boundary}"
    )


def _boundary_warning(result: TuneResult) -> str:
    """Return a warning if the best learning rate is the highest or the lowest of the grid, else ""."""
    rates = sorted({trial.lr for trial in result.trials})
    if result.search != "grid" or len(rates) < 3 or result.best.lr not in (rates[0], rates[-1]):
        return ""
    end = "highest" if result.best.lr == rates[-1] else "lowest"
    return f" The best learning rate is the {end} of the grid: extend the grid in this direction with --rates."


def _trial_table(trials: Sequence[Trial]) -> TableBlock:
    rows = [
        [
            f"{trial.lr:g}",
            f"{trial.weight_decay:g}",
            "diverged" if trial.val_mae is None else f"{trial.val_mae:.2f} [{trial.low:.2f}, {trial.high:.2f}]",
            f"{trial.seconds:.0f}",
        ]
        for trial in trials
    ]
    return TableBlock(["learning rate", "weight decay", "validation MAE (years)", "time (s)"], rows)


@styled
def _plot_initial_loss(result: InitialLoss) -> Figure:
    """Plot the loss of the untrained model per batch.

    Args:
        result: the result of `check_initial_loss`.

    Returns:
        The figure.
    """
    figure, axes = _axes(2.6)
    batches = np.arange(len(result.losses)) + 1
    axes.plot(batches, result.losses, "o", color=COLORS[0], label="untrained model")
    axes.plot(batches, result.expected, "D", color=GRAY, mfc="white", label="head on all-zero features (expected loss)")
    top = max([*result.losses, *result.expected])
    bottom = min(0, *result.losses)
    axes.set(xlabel="batch", ylabel="loss", xticks=batches, ylim=(bottom, 1.25 * top if top > 0 else None))
    axes.set_title("Initial loss")
    axes.legend(loc="lower right", fontsize=9)
    return figure


@styled
def _plot_overfit(result: OverfitResult) -> Figure:
    """Plot the training error on a small subset by epoch.

    Args:
        result: the result of `overfit_small_subset`.

    Returns:
        The figure.
    """
    figure, axes = _axes(2.9)
    curve = result.curve
    axes.plot([entry.epoch for entry in curve], [entry.mae for entry in curve], color=COLORS[0], lw=2)
    axes.axhline(result.mae_of_the_median, color="black", ls="--", lw=1)
    axes.set(xlabel="epoch", ylabel="training MAE (years)", ylim=(0, None))
    outcome = "diverged" if result.mae is None else f"final MAE {result.mae:.2f} years"
    axes.set_title(f"Overfitting {result.images} images: {outcome}")
    return figure


@styled
def _plot_lr_range(result: RangeTestResult) -> Figure:
    """Plot the learning-rate range test.

    Args:
        result: the result of `lr_range_test`.

    Returns:
        The figure.
    """
    figure, axes = _axes(3.2)
    axes.plot(result.rates, result.losses, color=COLORS[5], lw=0.8)
    axes.plot(result.rates, ema(result.losses), color=COLORS[0], lw=2)
    axes.axvline(result.suggested, color=COLORS[1], ls="--", lw=1.2)
    axes.set(xscale="log", xlabel="learning rate (log scale)", ylabel="training loss, adjusted for age")
    axes.set_title(f"Range test, {len(result.rates)} steps (dashed: {result.suggested:.2g})")
    return figure


@styled
def _plot_trials(trials: Sequence[Trial]) -> Figure | None:
    """Plot the validation MAE of the trials by learning rate, and by epoch.

    Args:
        trials: the trials in the order in which they ran.

    Returns:
        The figure, or None if every trial diverged.
    """
    finished = [trial for trial in trials if trial.val_mae is not None]
    if not finished:
        return None
    figure = Figure(figsize=(FIGURE_WIDTH, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    decays = sorted({trial.weight_decay for trial in finished})
    few_decays = len(decays) <= _MAX_DECAY_SERIES
    for index, decay in enumerate(decays):
        series = [trial for trial in finished if trial.weight_decay == decay]
        # Series are shifted against each other, so that their intervals do not overlap.
        shift = 1.05 ** (index - (len(decays) - 1) / 2) if few_decays else 1.0
        mae = [trial.val_mae for trial in series]
        left.errorbar(
            [trial.lr * shift for trial in series],
            mae,
            yerr=[trial.half_width for trial in series],
            fmt="o",
            color=COLORS[index % len(COLORS)] if few_decays else COLORS[0],
            capsize=2,
            ms=5,
            label=f"weight decay {decay:g}" if few_decays else None,
        )
    if few_decays:
        left.legend(fontsize=8)
    left.set(xscale="log", xlabel="learning rate (log scale)", ylabel="validation MAE (years)")
    left.xaxis.set_minor_formatter(NullFormatter())
    diverged = f", {len(trials) - len(finished)} diverged" if len(finished) < len(trials) else ""
    left.set_title(f"{len(finished)} trials{diverged}")
    recipe_decay = trials[0].weight_decay
    candidates = [trial for trial in finished if trial.weight_decay == recipe_decay] if few_decays else finished
    for index, trial in enumerate(sorted(candidates, key=lambda trial: trial.error)[:_MAX_EPOCH_CURVES]):
        epochs = [entry["epoch"] for entry in trial.history]
        values = [entry["val_mae"] for entry in trial.history]
        line = ("-", "--", "-.", ":", "-", "--")[index]
        right.plot(epochs, values, f"o{line}", ms=4, color=COLORS[index % 7], label=f"learning rate {trial.lr:g}")
    last_epoch = max(trial.epochs for trial in finished)
    right.set(xlabel="epoch", ylabel="validation MAE (years)", xticks=range(1, last_epoch + 1))
    right.set_title("By epoch")
    right.legend(fontsize=8)
    for axes in (left, right):
        axes.grid(True)
    return figure


@styled
def _plot_grid(trials: Sequence[Trial], best: Trial) -> Figure | None:
    """Plot the validation MAE by learning rate and weight decay as a heat map.

    Args:
        trials: the trials of the search.
        best: the best trial, which is framed.

    Returns:
        The figure, or None if the trials do not form a grid.
    """
    decays = sorted({trial.weight_decay for trial in trials})
    rates = sorted({trial.lr for trial in trials if sum(other.lr == trial.lr for other in trials) > 1})
    if not rates or max(len(decays), len(rates)) > _MAX_GRID_SIDE:
        return None
    values = {(trial.lr, trial.weight_decay): trial.val_mae for trial in trials}
    table = np.array([[values.get((rate, decay)) for decay in decays] for rate in rates], float)
    figure = Figure(figsize=(FIGURE_WIDTH, 1.5 + 0.6 * len(rates)), layout="constrained")
    axes = figure.subplots()
    figure.colorbar(axes.imshow(table, cmap="cividis_r", aspect="auto"), ax=axes, label="validation MAE (years)")
    middle = float(np.nanmean([np.nanmin(table), np.nanmax(table)]))
    for (row, column), value in np.ndenumerate(table):
        text = "–" if np.isnan(value) else f"{value:.2f}"
        axes.text(column, row, text, ha="center", va="center", color="white" if value > middle else "black")
        if (rates[row], decays[column]) == (best.lr, best.weight_decay):
            x, y = np.array([-0.48, 0.48, 0.48, -0.48, -0.48]), np.array([-0.46, -0.46, 0.46, 0.46, -0.46])
            axes.plot(column + x, row + y, color=COLORS[1], lw=3)
    axes.set_xticks(range(len(decays)), [f"{decay:g}" for decay in decays])
    axes.set_yticks(range(len(rates)), [f"{rate:g}" for rate in rates])
    axes.set(xlabel="weight decay", ylabel="learning rate")
    axes.set_title("Validation MAE (years); framed: the best trial")
    return figure


def _axes(height: float) -> tuple[Figure, Any]:
    figure = Figure(figsize=(FIGURE_WIDTH, height), layout="constrained")
    axes = figure.subplots()
    axes.grid(True)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes
