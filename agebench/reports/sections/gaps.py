"""The gap between groups in words: as it is, and at equal ages."""

from agebench.metrics.fairness import SIGNIFICANT
from agebench.metrics.schema import BiasGap, Gap, GroupDifference
from agebench.reports.formatting import (
    escape_markdown,
    format_ci,
    format_number,
    format_p_value,
    group_name,
)

_NAMED = 4  # groups of a set that a sentence names


def describe_gap(grouping: str, gap: Gap) -> str:
    """Describe a gap in one to three sentences; "" where no difference is known."""
    raw = _difference(grouping, gap)
    if not raw:
        return ""
    return (
        _gap_text(grouping, gap, raw)
        + _possibly_worst(grouping, gap.age_standardized or gap)
        + _bias_text(grouping, gap.bias)
    )


def _bias_text(grouping: str, bias: BiasGap | None) -> str:
    """Describe the gap in bias in a sentence; "" where it was not tested."""
    if bias is None or bias.p_holm is None:
        return ""
    highest, lowest = (escape_markdown(group_name(grouping, name)) for name in (bias.highest, bias.lowest))
    where = " at equal ages" if bias.at_equal_ages else ""
    pair = f"{highest} {format_ci(bias.difference, sign=True)} years against {lowest}, {format_p_value(bias.p_holm)}"
    if bias.p_holm < SIGNIFICANT:
        return f" Bias{where}: {pair}."
    return f" No difference in bias{where} is shown ({pair})."


def _possibly_worst(grouping: str, part: GroupDifference) -> str:
    """Which groups may be the worst, where it is not one alone."""
    names = [escape_markdown(group_name(grouping, name)) for name in part.worst_groups or ()]
    if len(names) < 2:
        return ""
    more = [f"{len(names) - _NAMED} more"] * (len(names) > _NAMED)
    return f" Which group is worst is uncertain: it may be {_either([*names[:_NAMED], *more])}."


def _either(names: list[str]) -> str:
    return " or ".join([", ".join(names[:-1]), names[-1]])


def _gap_text(grouping: str, gap: Gap, raw: str) -> str:
    shown = _shown(gap)
    claim = f"no difference is shown ({raw})" if shown is False else f"worst for {raw}"
    text = f"**{escape_markdown(group_name(grouping, grouping))}**: {claim}."
    even = gap.age_standardized
    if even is None:
        computed = "age_standardized" in gap.model_fields_set
        return text + (" The groups share too few ages to compare them at equal ages." if computed else "")
    at_equal_ages = _difference(grouping, even)
    if not at_equal_ages:
        return text
    covered = even.coverage
    where = "" if covered is None else f" ({format_number(covered, digits=0, percent=True)} % of the images)"
    text += f" At equal ages{where}: {at_equal_ages}"
    if _shown(even) not in (None, shown):
        text += "; a difference is shown" if _shown(even) else "; no difference is shown"
    if shown is not False and _is_explained(gap, even):
        text += ". So part of the raw gap comes from the groups' different ages, not from the model"
    return text + "."


def _difference(grouping: str, gap: GroupDifference) -> str:
    """`female, MAE 1.32 [1.07, 1.56] years above male, p = 0.003`; "" where no difference is known."""
    if gap.difference.value is None:
        return ""
    worst, best = (
        escape_markdown(group_name(grouping, name)) for name in (gap.worst or "one group", gap.best or "the best")
    )
    p = gap.adjusted_p
    text = f"{worst}, MAE {format_ci(gap.difference)} years above {best}"
    return text if p is None else f"{text}, {format_p_value(p)}"


def _shown(gap: GroupDifference) -> bool | None:
    """Return whether the test shows a difference; None where there was no test."""
    return None if gap.adjusted_p is None else gap.adjusted_p < SIGNIFICANT


def _is_explained(gap: Gap, even: GroupDifference) -> bool:
    """Return whether the ages explain part of the raw gap; estimated where that was not recorded."""
    if gap.explained_by_age is not None or even.difference.value is None or gap.difference.value is None:
        return bool(gap.explained_by_age)
    return even.difference.value < 0.9 * gap.difference.value
