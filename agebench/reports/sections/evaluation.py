"""The metrics of metrics.json and comparison.json as Markdown."""

from collections.abc import Mapping

from agebench.metrics.fairness import SIGNIFICANT, describe_gap
from agebench.metrics.metric_specs import SPECS, Unit
from agebench.metrics.schema import (
    BiasGap,
    CellAverage,
    ComparisonFile,
    ConformalResult,
    Gap,
    GroupDifference,
    MetricsFile,
    MetricValue,
    NistChallenge,
    NistErrors,
    NistFateResult,
    NistGroup,
    PairComparison,
    TestResult,
    UncertaintyResult,
)
from agebench.reports.formatting import (
    DASH,
    OPEN_END,
    escape_markdown,
    explain_open_ends,
    format_ci,
    format_p_value,
    group_table,
    markdown_table,
)
from agebench.reports.sections.age_gates import gate_sections
from agebench.reports.sections.measurement import first_file_note
from agebench.reports.sections.paired_figures import figure_sections
from agebench.reports.sections.rankings import RANKS, ranking_sections, ranks_on_test_set
from agebench.reports.sections.requirements import requirement_sections

_OVERALL = (
    "mae",
    "balanced_mae",
    "balanced_mae_bands",
    "mae_within_train_ages",
    "rmse",
    "bias",
    "median_ae",
    "p95_ae",
    "range_mae",
    "epsilon_error",
    "r2",
    "pearson",
    "spearman",
)
_SHARES = ("cs1", "cs3", "cs5", "cs10", "range_hit")


def years(figure: MetricValue | None, *, sign: bool = False) -> str:
    """`2.66 [2.61, 2.71]`, or a dash."""
    return format_ci(figure, sign=sign)


def percent(figure: MetricValue | None) -> str:
    """`88.7 % [88.1, 89.3]`, or a dash."""
    # Rates of gates lie near 0, where one decimal would hide them.
    small = figure is not None and figure.value is not None and figure.value < 0.01
    return format_ci(figure, digits=2 if small else 1, percent=True)


def clean(name: object) -> str:
    """A name from someone's file, a crossing `a*b` as `a × b`."""
    return escape_markdown(str(name).replace("*", " × "))


def score_text(metrics: MetricsFile, *, full: bool = False) -> str:
    """Every test set of a metrics.json as Markdown sections.

    Args:
        metrics: the content of metrics.json.
        full: age gates by every year of age and every grouping, as in a report; False: the rows for a screen.
    """
    return "\n\n".join(_test_text(name, entry, full=full) for name, entry in metrics.tests.items()) + "\n"


def _test_text(name: str, entry: TestResult, *, full: bool) -> str:
    """Render one test set as Markdown: overall, by group, gaps, age gates, and what else its entry contains.

    Args:
        name: the test set's name.
        entry: its metrics.
        full: see `score_text`.
    """
    parts = [f"## {clean(name)}", opening(entry), *requirement_sections(entry.requirements), _overall(entry)]
    parts += [group_table(grouping, rows) for grouping, rows in entry.groups.items()]
    parts += _gaps(entry.gaps)
    parts += gate_sections(entry.age_gates, full=full)
    if entry.uncertainty:
        parts += _uncertainty(entry.uncertainty)
    if entry.conformal:
        parts += _conformal(entry.conformal)
    if entry.nist:
        parts += _nist(entry.nist)
    notes = [*entry.notes, *([explain_open_ends()] if OPEN_END in "".join(parts) else [])]
    if notes:
        parts.append("\n".join(f"- {clean(note)}" for note in notes))
    return "\n\n".join(parts)


def opening(entry: TestResult) -> str:
    """Render what the figures of a test set are of: images, people, intervals, and images that were not scored.

    Args:
        entry: its metrics.
    """
    method = entry.method
    text = f"{entry.n:,} images"
    if entry.subjects:
        text += f" of {entry.subjects:,} subjects"
    if entry.seeds:
        text += f", {entry.seeds.count} seeds (figures are the mean over them)"
    if method is not None and method.resamples:
        how = f"{method.interval} bootstrap of {method.resampled}, {method.resamples:,} resamples"
        text += f". In brackets: 95 % intervals ({how})"
    text = " ".join(filter(None, [f"{text}.", first_file_note(entry)]))
    not_scored = entry.not_scored.to_json() if entry.not_scored else {}
    failures = entry.failure_to_process
    if failures is not None and failures.n:
        text += f" Scored: {entry.n:,} of {failures.n:,} images; failure to process {percent(failures.rate)}."
    left = {key: count for key, count in not_scored.items() if count}
    if left:
        text += f" Not scored: {', '.join(f'{count:,} {_NOT_SCORED[key]}' for key, count in left.items())}."
    return text


_NOT_SCORED = {
    "missing": "labelled images without a prediction",
    "extra": "predictions without a label",
    "duplicates": "repeated rows",
}


UNDERCOVERS = " †"
_TAILS = (
    "† The errors have heavy tails, or are too few to exclude them. No interval of an RMSE reaches 95 % then; in simulations "
    "this one holds the truth in 75 to 90 of 100 cases."
)


def _overall(entry: TestResult) -> str:
    overall = entry.overall
    rows = []
    for key in _OVERALL:
        if key in overall:
            unitless = SPECS[key].unit is Unit.NONE
            figure = format_ci(overall[key], digits=3 if unitless else 2, sign=key == "bias")
            mark = UNDERCOVERS if key in entry.undercovering else ""
            rows.append([SPECS[key].header, figure + mark])
    rows += [[SPECS[key].header, percent(overall[key])] for key in _SHARES if key in overall]
    if entry.seeds:
        of = entry.seeds.metrics["mae"]
        values = ", ".join(f"{value:.2f}" for value in of.values)
        rows.append(["MAE of each seed; standard deviation", f"{values}; {of.sd:.2f}"])
    table = markdown_table(["all images", "figure"], rows)
    return f"{table}\n\n{_TAILS}" if entry.undercovering else table


_SIMULTANEOUS = (
    "Worst and best are chosen for their distance. The intervals hold for all pairs of groups at once, so they allow for "
    "that choice."
)


_BIAS = (
    "Bias: estimates less ages. A group that is estimated higher passes an age gate earlier. The test and the intervals are those "
    "of the MAE, with their own correction over the groupings."
)


def _gaps(gaps: Mapping[str, Gap]) -> list[str]:
    if not gaps:
        return []
    rows = []
    for name, gap in gaps.items():
        even = gap.age_standardized
        rows.append([clean(name), years(gap.difference), years(gap.ratio), _p(gap)])
        if even:
            label = f"{clean(name)}, at equal ages ({100 * (even.coverage or 0):.0f} % of images)"
            rows.append([label, years(even.difference), years(even.ratio), _p(even)])
    sentences = [f"- {clean(name)}: {describe_gap(gap, clean)}." for name, gap in gaps.items()]
    return [
        "### Gaps between groups",
        markdown_table(["worst against best", "difference (years)", "ratio", "p (Holm)"], rows),
        *([_SIMULTANEOUS] if any(gap.worst_groups for gap in gaps.values()) else []),
        "\n".join(sentences),
        *_bias_gaps(gaps),
    ]


def _bias_gaps(gaps: Mapping[str, Gap]) -> list[str]:
    """The table of the gaps in bias; none where they were not computed."""
    rows = [
        [
            f"{clean(name)}{', at equal ages' if gap.bias.at_equal_ages else ''}",
            f"{clean(gap.bias.highest)} against {clean(gap.bias.lowest)}",
            years(gap.bias.difference, sign=True),
            _p(gap.bias),
        ]
        for name, gap in gaps.items()
        if gap.bias is not None
    ]
    if not rows:
        return []
    headers = ["grouping", "estimated highest against lowest", "difference in bias (years)", "p (Holm)"]
    return [_BIAS, markdown_table(headers, rows, align=["left", "left", "right", "right"])]


def _p(gap: GroupDifference | BiasGap | PairComparison) -> str:
    p = gap.p_holm
    return DASH if p is None else (f"{p:.3f}" if p >= 0.001 else "< 0.001")


def _uncertainty(doubt: UncertaintyResult) -> list[str]:
    rows = [[f"{100 * float(level):g} %", percent(of.coverage), years(of.width)] for level, of in doubt.levels.items()]
    area = doubt.rejection
    text = (
        f"NLL {years(doubt.nll)}, CRPS {years(doubt.crps)} years. Rejecting the most doubtful first: mean MAE over "
        f"shares kept {years(area.area)} (at random {area.area_random:.2f}, at best {area.area_best:.2f})."
    )
    return ["### Uncertainty", markdown_table(["interval", "covers", "width (years)"], rows), text]


def _conformal(found: ConformalResult) -> list[str]:
    rows = []
    for level, of in found.levels.items():
        rows.append([f"{100 * float(level):g} %", "all", percent(of.coverage), f"{of.width:.2f}"])
        for grouping, groups in of.groups.items():
            rows += [
                ["", f"{clean(grouping)}: {clean(name)}", percent(row.coverage), ""] for name, row in groups.items()
            ]
    people = found.people_calibration
    text = f"Calibrated on {found.n_calibration:,} images"
    text += "." if people is None else f" of {people:,} people; the guarantee is for an image of a new person."
    return ["### Conformal intervals", markdown_table(["promised", "group", "covers", "width (years)"], rows), text]


def _nist(found: NistFateResult) -> list[str]:
    """Tables of NIST's figures and agebench's, with the ages that each is taken at."""
    gate, task, ours = found.challenge_25, found.child_online_safety, found.all_ages
    rows = _nist_errors(found)
    where = "sex and region of birth" if gate.origin is None else f"sex and {clean(gate.origin)}"
    rows.append(
        [f"Challenge 25, false positives (mean over {where})", *_nist_place(gate), percent(gate.fpr)],
    )
    rows.append(["Child online safety (13-16), MAE", *_nist_place(task.mae), years(task.mae)])
    labels = [
        (task.tpr, "true positives (estimated 13 to 16)"),
        (task.fnr_below, "false negatives (estimated 8 to 12)"),
        (task.fnr_above, "false negatives (estimated 17 to 22)"),
        (task.fpr_below, "false positives (estimated 13 to 16)"),
        (task.fpr_above, "false positives (estimated 13 to 16)"),
    ]
    rows += [[f"Child online safety (13-16), {label}", *_nist_place(rate), percent(rate)] for rate, label in labels]
    own = _nist_errors(ours)
    own += [
        [f"Acc({x})", *_nist_place(ours.mae)[:2], "", percent(figure)]
        for x, figure in ours.accuracy.items()
        if x in ("1", "3", "5", "10")
    ]
    if ours.challenge_25:
        rates, all_gate = ours.challenge_25.challenge["25"], ours.challenge_25
        for rate, label, ages, n in (
            (rates.fpr, "false positives", "below 18", all_gate.n_under),
            (rates.fnr, "false negatives", "18 and over", all_gate.n_over),
        ):
            own.append([f"Challenge 25, {label}", ages, f"{n:,}", "", percent(rate)])
    headers = ["figure", "ages", "n", "cells", "value"]
    lacking = (found.mae.cells, gate.cells) != (found.mae.of_cells, gate.of_cells)
    text = (
        "As NIST IR 8525 and its results page define them. A cell is an age of one sex, or for Challenge 25 a sex of one region "
        "of birth."
    )
    if lacking:
        text += " Some figures here are of fewer or other cells than NIST's: these do not compare with NIST's."
    return [
        "### Figures of NIST FATE AEV",
        text,
        markdown_table(headers, rows),
        "### The same over all ages of this test set (not NIST's)",
        markdown_table(headers, own),
    ]


def _nist_errors(found: NistErrors) -> list[list[str]]:
    rows = [["MAE (mean over cells of sex and age)", *_nist_place(found.mae), years(found.mae)]]
    groups = {**found.by_sex, **(found.by_origin.groups if found.by_origin else {})}
    return rows + [
        [f"MAE, {clean(name)} (mean over ages)", *_nist_place(entry), years(entry.mae)]
        for name, entry in groups.items()
    ]


def _nist_place(entry: CellAverage | NistGroup | NistChallenge) -> list[str]:
    """Ages, n and cells of a figure: `18-30`, `1,234`, `26 of 26`."""
    low, high = entry.ages
    cells, expected = entry.cells, entry.of_cells
    whole = "" if not expected else f" of {expected}" if (cells or 0) <= expected else f" (NIST: {expected})"
    return [
        str(low) if low == high else f"{low}-{high}",
        f"{entry.n or 0:,}",
        "" if cells is None else f"{cells}{whole}",
    ]


def compare_text(result: ComparisonFile) -> str:
    """A comparison: every test set's systems and pairs, then the ranking over test sets where there are several."""
    parts = []
    for name, found in result.tests.items():
        text = f"{found.n:,} images" + (f" of {found.subjects:,} subjects" if found.subjects else "")
        text += " that every system has" + (f"; {found.left_out:,} others left out" if found.left_out else "") + "."
        ranks = ranks_on_test_set(result, name)
        systems = [
            [clean(system), str(row.seeds), years(row.mae), *([ranks[system]] if ranks else [])]
            for system, row in found.systems.items()
        ]
        pairs = [[f"{clean(row.a)} − {clean(row.b)}", years(row.difference, sign=True), _p(row)] for row in found.pairs]
        parts += [
            f"## {clean(name)}",
            text,
            markdown_table(["system", "seeds", "MAE (years)", *["rank"] * bool(ranks)], systems),
        ]
        parts += [RANKS] if ranks else []
        if found.figures is None:  # otherwise the difference is a row of the figures
            parts.append(markdown_table(["pair", "MAE difference (years)", "p (bootstrap, Holm)"], pairs))
        parts.append("\n".join(f"- {clean(row.a)}, {clean(row.b)}: {clean(row.verdict)}." for row in found.pairs))
        parts += figure_sections(found.figures)
    parts += ranking_sections(result)
    across = result.across
    if across:
        rows = [[clean(name), f"{across.ranks[name]:.2f}"] for name in across.systems]
        p = across.friedman.p
        verdict = (
            "no difference shown over the test sets"
            if p is None or p >= SIGNIFICANT
            else "the systems differ over the test sets"
        )
        p_text = f"p = {DASH}" if p is None else format_p_value(p)
        text = (
            f"Friedman's test over {len(across.datasets)} test sets: {p_text}, {verdict}. Mean ranks closer than "
            f"{across.critical_difference:.2f} (Nemenyi) are not distinguishable."
        )
        parts += ["### Appendix: mean ranks over test sets", markdown_table(["system", "mean rank"], rows), text]
    return "\n\n".join(parts) + "\n"
