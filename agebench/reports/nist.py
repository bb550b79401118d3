"""A report card in the layout of NIST's FATE AEV: one page a system, from the metrics of `agebench score --preset nist`.

The sections and their order are those of NIST's report cards and of its results page: accuracy by dataset, MAE by sex and region of
birth, MAE by age, Challenge 25, child online safety. A failure to process is stated beside the errors, as ISO/IEC 19795-1 requires.
"""

from collections.abc import Mapping
from pathlib import Path

from agebench.metrics.schema import (
    AgeGateRate,
    AgeRefusalRate,
    FailureToProcess,
    GateResult,
    MetricsFile,
    MetricValue,
    NistAgeErrors,
    NistFateResult,
    TestResult,
)
from agebench.reports.formatting import (
    DASH,
    escape_markdown,
    format_ci,
    format_count,
    is_too_few,
    markdown_table,
)
from agebench.reports.markdown import write_markdown
from agebench.reports.sections.age_gates import group_label, share
from agebench.reports.sections.measurement import first_file_note, measurement_sections

NAME = "nist"
_ACCURACIES = ("1", "3", "5", "10")
_CHALLENGE = "25"
# Ages of the tables of Challenge 25: the minors next to the limit, and the adults up to the end of NIST's age range.
_GATE_AGES = range(13, 31)
_TERMS = (
    "- MAE: mean absolute error, years. Acc(x): share of images whose estimate is within x years of the age.",
    "- FPR of Challenge 25: share of people under 18 whose estimate is 25 or more. FNR: share of people of 18 or more whose "
    "estimate is below 25; they are asked for a document.",
    "- Failure to process: share of images without an estimate. No error rate counts these images.",
    "- In brackets: 95 % confidence intervals, by person where people are known.",
)
_SOURCE = (
    "Layout after the report cards of NIST's Face Analysis Technology Evaluation, Age Estimation and Verification (FATE AEV; "
    "Hanaoka et al. 2024, NIST IR 8525). These figures are not NIST's: NIST took no part in this test, and its images are others."
)


def write_nist_page(folder: Path, metrics: MetricsFile) -> Path | None:
    """Write nist.md and nist.html; nothing where no test set has the figures of NIST FATE AEV.

    Args:
        folder: the report's folder.
        metrics: the content of metrics.json.

    Returns:
        The path of the Markdown file, or None.
    """
    text = nist_page(metrics)
    return write_markdown(folder, text, NAME) if text else None


def nist_page(metrics: MetricsFile) -> str:
    """Return the report card as Markdown; "" where no test set has the figures of NIST FATE AEV.

    Args:
        metrics: the content of metrics.json.
    """
    entries = {name: entry for name, entry in metrics.tests.items() if entry.nist is not None}
    if not entries:
        return ""
    parts = [
        "# Report card in the layout of NIST FATE AEV",
        _SOURCE,
        *measurement_sections(metrics.measurement, metrics),
        "## Accuracy by dataset",
        _summary(entries),
        *(note for entry in entries.values() if (note := first_file_note(entry))),
        "\n".join(_TERMS),
    ]
    for name, entry in entries.items():
        parts += _dataset_sections(name, entry, several=len(entries) > 1)
    return "\n\n".join(filter(None, parts)) + "\n"


def _summary(entries: Mapping[str, TestResult]) -> str:
    """Two tables, one row a dataset: errors with the failure rate, and the shares within some years."""
    errors, shares = [], []
    for name, entry in entries.items():
        nist, failures = entry.nist, entry.failure_to_process
        assert nist is not None
        errors.append(
            [
                escape_markdown(name),
                format_count(entry.n),
                DASH if entry.subjects is None else format_count(entry.subjects),
                DASH if failures is None or not failures.n else share(failures.rate),
                format_ci(entry.metric("mae")),
                format_ci(nist.mae),
            ]
        )
        shares.append([escape_markdown(name), *(share(nist.all_ages.accuracy.get(x)) for x in _ACCURACIES)])
    headers = ["dataset", "images", "people", "failure to process", "MAE", "MAE, ages 18-30 (mean over ages and sexes)"]
    tables = [markdown_table(headers, errors), markdown_table(["dataset", *(f"Acc({x})" for x in _ACCURACIES)], shares)]
    return "\n\n".join(tables)


def _dataset_sections(name: str, entry: TestResult, *, several: bool) -> list[str]:
    """Return the sections of one dataset, whose name is in the headings if there are several."""
    nist = entry.nist
    assert nist is not None
    suffix = f": {escape_markdown(name)}" if several else ""
    sections = [
        (f"## MAE by sex and region of birth{suffix}", _regions(nist)),
        (f"## MAE by age and sex{suffix}", _ages(nist.by_age)),
        (f"## Challenge 25{suffix}", _challenge(nist)),
        (f"## Child online safety (13-16){suffix}", _children(nist)),
        (f"## Failure to process{suffix}", _failures(entry.failure_to_process)),
    ]
    return [part for heading, text in sections if text for part in (heading, text)]


def _regions(nist: NistFateResult) -> str:
    """MAE of women and men at ages 18 to 30 by region of birth, or by the column that stands for it."""
    sexes = list(nist.by_sex)
    rows = [["all", *(_counted(nist.by_sex[sex].mae, nist.by_sex[sex].n) for sex in sexes)]]
    column = None if nist.by_origin is None else nist.challenge_25.origin
    if nist.by_origin is not None:
        groups = nist.by_origin.groups
        origins = dict.fromkeys(key.rsplit(", ", 1)[0] for key in groups)
        for origin in origins:
            cells = [groups.get(f"{origin}, {sex}") for sex in sexes]
            rows.append(
                [escape_markdown(origin), *(DASH if cell is None else _counted(cell.mae, cell.n) for cell in cells)]
            )
    table = markdown_table([escape_markdown(column or "region"), *map(escape_markdown, sexes)], rows)
    note = f"Ages 18 to 30, mean over the ages; {_cells(nist.mae.cells, nist.mae.of_cells)}."
    if column is None:
        note += " The region of birth is not known."
    elif column != "region":
        note += f" The column {escape_markdown(column)} stands for the region of birth, which is not known."
    return f"{note}\n\n{table}"


def _cells(cells: int | None, expected: int | None) -> str:
    if cells == expected:
        return f"all {expected} cells of age and sex have images"
    return (
        f"{cells or 0} of {expected} cells of age and sex have images, so that these values do not compare with NIST's"
    )


def _counted(value: MetricValue | None, n: int | None, *, rate: bool = False) -> str:
    """`2.66 [2.61, 2.71] (n = 1,234)`; no value of fewer than five images."""
    if value is None or value.value is None or not n:
        return DASH
    count = f"(n = {format_count(n)})"
    if is_too_few(n):
        return f"too few {count}"
    return f"{share(value) if rate else format_ci(value)} {count}"


def _ages(bands: list[NistAgeErrors]) -> str:
    if not bands:
        return ""
    sexes = list(dict.fromkeys(sex for band in bands for sex in band.by_sex))
    rows = []
    for band in bands:
        n = band.mae.n
        few = is_too_few(n or 0)
        rows.append(
            [
                _span(band.ages),
                _counted(band.mae, n),
                *(_counted(band.by_sex.get(sex), band.by_sex[sex].n if sex in band.by_sex else 0) for sex in sexes),
                *(DASH if few else share(band.accuracy.get(x)) for x in ("3", "5")),
            ]
        )
    table = markdown_table(["ages", "MAE", *map(escape_markdown, sexes), "Acc(3)", "Acc(5)"], rows)
    return f"Means over images. The limits of the bands are the ages of NIST's tasks.\n\n{table}"


def _span(ages: list[int]) -> str:
    low, high = ages
    return str(low) if low == high else f"{low}-{high}"


def _challenge(nist: NistFateResult) -> str:
    challenge = nist.challenge_25
    where = "sexes" if challenge.origin is None else f"sexes and {escape_markdown(challenge.origin)}"
    parts = [
        f"FPR at age 17, mean over {where} ({challenge.cells} cells; NIST has {challenge.of_cells}): "
        f"**{share(challenge.fpr)}** (n = {format_count(challenge.n)})."
    ]
    gate = nist.all_ages.challenge_25
    if gate is not None:
        rates = gate.challenge[_CHALLENGE]
        parts.append(f"Over all ages of this dataset: FPR {share(rates.fpr)}, FNR {share(rates.fnr)}.")
        parts += [_gate_ages(gate), _gate_groups(gate)]
    return "\n\n".join(filter(None, parts))


def _gate_ages(gate: GateResult) -> str:
    """FPR of the ages below 18 and FNR of the ages from 18 on, one row a year."""
    minors: Mapping[str, AgeGateRate] = gate.by_age.get(_CHALLENGE, {})
    adults: Mapping[str, AgeRefusalRate] = gate.refused_by_age.get(_CHALLENGE, {})
    rows = []
    for age in map(str, _GATE_AGES):
        if age in minors:
            rows.append([age, _counted(minors[age].fpr, minors[age].n, rate=True), ""])
        elif age in adults:
            rows.append([age, "", _counted(adults[age].fnr, adults[age].n, rate=True)])
    return markdown_table(["age", "passes (FPR)", "refused (FNR)"], rows)


def _gate_groups(gate: GateResult) -> str:
    rows = [
        [
            group_label(grouping, name),
            _counted(group.fpr, group.n_under, rate=True),
            _counted(group.fnr, group.n_over, rate=True),
        ]
        for grouping, groups in gate.by_group.get(_CHALLENGE, {}).items()
        for name, group in groups.items()
    ]
    return markdown_table(["group", "under 18 that pass (FPR)", "18 or more that are refused (FNR)"], rows)


def _children(nist: NistFateResult) -> str:
    task = nist.child_online_safety
    rows = [
        ["MAE", "13-16", _counted(task.mae, task.mae.n)],
        ["estimated 13 to 16 (TPR)", "13-16", _counted(task.tpr, task.tpr.n, rate=True)],
        ["estimated 8 to 12 (FNR)", "13-16", _counted(task.fnr_below, task.fnr_below.n, rate=True)],
        ["estimated 17 to 22 (FNR)", "13-16", _counted(task.fnr_above, task.fnr_above.n, rate=True)],
        ["estimated 13 to 16 (FPR)", "8-12", _counted(task.fpr_below, task.fpr_below.n, rate=True)],
        ["estimated 13 to 16 (FPR)", "17-22", _counted(task.fpr_above, task.fpr_above.n, rate=True)],
    ]
    return markdown_table(["figure", "true ages", "value"], rows)


def _failures(failures: FailureToProcess | None) -> str:
    if failures is None or not failures.n:
        return ""
    counts = f"{format_count(failures.failed)} of {format_count(failures.n)} images"
    text = f"{share(failures.rate)} ({counts})."
    rows = [
        [group_label(grouping, name), f"{format_count(group.failed)} of {format_count(group.n)}", share(group.rate)]
        for grouping, groups in failures.groups.items()
        for name, group in groups.items()
    ]
    if not failures.failed or not rows:
        return text
    return f"{text}\n\n{markdown_table(['group', 'images', 'rate'], rows)}"
