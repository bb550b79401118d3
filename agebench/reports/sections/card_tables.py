"""Tables of a model's metrics for its card: overall and by group."""

from collections.abc import Mapping

from agebench.metrics.schema import TestResult
from agebench.reports.formatting import escape_markdown, format_ci, format_count, group_table, markdown_table

# Metric of metrics.json -> its name, and whether it is a share.
MODEL_INDEX_METRICS = {
    "mae": ("MAE (years)", False),
    "rmse": ("RMSE (years)", False),
    "bias": ("Bias (years)", False),
    "cs5": ("CS@5 (share)", True),
    "p95_ae": ("95 % of errors are below (years)", False),
}


def overall_table(tests: Mapping[str, TestResult], home: str) -> str:
    """Return a Markdown table of the overall metrics, one row per test set.

    Args:
        tests: test set -> its metrics.
        home: name of the training set, whose test part is marked as held out.
    """
    rows = [
        [
            _where(name, home),
            format_count(test.n),
            *(
                format_ci(test.metric(metric), percent=percent, digits=1 if percent else 2, sign=metric == "bias")
                for metric, (_, percent) in MODEL_INDEX_METRICS.items()
            ),
        ]
        for name, test in tests.items()
    ]
    return markdown_table(
        ["test set", "n", *(title.replace(" (share)", "") for title, _ in MODEL_INDEX_METRICS.values())], rows
    )


def group_tables(tests: Mapping[str, TestResult], home: str) -> list[str]:
    """Return the Markdown tables of subgroup performance, one per grouping of each test set, without crossed groups.

    Args:
        tests: test set -> its metrics.
        home: name of the training set, whose test part is marked as held out.
    """
    sections = []
    for name, test in tests.items():
        tables = [
            group_table(grouping, groups) for grouping, groups in test.groups.items() if "*" not in grouping and groups
        ]
        if tables:
            sections += [f"### Subgroup performance: {_where(name, home)}", *tables]
    return sections


def _where(name: str, home: str) -> str:
    return escape_markdown(f"{name} (held-out part)" if name == home else name)
