"""Paired differences of systems in words and tables."""

from collections.abc import Mapping

from agebench.metrics.paired_figures import FigureKind
from agebench.metrics.schema import FigureDifference, FigureDifferences, MetricValue
from agebench.reports.formatting import DASH, escape_markdown, format_ci, format_count, join_words, markdown_table

_DEFINITION = (
    "FPR: share of minors that pass; FNR: share of people of age that are refused; failure: share of images without an "
    "estimate. Differences are first minus second, paired by image and person, with 95 % intervals for one figure; p is "
    "Holm-corrected over the pairs of systems. Each system's figures are those of `agebench score`; the interval of a gap holds "
    "for all pairs of groups, so it may contain 0."
)
_AGAINST = (
    "An image without an estimate counts against its system: as a miss in CS@5, as a refusal of a person of age in FNR, and as a "
    "failure. MAE, bias, gaps and FPR are taken on the images that every system answered."
)


def figure_sections(figures: FigureDifferences | None) -> list[str]:
    """Render all figures of a comparison as Markdown parts; none where they were not computed.

    Args:
        figures: the systems' figures and their differences.
    """
    if figures is None:
        return []
    parts = ["### Figures side by side", _DEFINITION]
    failures = [f"{escape_markdown(name)}: {format_count(n)}" for name, n in figures.unanswered.items() if n]
    if failures:
        parts.append(
            f"Of {format_count(figures.n)} images, {format_count(figures.n_common)} were answered by every system. "
            f"Not answered by {join_words(failures)}. {_AGAINST}"
        )
    keys = list(next(iter(figures.systems.values()), {}))
    rows = [[_label(key, figures), *(_value(key, values[key]) for values in figures.systems.values())] for key in keys]
    parts.append(markdown_table(["figure", *map(escape_markdown, figures.systems)], rows))
    for (a, b), differences in zip(figures.pairs, figures.differences, strict=True):
        parts.append(_pair_table(a, b, differences, figures))
    return parts


def _pair_table(a: str, b: str, differences: Mapping[str, FigureDifference], figures: FigureDifferences) -> str:
    has_margins = any(difference.margin for difference in differences.values())
    rows = []
    for key, difference in differences.items():
        row = [_label(key, figures), _value(key, difference.difference, sign=True), _p(difference)]
        row.append(_verdict(a, b, difference))
        rows.append(row + [_margin(a, b, difference)] * has_margins)
    headers = [f"{escape_markdown(a)} − {escape_markdown(b)}", "difference", "p (Holm)", "shown"]
    return markdown_table([*headers, *["against the margin"] * has_margins], rows, align=_ALIGN[: 4 + has_margins])


_ALIGN = ("left", "right", "right", "left", "left")


def _value(key: str, value: MetricValue, *, sign: bool = False) -> str:
    if _kind(key).is_share:
        # Rates near 0 would vanish with one decimal.
        is_small = value.value is not None and abs(value.value) < 0.01
        text = format_ci(value, digits=2 if is_small else 1, percent=True, sign=sign)
        return text.replace(" %", " points") if sign else text
    return format_ci(value, sign=sign or key == "bias")


_NAMES = {
    FigureKind.MAE: "MAE (years)",
    FigureKind.BIAS: "bias (years)",
    FigureKind.CS5: "CS@5",
    FigureKind.FPR: "FPR",
    FigureKind.FNR: "FNR",
    FigureKind.GAP: "largest gap in MAE (years)",
    FigureKind.FAILURE: "failure to process",
}


def _kind(key: str) -> FigureKind:
    return FigureKind(key.partition("(")[0])


def _label(key: str, figures: FigureDifferences) -> str:
    kind, (_, _, rest) = _kind(key), key.partition("(")
    inside = rest.removesuffix(")")
    if kind is FigureKind.GAP:
        where = ", at equal ages" if figures.groups_at_equal_ages.get(inside) else ""
        return f"{_NAMES[kind]}, {escape_markdown(inside)}{where}"
    if not inside:
        return _NAMES[kind]
    gate, _, age = inside.partition(", age ")
    legal, _, challenge = gate.partition("@")
    who = f", aged {age}" if age else ""
    return f"{_NAMES[kind]} at {legal}, T = {challenge}{who}"


def _p(difference: FigureDifference) -> str:
    p = difference.p_holm
    return DASH if p is None else f"{p:.3f}" if p >= 0.001 else "< 0.001"


def _verdict(a: str, b: str, difference: FigureDifference) -> str:
    value = difference.difference.value
    if not difference.shown or value is None:
        return "no difference shown"
    sign = FigureKind(difference.kind).worse_sign
    if not sign:
        return f"{escape_markdown(a)} estimates {'higher' if value > 0 else 'lower'}"
    return f"{escape_markdown(b if value * sign > 0 else a)} is better"


def _margin(a: str, b: str, difference: FigureDifference) -> str:
    test = difference.margin
    if test is None:
        return ""
    is_share = FigureKind(difference.kind).is_share
    margin = f"{100 * test.margin:g} points" if is_share else f"{test.margin:g} years"
    if test.equivalent:
        return f"equivalent within {margin}"
    value, low, high = difference.difference.value, difference.difference.ci_low, difference.difference.ci_high
    sign = FigureKind(difference.kind).worse_sign
    if (
        sign
        and value is not None
        and low is not None
        and high is not None
        and min(abs(low), abs(high)) > test.margin
        and low * high > 0
    ):
        return f"{escape_markdown(b if value * sign > 0 else a)} is better by more than {margin}"
    not_inferior = [name for name, holds in ((a, test.a_not_inferior), (b, test.b_not_inferior)) if holds]
    if not_inferior:
        return f"{escape_markdown(not_inferior[0])} is not inferior by {margin}; equivalence is not shown"
    return f"neither equivalence nor non-inferiority is shown (margin {margin})"
