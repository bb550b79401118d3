"""The beginning of a report: what was measured, when, by which version and command, on which data; then the figures that decide."""

from agebench.metrics.gaps import worst_group
from agebench.metrics.schema import FailureToProcess, Measurement, MetricsFile, TestResult
from agebench.reports.formatting import (
    DASH,
    escape_markdown,
    format_ci,
    format_count,
    format_p_value,
    group_name,
    join_words,
    markdown_table,
)
from agebench.reports.manifest import RunManifest
from agebench.reports.sections.age_gates import share

_LEFT = ("left", "left")
_DIGEST_LENGTH = 16


def measurement_sections(measurement: Measurement | None, metrics: MetricsFile) -> list[str]:
    """Render what a scored file's figures are of as Markdown parts; none where it was not recorded.

    Args:
        measurement: time, version, command and files.
        metrics: the test sets, for the numbers of images.
    """
    if measurement is None:
        return []
    rows = _measurement_rows(measurement, "age estimates from files, against the labels beside them")
    rows += _image_rows(metrics)
    return ["## Measurement", markdown_table(["", ""], rows, align=_LEFT)]


def comparison_measurement_sections(measurement: Measurement | None) -> list[str]:
    """Render what a comparison's figures are of as Markdown parts; none where it was not recorded.

    Args:
        measurement: time, version, command and files.
    """
    if measurement is None:
        return []
    rows = _measurement_rows(measurement, "differences of systems on the same images")
    return ["## Measurement", markdown_table(["", ""], rows, align=_LEFT)]


def _measurement_rows(measurement: Measurement, subject: str) -> list[list[str]]:
    rows = [
        ["measured", subject],
        ["on", escape_markdown(measurement.created)],
        ["with", f"agebench {escape_markdown(measurement.version)}"],
        ["command", escape_markdown(measurement.command)],
    ]
    rows += [
        [escape_markdown(file.role), f"{escape_markdown(file.name)}, SHA-256 {escape_markdown(file.sha256)}"]
        for file in measurement.files
    ]
    return [*rows, ["license of the data", "not recorded: the files do not state one"]]


def run_measurement_sections(manifest: RunManifest, metrics: MetricsFile) -> list[str]:
    """Render what a run's or a test's figures are of as Markdown parts.

    Args:
        manifest: the content of the run's manifest.json.
        metrics: its test sets.
    """
    model = manifest.model
    command = "run" if metrics.train is not None else "test"
    rows = [
        ["measured", escape_markdown(model.title or model.name or "a model")],
        ["on", escape_markdown(manifest.measured or DASH)],
        ["with", f"agebench {escape_markdown(manifest.agebench or DASH)}"],
        ["command", f"agebench {command} --config config.toml"],
    ]
    for name in metrics.tests:
        fingerprint = manifest.samples[name].fingerprint if name in manifest.samples else ""
        digest = f", digest of images and labels {escape_markdown(fingerprint[:_DIGEST_LENGTH])}" if fingerprint else ""
        licence = escape_markdown(manifest.licences.get(name) or "not recorded")
        rows.append([f"data: {escape_markdown(name)}", f"license {licence}{digest}"])
    return ["## Measurement", markdown_table(["", ""], [*rows, *_image_rows(metrics)], align=_LEFT)]


def _image_rows(metrics: MetricsFile) -> list[list[str]]:
    """N of N and the failure rate of each test set; with one test set its name is left out."""
    rows = []
    for name, entry in metrics.tests.items():
        suffix = f" of {escape_markdown(name)}" if len(metrics.tests) > 1 else ""
        people = f" of {format_count(entry.subjects)} people" if entry.subjects else ""
        failures = entry.failure_to_process
        held_out = " (those of the test part)" if name == metrics.train else ""
        rows.append([f"images{suffix}", f"{format_count(entry.n)} scored{held_out}{people}"])
        if failures is not None and failures.n:
            rows.append([f"failure to process{suffix}", _failure(failures)])
    return rows


def _failure(failures: FailureToProcess) -> str:
    counts = f"{format_count(failures.failed)} of {format_count(failures.n)} images"
    return f"{share(failures.rate)} ({counts})"


def first_file_note(entry: TestResult) -> str:
    """Name the figures that are of the first of several files, where the others are means over them; "" elsewhere.

    Args:
        entry: the metrics of one test set.
    """
    if not _is_first_file(entry):
        return ""
    groups = ["age gates"] * bool(entry.age_gates) + ["uncertainty"] * bool(entry.uncertainty)
    groups += ["conformal intervals"] * bool(entry.conformal) + ["NIST's figures"] * bool(entry.nist)
    return f"Of the first file alone: {join_words(groups)}." if groups else ""


def _is_first_file(entry: TestResult) -> bool:
    """Return whether rates at age gates are of one of several seeds; those of a run's folds are of all answers."""
    return entry.seeds is not None and entry.folds is None


def decision_table(entry: TestResult) -> str:
    """One row a figure that decides: errors, the largest gap, the gate of the legal age 18, failures.

    Args:
        entry: the metrics of one test set.
    """
    rows = [
        ["MAE (years)", format_ci(entry.metric("mae"))],
        ["bias (years)", format_ci(entry.metric("bias"), sign=True)],
        ["CS@5", format_ci(entry.metric("cs5"), digits=1, percent=True)],
    ]
    rows += [row for row in (_largest_gap(entry), _bias_gap(entry), _worst_group(entry)) if row]
    gate = entry.age_gates.get("18")
    if gate is not None:
        first = ", first file" * _is_first_file(entry)
        for challenge, rates in gate.challenge.items():
            last = gate.by_age.get(challenge, {}).get("17")
            rows.append([f"minors that pass at T = {challenge} (legal age 18){first}", share(rates.fpr)])
            if last is not None:
                rate = share(last.fpr) if last.n > 1 else "too few (n = 1)"
                rows.append([f"17-year-olds that pass at T = {challenge}{first}", rate])
            rows.append([f"people of age that are refused at T = {challenge}{first}", share(rates.fnr)])
    if entry.failure_to_process is not None and entry.failure_to_process.n:
        rows.append(["failure to process", _failure(entry.failure_to_process)])
    return markdown_table(["figure", "value [95 % interval]"], rows)


def _largest_gap(entry: TestResult) -> list[str]:
    """The grouping with the smallest p value at equal ages, or raw where no ages can be compared."""
    parts = [(name, gap.age_standardized or gap, gap.age_standardized is not None) for name, gap in entry.gaps.items()]
    known = [(name, part, even) for name, part, even in parts if part.difference.value is not None]
    if not known:
        return []
    name, part, even = min(known, key=lambda item: (item[1].adjusted_p or 0.0, -(item[1].difference.value or 0.0)))
    p = "" if part.adjusted_p is None else f", {format_p_value(part.adjusted_p)}"
    pair = f"{escape_markdown(group_name(name, part.worst or ''))} against {escape_markdown(group_name(name, part.best or ''))}"
    where = " at equal ages" if even else ""
    return [f"most certain gap in MAE{where} (years): {pair}", f"{format_ci(part.difference)}{p}"]


def _bias_gap(entry: TestResult) -> list[str]:
    """The grouping with the smallest p value of equal biases."""
    tested = [
        (name, gap.bias) for name, gap in entry.gaps.items() if gap.bias is not None and gap.bias.p_holm is not None
    ]
    if not tested:
        return []
    name, bias = min(tested, key=lambda item: (item[1].p_holm or 0.0, -(item[1].difference.value or 0.0)))
    pair = " against ".join(escape_markdown(group_name(name, group)) for group in (bias.highest, bias.lowest))
    where = " at equal ages" if bias.at_equal_ages else ""
    return [
        f"most certain gap in bias{where} (years): {pair}",
        f"{format_ci(bias.difference, sign=True)}, {format_p_value(bias.p_holm or 0.0)}",
    ]


def _worst_group(entry: TestResult) -> list[str]:
    worst = worst_group(entry.gaps)
    if worst is None:
        return []
    name = escape_markdown(group_name(worst.grouping, worst.group))
    where = ", at equal ages" if worst.at_equal_ages else ""
    verdict = "shown" if worst.shown else "not shown"
    label = f"worst of {worst.n_groups} groups and crossings{where} (years above all others): {name}"
    return [label, f"{format_ci(worst.excess, sign=True)}, {verdict}"]


def decision_sections(metrics: MetricsFile) -> list[str]:
    """Return the decision table of each test set, each under its name where there are several."""
    parts = ["## Figures that decide"]
    for name, entry in metrics.tests.items():
        parts += [f"### {escape_markdown(name)}"] * (len(metrics.tests) > 1)
        parts.append(decision_table(entry))
    return parts
