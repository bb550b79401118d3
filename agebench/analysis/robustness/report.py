"""The report of a robustness test: `<test>.json`, predictions, figures, Markdown and HTML."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from agebench.analysis.robustness import plots
from agebench.analysis.robustness.corruptions import Corruption
from agebench.analysis.robustness.evaluate import RobustnessPredictions, to_frame
from agebench.analysis.robustness.schema import (
    CleanMetrics,
    ConsistencyMetrics,
    OverallCorruptionMetrics,
    RobustnessFile,
)
from agebench.data.samples import Samples
from agebench.estimators.base import InputSpec
from agebench.reports.document import (
    Block,
    Document,
    Paragraph,
    TableBlock,
    blocks_to_markdown,
    blocks_to_text,
    figure_block,
    strong,
    write_document,
)
from agebench.reports.formatting import format_ci, format_count, format_number, group_name, join_words
from agebench.reports.plots.run import label
from agebench.reports.plots.style import COLORS
from agebench.training.dataloader import FaceDataset
from agebench.utils.io import atomic_write, write_json

_EXAMPLE_AGE = 30  # years
_EXAMPLE_CANDIDATES = 16
# A relative error below this is explained in the report.
_NOTABLE_IMPROVEMENT = 0.98

# Status of a dataset in the training data of an estimator that is not a run -> caveat.
CONTAMINATION = {
    "known": "The model was trained on this dataset: its errors here are smaller than on faces that are new to it.",
    "unknown": "The model's training data are not known: this dataset may be among them.",
}

_RANGES = (
    "Labels of this dataset are ranges of ages: errors here are measured to the middle of the range, so that an estimate within "
    "it counts as an error. They are larger than the distances to the range that the leaderboard ranks by."
)


def write_robustness_report(
    folder: Path,
    metrics: RobustnessFile,
    predictions: RobustnessPredictions,
    samples: Samples,
    data: FaceDataset,
    corruptions: Sequence[Corruption],
    *,
    framing: InputSpec,
    color: str = COLORS[0],
) -> Path:
    """Write the predictions, figures and reports; `<test>.json` is written last, so that it marks a complete report.

    Args:
        folder: the folder of the reports; it is created if it is missing.
        metrics: the result of `robustness_metrics`.
        predictions: the predictions that `metrics` summarizes.
        samples: the test set's images.
        data: the test set's aligned faces, for the example figure.
        corruptions: the corruptions that were applied.
        framing: the images that the estimator expects, whose crop scale sets the scale of some corruptions.
        color: the test set's color in figures.

    Returns:
        The path of the Markdown report.
    """
    name, title = metrics.test, label(metrics.test)
    figures = {
        "overview": plots.plot_overview(metrics, title),
        "curves": plots.plot_curves(metrics, title, color),
        "groups": plots.plot_groups(metrics, title),
        **{f"by-{index}": plots.plot_by_group(metrics, key, title) for index, key in enumerate(metrics.groups)},
        "examples": plots.plot_examples(data, pick_example_face(data), corruptions, framing, title),
    }
    document = Document(f"Robustness on {name}", _blocks(metrics))
    for key, figure in figures.items():
        document.add(figure_block(f"{name}-{key}", figure, plots.CAPTIONS[key.partition("-")[0]]))
    with atomic_write(folder / f"{name}.parquet") as temporary:
        to_frame(predictions, samples).to_parquet(temporary, index=False)
    report = write_document(folder, document, name)["markdown"]
    write_json(folder / f"{name}.json", metrics.to_json())
    return report


def pick_example_face(data: FaceDataset) -> int:
    """Return the index of the most colorful of the 16 faces with ages closest to 30 years.

    A gray photograph would not show the corruptions that remove color.

    Args:
        data: the aligned faces with their ages.

    Returns:
        The index of the face in `data`.
    """
    candidates = np.argsort(np.abs(data.ages - _EXAMPLE_AGE), kind="stable")[:_EXAMPLE_CANDIDATES]
    colorfulness = [np.ptp(data.pixels[data.rows[index]][..., :3].astype(int), axis=-1).mean() for index in candidates]
    return int(candidates[np.argmax(colorfulness)])


def robustness_text(metrics: RobustnessFile) -> str:
    """Return the summary and the table by corruption as text for a terminal.

    Args:
        metrics: the result of `robustness_metrics`.
    """
    return blocks_to_text(_blocks(metrics))


def robustness_markdown(metrics: RobustnessFile) -> str:
    """Return the summary and the table by corruption as Markdown.

    Args:
        metrics: the result of `robustness_metrics`.
    """
    return blocks_to_markdown(_blocks(metrics))


def _blocks(metrics: RobustnessFile) -> list[Block]:
    ordered = metrics.by_harm()
    small_groups = [
        f"{group_name(grouping, name)} ({format_count(entry.n)})"
        for grouping, groups in metrics.groups.items()
        for name, entry in groups.items()
        if not entry.ranked
    ]
    blocks: list[Block] = [
        _summary(metrics, ordered),
        _table(ordered, metrics.clean),
        _describe_consistency(metrics.consistency),
    ]
    if caveat := CONTAMINATION.get(metrics.contamination or ""):
        blocks.append(Paragraph(caveat))
    if metrics.label_ranges:
        blocks.append(Paragraph(_RANGES))
    blocks += [Paragraph(f"Note: {note}.") for note in metrics.notes]
    if small_groups:
        blocks.append(
            Paragraph(f"Groups with n < 30 are in the JSON file but not in the figures: {', '.join(small_groups)}.")
        )
    return blocks


def _summary(metrics: RobustnessFile, ordered: Sequence[tuple[str, OverallCorruptionMetrics]]) -> Paragraph:
    clean, summary = metrics.clean, metrics.summary
    subjects = f" of {format_count(metrics.subjects)} subjects" if metrics.subjects else ""
    worst = [f"{name} (× {format_number(entry.relative.value)})" for name, entry in ordered[:3]]
    text = (
        f" times the error on uncorrupted faces, and predictions change by {format_ci(summary.change)} years. "
        f"The most harmful corruptions: {join_words(worst)}."
    )
    if ordered[-1][1].relative.number < _NOTABLE_IMPROVEMENT:
        text += (
            " A relative error below 1 means that the corruption reduces the error: it shifts the predictions against a bias "
            f"of {format_ci(clean.bias, sign=True)} years on uncorrupted faces."
        )
    return Paragraph(
        [
            strong(metrics.test),
            f", n = {format_count(metrics.n)}{subjects}: MAE {format_ci(clean.mae)} years on uncorrupted faces. "
            f"The mean error over {len(ordered)} corruptions and their strengths is ",
            strong(format_ci(summary.relative_error)),
            text,
        ]
    )


def _table(ordered: Sequence[tuple[str, OverallCorruptionMetrics]], clean: CleanMetrics) -> TableBlock:
    rows = [
        [
            name,
            format_ci(entry.relative),
            format_ci(entry.mae[0]),
            format_ci(entry.mae[-1]),
            format_ci(entry.bias[-1], sign=True),
            format_ci(entry.change[-1]),
        ]
        for name, entry in ordered
    ]
    rows.append(["none", "1.00", *[format_ci(clean.mae)] * 2, format_ci(clean.bias, sign=True), "0.00"])
    headers = ["corruption", "relative error", "MAE, weakest", "MAE, strongest", "bias, strongest", "change, strongest"]
    return TableBlock(headers, rows)


def _describe_consistency(consistency: Mapping[str, ConsistencyMetrics]) -> Paragraph:
    mirror, shift = (format_ci(consistency[name].change) for name in ("mirror", "small-shift"))
    return Paragraph(
        f"Mirroring the face changes the prediction by {mirror} years on average, a shift by 2 % of the side by {shift} years. "
        "In brackets: 95 % bootstrap intervals. Relative error: mean MAE over the strengths, divided by the MAE on uncorrupted "
        "faces. Change: mean absolute change of the predictions in years."
    )
