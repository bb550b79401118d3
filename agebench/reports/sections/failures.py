"""Failure to process in words and tables: for whom no face could be prepared."""

from agebench.metrics.fairness import SIGNIFICANT
from agebench.metrics.schema import FailureGap, FailureToProcess
from agebench.reports.formatting import (
    NOT_COMPARED,
    escape_markdown,
    format_ci,
    format_count,
    format_number,
    format_p_value,
    group_name,
    is_below_min_n,
    join_words,
    markdown_table,
)


def describe_failures(name: str, failures: FailureToProcess) -> str:
    """One paragraph about a dataset; "" where nothing was recorded."""
    if not failures.n:
        return ""
    rate = failures.rate
    if not failures.failed:
        return (
            f"In {escape_markdown(name)} a face could be prepared in every one of {format_count(failures.n)} images, "
            "in every group "
            f"(at most {format_number(rate.ci_high, percent=True)} % fail, with 95 % confidence)."
        )
    text = (
        f"In {escape_markdown(name)} no face could be prepared, or no age estimated, in **{format_count(failures.failed)} of "
        f"{format_count(failures.n)} images, "
        f"{format_ci(rate, percent=True)}**. They are missing from every figure: where that falls on one group more than on "
        "another, the figures flatter the system on the group that lost its hardest images."
    )
    gaps = failures.gaps
    shown = [_worst(key, gap) for key, gap in gaps.items() if gap.p_holm < SIGNIFICANT]
    biased = (
        f"**That biases the benchmark**: what finds the faces misses {join_words(shown)} more often than others, so their figures "
        "are computed on their easier images, and a gap between groups may be larger than the tables show."
    )
    return " ".join([text, *(_gap(key, gap) for key, gap in gaps.items()), *[biased] * bool(shown)])


def failures_tables(failures: FailureToProcess) -> list[str]:
    """A table a grouping in which any image failed."""
    tables = []
    for grouping, entries in failures.groups.items():
        if not any(entry.failed for entry in entries.values()):
            continue
        rows = [
            [
                escape_markdown(group_name(grouping, group)) + (NOT_COMPARED if is_below_min_n(entry) else ""),
                format_count(entry.n),
                format_count(entry.failed),
                format_ci(entry.rate, percent=True),
            ]
            for group, entry in entries.items()
        ]
        title = "true age" if grouping == "age_band" else group_name(grouping, grouping)
        tables.append(markdown_table([escape_markdown(title), "images", "not processed", "failure to process"], rows))
    return tables


def _worst(grouping: str, gap: FailureGap) -> str:
    age = " years" if grouping == "age_band" else ""
    return escape_markdown(group_name(grouping, gap.worst)) + age


def _gap(grouping: str, gap: FailureGap) -> str:
    title = "age" if grouping == "age_band" else group_name(grouping, grouping)
    worst, best = _worst(grouping, gap), escape_markdown(group_name(grouping, gap.best))
    chance = gap.p_holm >= SIGNIFICANT
    claim = "no difference is shown" if chance else "**more often**"
    return (
        f"By {escape_markdown(title)}: {claim}, {worst} {format_number(gap.difference, percent=True)} percentage "
        f"points above {best}, "
        f"{format_p_value(gap.p_holm)}."
    )
