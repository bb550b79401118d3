"""Failure to process in words and tables: for whom no face could be prepared."""

from collections.abc import Mapping
from typing import Any

from agebench.reports.tables import count, escaped, group_name, is_small, markdown_table, number, p_value, with_interval

_SIGNIFICANT = 0.05


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
    said = [_gap(grouping, gap) for grouping, gap in (found.get("gaps") or {}).items()]
    return " ".join([text, *said])


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


def _gap(grouping: str, gap: Mapping[str, Any]) -> str:
    title = "age" if grouping == "age_band" else group_name(grouping, grouping)
    worst, best = (escaped(group_name(grouping, gap[end])) for end in ("worst", "best"))
    chance = gap["p_holm"] >= _SIGNIFICANT
    claim = "no difference is shown" if chance else "**more often**"
    return (
        f"By {escaped(title)}: {claim}, {worst} {number(gap['difference'], percent=True)} percentage points above {best}, "
        f"{p_value(gap['p_holm'])}."
    )
