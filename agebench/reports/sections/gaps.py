"""The gap between groups in words: as it is, and at equal ages."""

from collections.abc import Mapping
from typing import Any

from agebench.metrics.fairness import SIGNIFICANT
from agebench.reports.formatting import (
    escape_markdown,
    format_ci,
    format_number,
    format_p_value,
    group_name,
)

_NAMED = 4  # groups of a set that a sentence names


def describe_gap(grouping: str, gap: Mapping[str, Any]) -> str:
    """One to three sentences; "" where no difference is known."""
    raw = _difference(grouping, gap)
    if not raw:
        return ""
    return _gap_text(grouping, gap, raw) + _possibly_worst(grouping, gap.get("standardised") or gap)


def _possibly_worst(grouping: str, part: Mapping[str, Any]) -> str:
    """Which groups may be the worst, where it is not one alone."""
    names = [escape_markdown(group_name(grouping, name)) for name in part.get("worst_groups") or ()]
    if len(names) < 2:
        return ""
    more = [f"{len(names) - _NAMED} more"] * (len(names) > _NAMED)
    return f" Which group is worst cannot be told: it may be {_either([*names[:_NAMED], *more])}."


def _either(names: list[str]) -> str:
    return " or ".join([", ".join(names[:-1]), names[-1]])


def _gap_text(grouping: str, gap: Mapping[str, Any], raw: str) -> str:
    shown = _shown(gap)
    claim = f"no difference is shown ({raw})" if shown is False else f"worst for {raw}"
    text = f"**{escape_markdown(group_name(grouping, grouping))}**: {claim}."
    even = gap.get("standardised")
    if not even:
        return text + (" The groups share too few ages to compare them at equal ages." if "standardised" in gap else "")
    # The gap at equal ages may also come alone, without its groups and test.
    even = even if "difference" in even else {"difference": even, "worst": gap.get("worst"), "best": gap.get("best")}
    at_equal_ages = _difference(grouping, even)
    if not at_equal_ages:
        return text
    covered = even.get("coverage")
    where = "" if covered is None else f" ({format_number(covered, digits=0, percent=True)} % of the images)"
    text += f" At equal ages{where}: {at_equal_ages}"
    if _shown(even) not in (None, shown):
        text += "; a difference is shown" if _shown(even) else "; no difference is shown"
    if shown is not False and _shrinks(gap, even):
        text += ". So part of the raw gap comes from the groups' different ages, not from the model"
    return text + "."


def _difference(grouping: str, gap: Mapping[str, Any]) -> str:
    """`female, MAE 1.32 [1.07, 1.56] years above male, p = 0.003`; "" where no difference is known."""
    if (gap.get("difference") or {}).get("value") is None:
        return ""
    worst, best = (
        escape_markdown(group_name(grouping, gap.get(end) or other))
        for end, other in (("worst", "one group"), ("best", "the best"))
    )
    p = gap.get("p_holm", gap.get("p"))
    text = f"{worst}, MAE {format_ci(gap['difference'])} years above {best}"
    return text if p is None else f"{text}, {format_p_value(p)}"


def _shown(gap: Mapping[str, Any]) -> bool | None:
    """Whether the test shows a difference; None where there was no test."""
    p = gap.get("p_holm", gap.get("p"))
    return None if p is None else p < SIGNIFICANT


def _shrinks(gap: Mapping[str, Any], even: Mapping[str, Any]) -> bool:
    said = gap.get("shrinks")
    return bool(even["difference"]["value"] < 0.9 * gap["difference"]["value"] if said is None else said)
