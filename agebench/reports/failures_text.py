"""Failure to process in words and tables: for whom no face could be prepared."""

from collections.abc import Mapping
from typing import Any

from agebench.evaluation.fairness import SIGNIFICANT
from agebench.reports.tables import (
    count,
    escaped,
    group_name,
    is_small,
    listed,
    markdown_table,
    number,
    p_value,
    with_interval,
)


def failures_in_words(name: str, found: Mapping[str, Any]) -> str:
    """One paragraph about a dataset; "" where nothing was recorded."""
    if not found.get("n"):
        return ""
    rate = found["rate"]
    if not found["failed"]:
        return (
            f"In {escaped(name)} a face could be prepared in every one of {count(found['n'])} images, in every group "
            f"(at most {number(rate['high'], percent=True)} % fail, with 95 % confidence)."
        )
    text = (
        f"In {escaped(name)} no face could be prepared in **{count(found['failed'])} of {count(found['n'])} images, "
        f"{with_interval(rate, percent=True)}**. They are missing from every figure: where that falls on one group more than on "
        "another, the figures flatter the system on the group that lost its hardest images."
    )
    gaps = found.get("gaps") or {}
    shown = [_worst(key, gap) for key, gap in gaps.items() if gap["p_holm"] < SIGNIFICANT]
    biased = (
        f"**That biases the benchmark**: what finds the faces misses {listed(shown)} more often than others, so their figures "
        "stand on their easier images, and a gap between groups may be larger than the tables say."
    )
    return " ".join([text, *(_gap(key, gap) for key, gap in gaps.items()), *[biased] * bool(shown)])


def failures_tables(found: Mapping[str, Any]) -> list[str]:
    """A table a grouping in which any image failed."""
    tables = []
    for grouping, entries in (found.get("groups") or {}).items():
        if not any(entry["failed"] for entry in entries.values()):
            continue
        rows = [
            [
                escaped(group_name(grouping, group)) + (" (too few to rank)" if is_small(entry) else ""),
                count(entry["n"]),
                count(entry["failed"]),
                with_interval(entry["rate"], percent=True),
            ]
            for group, entry in entries.items()
        ]
        title = "true age" if grouping == "age_band" else group_name(grouping, grouping)
        tables.append(markdown_table([escaped(title), "images", "no face prepared", "failure to process"], rows))
    return tables


def _worst(grouping: str, gap: Mapping[str, Any]) -> str:
    age = " years" if grouping == "age_band" else ""
    return escaped(group_name(grouping, gap["worst"])) + age


def _gap(grouping: str, gap: Mapping[str, Any]) -> str:
    title = "age" if grouping == "age_band" else group_name(grouping, grouping)
    worst, best = _worst(grouping, gap), escaped(group_name(grouping, gap["best"]))
    chance = gap["p_holm"] >= SIGNIFICANT
    claim = "no difference is shown" if chance else "**more often**"
    return (
        f"By {escaped(title)}: {claim}, {worst} {number(gap['difference'], percent=True)} percentage points above {best}, "
        f"{p_value(gap['p_holm'])}."
    )
