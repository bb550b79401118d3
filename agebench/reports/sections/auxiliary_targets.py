"""The report section on auxiliary targets."""

from collections.abc import Mapping

from agebench.metrics.schema import MetricsFile, TaskMetrics
from agebench.reports.formatting import (
    NOT_COMPARED,
    escape_markdown,
    format_ci,
    format_count,
    format_number,
    group_name,
    is_below_min_n,
    join_words,
    markdown_table,
)

_METHOD = (
    "Accuracy: the share of labelled images whose class was named. Balanced: the mean of that share over the classes, so that "
    "each counts alike. Commonest class: what always naming it would score. Age stays the benchmark; checkpoints are chosen by it."
)


def task_parts(metrics: MetricsFile) -> list[str]:
    """The report's section on targets beside age, [] where there are none."""
    tests = {name: test.tasks for name, test in metrics.tests.items() if test.tasks}
    tasks = list(dict.fromkeys(task for of in tests.values() for task in of))
    parts = []
    for task in tasks:
        asked = {name: of[task] for name, of in tests.items() if task in of}
        labelled = {name: of for name, of in asked.items() if of.n}
        parts += [f"### {escape_markdown(task)}", _overall(labelled, metrics.train)]
        without = [escape_markdown(name) for name in asked if name not in labelled]
        parts.append(f"No labels of it in {join_words(without)}, so no result is shown there." if without else "")
        for name, of in labelled.items():
            parts += [f"{escape_markdown(name)}, by group:", _by_group(task, of)]
    return ["## Other attributes", _METHOD, *parts] if parts else []


def _overall(tests: Mapping[str, TaskMetrics], home: str | None) -> str:
    rows = [
        [
            escape_markdown(f"{name} (held-out part)" if name == home else name),
            format_count(of.n),
            format_ci(of.accuracy, digits=1, percent=True),
            format_ci(of.balanced_accuracy, digits=1, percent=True),
            f"{format_number(of.majority, digits=1, percent=True)} %",
            format_count(of.n_unknown),
        ]
        for name, of in tests.items()
    ]
    return markdown_table(["test set", "n", "accuracy", "balanced accuracy", "commonest class", "no label"], rows)


def _by_group(task: str, of: TaskMetrics) -> str:
    rows = [
        [
            escape_markdown(f"{task}: {label}"),
            format_count(entry.n),
            format_ci(entry.recall, digits=1, percent=True),
            "",
        ]
        for label, entry in of.classes.items()
    ]
    for grouping, entries in of.groups.items():
        for group, metrics in entries.items():
            name = f"{group_name(grouping, grouping)}: {group_name(grouping, group)}".replace("age_band", "age")
            shown = escape_markdown(name) + (NOT_COMPARED if is_below_min_n(metrics) else "")
            shares = (
                format_ci(share, digits=1, percent=True) for share in (metrics.accuracy, metrics.balanced_accuracy)
            )
            rows.append([shown, format_count(metrics.n), *shares])
    return markdown_table(["group", "n", "accuracy", "balanced accuracy"], rows)
