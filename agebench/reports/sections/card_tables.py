"""Tables of a model's metrics for its card: overall and by group."""

from agebench.metrics.schema import MetricsFile
from agebench.reports.formatting import format_ci, format_count, group_table, markdown_table
from agebench.reports.sections.splits import test_label

# Metric of metrics.json -> its name, and whether it is a share.
MODEL_INDEX_METRICS = {
    "mae": ("MAE (years)", False),
    "rmse": ("RMSE (years)", False),
    "bias": ("Bias (years)", False),
    "cs5": ("CS@5 (share)", True),
    "p95_ae": ("95 % of errors are below (years)", False),
}


def overall_table(figures: MetricsFile) -> str:
    """Return a Markdown table of the overall metrics, one row per test set; `describe_protocol` explains its marks.

    Args:
        figures: the model's metrics.
    """
    rows = [
        [
            test_label(name, figures),
            format_count(test.n),
            *(
                format_ci(test.metric(metric), percent=percent, digits=1 if percent else 2, sign=metric == "bias")
                for metric, (_, percent) in MODEL_INDEX_METRICS.items()
            ),
        ]
        for name, test in figures.tests.items()
    ]
    return markdown_table(
        ["test set", "n", *(title.replace(" (share)", "") for title, _ in MODEL_INDEX_METRICS.values())], rows
    )


def group_tables(figures: MetricsFile) -> list[str]:
    """Return the Markdown tables of subgroup performance, one per grouping of each test set, without crossed groups.

    Args:
        figures: the model's metrics.
    """
    sections = []
    for name, test in figures.tests.items():
        tables = [
            group_table(grouping, groups) for grouping, groups in test.groups.items() if "*" not in grouping and groups
        ]
        if tables:
            sections += [f"### Subgroup performance: {test_label(name, figures)}", *tables]
    return sections
