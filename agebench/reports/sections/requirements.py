"""Verdicts on requirements as a table."""

from collections.abc import Sequence

from agebench.metrics.requirements import Verdict
from agebench.metrics.schema import MetricsFile, RequirementResult
from agebench.reports.formatting import DASH, escape_markdown, format_ci, markdown_table

_RULE = (
    "Shown: the whole 95 % interval meets the requirement; refuted: the whole interval violates it. Each claim is false in at most "
    "2.5 % of cases (a refuted gap: 5 %); of several groups each must meet the requirement, and a refutation allows for their "
    "number. Gaps have the upper bound over all pairs of groups. Fewer than 30 images or people show nothing, except by rates."
)
_MARKS = {Verdict.SHOWN: "shown", Verdict.NOT_SHOWN: "not shown", Verdict.REFUTED: "**refuted**"}


def requirement_sections(results: Sequence[RequirementResult], *, level: int = 3) -> list[str]:
    """Render the verdicts of one test set as Markdown parts; none without requirements.

    Args:
        results: the verdicts.
        level: level of the heading.
    """
    if not results:
        return []
    rows = [
        [
            f"{escape_markdown(result.figure)} {'≤' if result.operator == '<=' else '≥'} {_limit(result)}",
            _value(result),
            _MARKS[Verdict(result.verdict)],
        ]
        for result in results
    ]
    table = markdown_table(["requirement", "measured", "verdict"], rows, align=("left", "right", "left"))
    return [f"{'#' * level} Requirements", table, _RULE]


def requirements_text(metrics: MetricsFile) -> str:
    """Render the verdicts of all test sets, each under its name; "" without requirements."""
    parts = []
    for name, entry in metrics.tests.items():
        if entry.requirements:
            parts += [f"## {escape_markdown(name)}", *requirement_sections(entry.requirements)]
    return "\n\n".join(parts)


def _limit(result: RequirementResult) -> str:
    return f"{100 * result.limit:.6g} %" if result.is_share else f"{result.limit:g}"


def _value(result: RequirementResult) -> str:
    value = result.value
    if value.value is None:
        return DASH
    is_small = result.is_share and abs(value.value) < 0.01
    text = format_ci(value, digits=2 if is_small or not result.is_share else 1, percent=result.is_share)
    return text if result.group is None else f"{escape_markdown(result.group)}: {text}"
