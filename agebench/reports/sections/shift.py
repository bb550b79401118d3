"""Why the error on another dataset differs from that on the held-out part of the training set."""

from agebench.metrics.schema import MetricsFile, MetricValue, Recalibration, ShiftParts, ShiftResult
from agebench.reports.formatting import DASH, escape_markdown, format_ci, format_count, join_words, markdown_table

_GAINS = "years that it mends"


def shift_parts(metrics: MetricsFile) -> list[str]:
    """Return the section of a report, as Markdown parts; empty where no other dataset was tested beside the training set's own."""
    parts = []
    for name, test in metrics.tests.items():
        if test.shift is not None:
            parts += [
                f"### {escape_markdown(name)} against {escape_markdown(test.shift.source)}",
                *_shift_text(test.shift, held_out=test.shift.source == metrics.train),
            ]
    return ["## Why the error differs between datasets", *parts] if parts else []


def _shift_text(shift: ShiftResult, *, held_out: bool = True) -> list[str]:
    """Describe one shift: a sentence, the table of its parts, and what a recalibration mends.

    Args:
        shift: the shift.
        held_out: whether the source is the held-out part of the training set; False: a whole dataset.
    """
    rows = _rows(shift.parts)
    if shift.with_groups is not None:
        rows += _rows(shift.with_groups)
    table = markdown_table(["part of the difference", "images", "years"], rows)
    parts = [_describe_shift(shift, held_out=held_out), table]
    if shift.recalibration:
        parts += [_RECALIBRATED, _recalibration_table(shift.recalibration)]
    return parts


_RECALIBRATED = (
    "Recalibration: a map from estimates to ages is fitted on labeled images of this dataset and tested on its other people. "
    "The intervals hold the choice of the labeled people."
)


def _describe_shift(shift: ShiftResult, *, held_out: bool = True) -> str:
    """Describe in one or two sentences which parts of a difference are shown.

    Args:
        shift: the shift.
        held_out: whether the source is the held-out part of the training set; False: a whole dataset.
    """
    source = escape_markdown(shift.source)
    part = "the held-out part of " if held_out else ""
    text = f"The MAE is {format_ci(shift.difference, sign=True)} years against {part}{source}. "
    causes = {
        "its mix of ages": shift.parts.mix,
        "other faces of the same ages": shift.parts.same,
        f"ages that {source} lacks": shift.parts.outside,
    }
    worse = [f"{name} ({format_ci(part, sign=True)})" for name, part in causes.items() if _side(part) > 0]
    better = [f"{name} ({format_ci(part, sign=True)})" for name, part in causes.items() if _side(part) < 0]
    sentences = []
    if worse:
        sentences.append(f"It is raised by {join_words(worse)}")
    if better:
        sentences.append(f"{'and lowered' if worse else 'It is lowered'} by {join_words(better)}")
    if not sentences:
        return text + "No part of the difference is shown."
    return text + " ".join(sentences) + "."


def shift_overview(metrics: MetricsFile) -> str:
    """Describe the shift of each test set in a sentence or two, one line a test set; "" where none was computed.

    Args:
        metrics: the metrics of a run or a test.
    """
    return "\n".join(
        f"- {escape_markdown(name)}: {_describe_shift(test.shift, held_out=test.shift.source == metrics.train)}"
        for name, test in metrics.tests.items()
        if test.shift is not None
    )


def _side(part: MetricValue) -> int:
    """1 or -1 where the whole interval lies above or below 0, else 0."""
    if part.ci_low is None or part.ci_high is None:
        return 0
    return int(part.ci_low > 0) - int(part.ci_high < 0)


def _rows(parts: ShiftParts) -> list[list[str]]:
    what = join_words(["ages", *map(escape_markdown, parts.groups)])
    return [
        [f"mix of {what}", "", format_ci(parts.mix, sign=True)],
        [f"other faces of the same {what}", "", format_ci(parts.same, sign=True)],
        [
            f"{what} without counterparts",
            format_count(parts.n_outside),
            format_ci(parts.outside, sign=True) if parts.n_outside else DASH,
        ],
    ]


def _recalibration_table(rows: list[Recalibration]) -> str:
    table = [
        [
            format_count(row.n),
            format_ci(row.before),
            format_ci(row.isotonic),
            format_ci(row.isotonic_gain, sign=True),
            format_ci(row.linear),
            format_ci(row.linear_gain, sign=True),
        ]
        for row in rows
    ]
    headers = ["labeled images", "MAE before", "isotonic map", _GAINS, "linear map", _GAINS]
    return markdown_table(headers, table, align=["right"] * 6)
