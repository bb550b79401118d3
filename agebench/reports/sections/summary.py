"""The screen of `agebench score`: requirements, the figures that decide, and one table of groups; the report has the rest."""

from agebench.metrics.schema import GroupMetrics, MetricsFile, TestResult
from agebench.reports.formatting import (
    DASH,
    NOT_COMPARED,
    OPEN_END,
    escape_markdown,
    explain_open_ends,
    format_ci,
    format_count,
    is_below_min_n,
    is_too_few,
    markdown_table,
)
from agebench.reports.sections.age_gates import TOO_FEW_NOTE, gate_table
from agebench.reports.sections.evaluation import opening
from agebench.reports.sections.measurement import decision_table
from agebench.reports.sections.requirements import requirement_sections

_MAX_GROUP_ROWS, _MAX_GATE_ROWS = 24, 12
_MAX_NOTES = 4


def score_summary(metrics: MetricsFile, *, rest: str) -> str:
    """Render the first part of a report for a terminal, at most about 60 lines for one test set.

    Args:
        metrics: the content of metrics.json.
        rest: the sentence that names the place of everything else.
    """
    parts = [part for name, entry in metrics.tests.items() for part in _test(name, entry)]
    return "\n\n".join([*parts, rest]) + "\n"


def _test(name: str, entry: TestResult) -> list[str]:
    parts = [f"## {escape_markdown(name)}", opening(entry), *requirement_sections(entry.requirements)]
    parts += ["### Figures that decide", decision_table(entry)]
    gates = {legal: gate for legal, gate in entry.age_gates.items() if gate.challenge}
    if gates and sum(len(gate.challenge) for gate in gates.values()) <= _MAX_GATE_ROWS:
        parts += ["### Age gates: who passes when the estimate is at least T", gate_table(gates)]
    table, n_left_out = _groups(entry)
    if table:
        parts += ["### Groups", table]
    notes = [f"- {escape_markdown(note)}" for note in entry.notes if "shown but not ranked" not in note][:_MAX_NOTES]
    if n_left_out:
        notes.append(f"- {n_left_out} more rows of groups and crossings are in the whole report.")
    text = "\n".join(parts)
    notes += [f"- {explain_open_ends()}"] * (OPEN_END in text) + [f"- {TOO_FEW_NOTE}"] * ("too few" in text)
    return [*parts, *(["\n".join(notes)] if notes else [])]


def _groups(entry: TestResult) -> tuple[str, int]:
    """One row a group, without crossings; and the number of rows that are left out."""
    rows: list[list[str]] = []
    n_left_out = 0
    for grouping, groups in entry.groups.items():
        if "*" in grouping or len(rows) + len(groups) > _MAX_GROUP_ROWS:
            n_left_out += len(groups)
            continue
        rows += [
            [f"{escape_markdown(grouping)}: {escape_markdown(name)}", *_row(grouping, group)]
            for name, group in groups.items()
        ]
    headers = ["group", "n", "MAE (years)", "at equal ages", "bias (years)", "CS@5"]
    return markdown_table(headers, rows), n_left_out


def _row(grouping: str, group: GroupMetrics) -> list[str]:
    count = f"{format_count(group.n)}{NOT_COMPARED if is_below_min_n(group) else ''}"
    if is_too_few(group.n) and group.mae.value is not None:
        return [count, "too few", DASH, DASH, DASH]
    return [
        count,
        format_ci(group.mae),
        format_ci(group.age_standardized_mae),
        format_ci(group.bias, sign=True),
        format_ci(group.cs5, digits=1, percent=True),
    ]
