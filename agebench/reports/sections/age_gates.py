"""Age gates in words and tables: which minors pass, which adults are refused, and the challenge age that a rate requires."""

from collections.abc import Mapping, Sequence

from agebench.metrics.schema import CountedGateRates, GateResult, MetricsFile, MetricValue, RequiredChallengeAge
from agebench.reports.formatting import DASH, MIN_CELL, escape_markdown, format_ci, format_count, markdown_table

# On the screen: years of age on both sides of the legal age, and no crossings of groups.
_SCREEN_YEARS = 5
_MIX_BANDS = ((0, 9), (10, 12), (13, 14), (15, 15), (16, 16), (17, 17), (18, 20))
_DEFINITION = (
    "A person passes when the estimate is at least the challenge age T. FPR: share of minors that pass; FNR: share of people of "
    "legal age that are refused. In brackets: exact 95 % intervals, which count people, not images, where people are known."
)
TOO_FEW_NOTE = (
    f"Too few: a group of fewer than {MIN_CELL} images, or one image of an age; metrics.json has the figures."
)
_F2 = (
    "- F2: weighted harmonic mean of recall (share of minors that are detected) and precision (share of minors among those that "
    "are detected), in which recall counts twice as much."
)


def gate_sections(gates: Mapping[str, GateResult], *, full: bool = True, level: int = 3) -> list[str]:
    """Return the Markdown parts about the age gates of one test set; none without gates.

    Args:
        gates: legal age -> its rates.
        full: every year of age and every grouping; False: the years next to the legal age, and no crossings.
        level: level of the first heading.
    """
    if not gates:
        return []
    parts = [f"{'#' * level} Age gates", _DEFINITION, gate_table(gates), _conditions(gates)]
    has_tables = any(gate.by_age or gate.by_group for gate in gates.values())
    parts += [TOO_FEW_NOTE] * has_tables
    for legal, gate in gates.items():
        tables = [_minors_table(int(legal), gate, full=full), _adults_table(int(legal), gate, full=full)]
        if any(tables):
            parts += [f"{'#' * min(level + 1, 4)} Legal age {legal}, by age and group", *filter(None, tables)]
    return parts


def gate_table(gates: Mapping[str, GateResult]) -> str:
    """One row a legal age and challenge age: rates over all minors, in the last year below the limit, and of adults."""
    rows = []
    for legal, gate in gates.items():
        for challenge, rates in gate.challenge.items():
            last = gate.by_age.get(challenge, {}).get(str(int(legal) - 1))
            rows.append(
                [
                    legal,
                    challenge,
                    format_count(gate.n_under),
                    share(rates.fpr),
                    DASH if last is None else _last_year(last.fpr, last.n),
                    format_count(gate.n_over),
                    share(rates.fnr),
                ]
            )
    headers = ["legal age", "T", "minors", "minors that pass (FPR)", "of those in the last year below", "of age"]
    return markdown_table([*headers, "of age refused (FNR)"], rows)


def _last_year(rate: MetricValue, n: int) -> str:
    count = f"(n = {format_count(n)})"
    return f"{share(rate)} {count}" if n > 1 else f"too few {count}"


def gate_overview(metrics: MetricsFile) -> str:
    """Render the gates of each test set of a run, and the ages of its minors; "" where no gates were computed."""
    parts = []
    for name, test in metrics.tests.items():
        if test.age_gates:
            parts.append(f"Age gates on {escape_markdown(name)}:\n\n{gate_table(test.age_gates)}")
            parts.append("\n".join(_minors_line(legal, gate) for legal, gate in test.age_gates.items()))
    return "\n\n".join(parts)


def share(figure: MetricValue | None) -> str:
    """`22.1 % [20.3, 24.0]`, or a dash; rates of gates lie near 0, where one decimal would hide them."""
    is_small = figure is not None and figure.value is not None and figure.value < 0.01
    return format_ci(figure, digits=2 if is_small else 1, percent=True)


def _conditions(gates: Mapping[str, GateResult]) -> str:
    """List by legal age the ages of the minors, the required challenge ages, and F2."""
    lines = []
    for legal, gate in gates.items():
        lines.append(_minors_line(legal, gate))
        lines.append(f"- T for an FPR at {legal}, all minors: {_required(gate.required)}.")
        if gate.required_below_limit:
            lines.append(f"- T for an FPR at {legal}, aged {int(legal) - 1}: {_required(gate.required_below_limit)}.")
        detection = gate.detection
        if detection is not None:
            lines.append(
                f"- Detection of minors at {legal} with {100 * detection.false_adult_rate:g} % false adults "
                f"(T = {detection.challenge:.2f}): F2 {format_ci(detection.f2, digits=3)}, recall "
                f"{100 * detection.recall:.1f} %, precision {100 * detection.precision:.1f} %, with "
                f"{100 * detection.prevalence:.1f} % minors in this test set."
            )
    if any(gate.detection is not None for gate in gates.values()):
        lines.append(_F2)
    return "\n".join(lines)


def _minors_line(legal: str, gate: GateResult) -> str:
    return f"- Minors at {legal}: {_age_mix(gate)}. The rate over all minors depends on this mix."


def _age_mix(gate: GateResult) -> str:
    """`1,234 images: 0-9 40 %, … 17 8 %`."""
    counts = {int(year): entry.n for year, entry in next(iter(gate.by_age.values()), {}).items()}
    total = max(sum(counts.values()), 1)
    parts = []
    for low, high in _MIX_BANDS:
        n = sum(count for year, count in counts.items() if low <= year <= high)
        if n:
            parts.append(f"{low if low == high else f'{low}-{high}'}: {100 * n / total:.0f} %")
    chosen = "" if gate.minor_ages is None else f" aged {gate.minor_ages[0]} to {gate.minor_ages[1]}"
    return f"{format_count(gate.n_under)} images{chosen} ({', '.join(parts)})"


def _required(required: Mapping[str, RequiredChallengeAge]) -> str:
    parts = []
    for target, figure in required.items():
        rate = f"{100 * float(target):g} %"
        if figure.value is None:
            parts.append(f"{rate}: cannot be found from {_worth(figure)} (at least {figure.n_needed:,} are needed)")
        else:
            parts.append(f"{rate}: T = {format_ci(figure)}")
    return "; ".join(parts)


def _worth(figure: RequiredChallengeAge) -> str:
    """Number of images; where people repeat, also the number of people and the effective number."""
    if figure.people is None or figure.n_effective == figure.n:
        return f"{figure.n:,} under-age images"
    return (
        f"{figure.n:,} under-age images of {figure.people:,} people, worth "
        f"{figure.n_effective or 0:,} images of as many people"
    )


def _minors_table(legal: int, gate: GateResult, *, full: bool) -> str:
    challenges = list(gate.challenge)
    years = {year: entry.n for year, entry in next(iter(gate.by_age.values()), {}).items()}
    rows = [
        [f"aged {year}", format_count(n), *_cells(n, 2, [gate.by_age[key][year].fpr for key in challenges])]
        for year, n in sorted(years.items(), key=lambda item: -int(item[0]))
        if full or int(year) >= legal - _SCREEN_YEARS
    ]
    for grouping, groups in _groups(gate, full=full):
        for name, group in groups.items():
            if group.n_under:
                rates = [gate.by_group[key][grouping][name].fpr for key in challenges]
                rows.append(
                    [group_label(grouping, name), format_count(group.n_under), *_cells(group.n_under, MIN_CELL, rates)]
                )
    return markdown_table([f"under {legal}", "n", *(f"pass at T = {key}" for key in challenges)], rows)


def _adults_table(legal: int, gate: GateResult, *, full: bool) -> str:
    challenges = list(gate.challenge)
    years = {year: entry.n for year, entry in next(iter(gate.refused_by_age.values()), {}).items()}
    rows = [
        [f"aged {year}", format_count(n), *_cells(n, 2, [gate.refused_by_age[key][year].fnr for key in challenges])]
        for year, n in years.items()
        if full or int(year) < legal + _SCREEN_YEARS
    ]
    for grouping, groups in _groups(gate, full=full):
        for name, group in groups.items():
            if group.n_over:
                rates = [gate.by_group[key][grouping][name].fnr for key in challenges]
                rows.append(
                    [group_label(grouping, name), format_count(group.n_over), *_cells(group.n_over, MIN_CELL, rates)]
                )
    return markdown_table([f"{legal} and over", "n", *(f"refused at T = {key}" for key in challenges)], rows)


def _cells(n: int, least: int, rates: Sequence[MetricValue]) -> list[str]:
    """The rates of one row; "too few" in the first column if they are of fewer than `least` images."""
    return [share(rate) for rate in rates] if n >= least else ["too few", *[DASH] * (len(rates) - 1)]


def _groups(gate: GateResult, *, full: bool) -> Sequence[tuple[str, Mapping[str, CountedGateRates]]]:
    groupings = next(iter(gate.by_group.values()), {})
    return [(grouping, groups) for grouping, groups in groupings.items() if full or "*" not in grouping]


def group_label(grouping: str, group: str) -> str:
    """Return `grouping: group` as Markdown; a crossing `a*b` is written `a × b`."""
    crossed = "*" in grouping
    names = [text.replace("*", " × ") if crossed else text for text in (grouping, group)]
    return f"{escape_markdown(names[0])}: {escape_markdown(names[1])}"
