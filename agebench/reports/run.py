"""The report of one run: report.md, report.html and figures, built from the files of the run."""

import json
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from agebench.config.toml_io import validate_model
from agebench.errors import UserError
from agebench.metrics.metric_specs import SPECS, Better, Unit
from agebench.metrics.schema import GroupMetrics, MetricsFile, MetricValue, TestResult
from agebench.reports.formatting import (
    escape_markdown,
    format_ci,
    format_count,
    format_number,
    group_table,
    join_words,
    markdown_table,
    picture,
)
from agebench.reports.manifest import RunManifest
from agebench.reports.markdown import write_markdown
from agebench.reports.plots.errors import error_curves
from agebench.reports.plots.evaluation import CAPTIONS, gate_figures
from agebench.reports.plots.run import dataset_colors, plot_run, plot_tests, save
from agebench.reports.sections.age_gates import gate_overview, gate_sections
from agebench.reports.sections.auxiliary_targets import task_parts
from agebench.reports.sections.external import cautions, describe_external, external_table, training_overlap
from agebench.reports.sections.failures import describe_failures, failures_tables
from agebench.reports.sections.gaps import describe_gap
from agebench.reports.sections.measurement import decision_sections, run_measurement_sections
from agebench.reports.sections.provenance import (
    describe_faces,
    describe_limit,
    describe_samples_used,
    training_table,
)
from agebench.reports.sections.shift import shift_overview, shift_parts
from agebench.reports.sections.splits import describe_protocol, test_label

_TESTED = (
    "Of several groups the two that came out furthest apart are named, so their gap tends to look larger than it is. Its "
    "interval allows for that choice: it holds for all pairs of groups at once (figures made before that have the interval of "
    "the two groups alone). Whether groups differ at all, a permutation test decides (p, Holm-corrected over the groupings). "
    "Groups with few images are shown, but not compared."
)
_SCORES = ("cs1", "cs3", "cs5", "cs10")
_ACROSS = ("mae", "range_mae", "range_hit", "rmse", "bias", "cs5")
_FURTHER = ("median_ae", "p95_ae", "balanced_mae_bands", "mae_within_train_ages", "r2", "pearson")
# How the values of a unit are written.
_FORMATS: dict[Unit, dict[str, Any]] = {
    Unit.SHARE: {"digits": 1, "percent": True},
    Unit.NONE: {"digits": 3},
}


def write_report(folder: Path) -> Path:
    """Write `report.md`, `report.html` and `figures/` into a run's folder.

    Every number comes from metrics.json, manifest.json and config.toml; only scatter and error curves read predictions.

    Raises:
        UserError: there is no run, or one of its files cannot be read.
    """
    metrics, manifest = _read_metrics(folder), _read_manifest(folder)
    history, config = _read(folder, "history.json", []), _read(folder, "config.toml", {})
    external = metrics.train is None
    captions = plot_run(folder, metrics, history) | _plot_gates(folder, metrics)
    drawn = {name: picture(name, caption) for name, caption in captions.items()}
    parts = [
        f"# {escape_markdown(manifest.name or folder.name)}",
        *run_measurement_sections(manifest, metrics),
        *decision_sections(metrics),
        "## Summary",
        describe_external(metrics, manifest) if external else _in_words(metrics, manifest),
        describe_limit(manifest),
        "" if external else training_overlap(metrics),
        _cross_dataset_table(metrics),
        describe_protocol(metrics),
        _method(metrics),
        _overall_table(metrics, _SCORES),
        drawn.get("cumulative-scores", ""),
        _overall_table(metrics, _FURTHER),
        drawn.get("scatter", ""),
        *_gates(metrics, drawn),
        "## Performance by age",
        drawn.get("error-by-age", ""),
        *_age_tables(metrics),
        "## Subgroup performance",
        *_fairness(metrics, drawn),
        *shift_parts(metrics),
        *_failures(metrics),
        *task_parts(metrics),
        *_error_analysis(folder, metrics),
        "## Face alignment",
        describe_faces(manifest),
        "## Excluded images",
        *describe_samples_used(manifest),
        drawn.get("ages-of-parts", ""),
        "## External model" if external else "## Training",
        external_table(manifest) if external else training_table(manifest, config),
        drawn.get("learning-curves", ""),
        "## Reproducing this run",
        "In this folder, with the same datasets on the machine:",
        f"```\nagebench {'test' if external else 'run'} --config config.toml --out DIR\n```",
    ]
    return write_markdown(folder, "\n\n".join(part for part in parts if part) + "\n")


def _read_metrics(folder: Path) -> MetricsFile:
    """Read the metrics.json of a run's folder, of schema 1 or 2.

    Raises:
        UserError: there is none, or it cannot be read.
    """
    content = _read(folder, "metrics.json", {})
    if not content:
        raise UserError(f"{folder}: no metrics.json; a report needs the folder of a run that has been evaluated")
    return MetricsFile.from_json(content, folder / "metrics.json")


def _read_manifest(folder: Path) -> RunManifest:
    """Read the manifest.json of a run's folder; an empty one where there is none.

    Raises:
        UserError: it cannot be read.
    """
    return validate_model(RunManifest, _read(folder, "manifest.json", {}), source=str(folder / "manifest.json"))


def summary(run: Path | MetricsFile) -> str:
    """Summarize a run for the command line, with one row per test set.

    Args:
        run: the run's folder, or the content of its metrics.json.
    """
    metrics = _read_metrics(run) if isinstance(run, Path) else run
    origin = "" if metrics.train is None else f"trained on {escape_markdown(metrics.train)}\n\n"
    table = f"{origin}{_cross_dataset_table(metrics)}"
    subset = describe_limit(_read_manifest(run)) if isinstance(run, Path) else ""
    overlap = training_overlap(metrics)
    shifts = shift_overview(metrics)
    parts = [subset, overlap, table, describe_protocol(metrics), cautions(metrics), shifts, gate_overview(metrics)]
    return "\n\n".join(filter(None, parts))


def _cross_dataset_table(metrics: MetricsFile) -> str:
    """One row a test set; the last column is the baseline: the MAE of always answering a median age.

    It is the training set's median, or the test set's own where nothing was trained. Where labels are ranges, the distance to
    the range and the share of estimates within it are shown beside the MAE, which takes the range's middle as the true age.
    """
    floors = {name: test.baseline_mae for name, test in metrics.tests.items()}
    floor = (
        {"median-age baseline MAE": [format_number(value) for value in floors.values()]}
        if set(floors.values()) - {None}
        else {}
    )
    return _overall_table(metrics, _ACROSS, **floor)


def _overall_table(metrics: MetricsFile, names: Sequence[str], **more: list[str]) -> str:
    """Format one row per test set with the overall metrics `names`; columns without any value are left out."""
    tests = metrics.tests
    shown = [name for name in names if name == "mae" or any(name in test.overall for test in tests.values())]
    if not shown:
        return ""
    rows = [
        [
            test_label(name, metrics),
            format_count(test.n),
            *(_format(test, key) for key in shown),
            *(column[row] for column in more.values()),
        ]
        for row, (name, test) in enumerate(tests.items())
    ]
    return markdown_table(["test set", "n", *(SPECS[name].header for name in shown), *more], rows)


def _format(test: TestResult, name: str) -> str:
    spec = SPECS[name]
    return format_ci(test.metric(name), sign=spec.better is Better.ZERO, **_FORMATS.get(spec.unit, {}))


def _in_words(metrics: MetricsFile, manifest: RunManifest) -> str:
    model, home, tests = manifest.model, metrics.train, metrics.tests
    title = manifest.train.title if manifest.train and manifest.train.title else home
    head = f" ({escape_markdown(model.head)} head)" if model.head else ""
    where = join_words(
        ["held-out faces of the same dataset" if name == home else escape_markdown(name) for name in tests]
    )
    sentences = [
        f"**{escape_markdown(model.title or model.name or 'A model')}**{head}, trained on "
        f"**{escape_markdown(title)}**, "
        f"tested on {where}."
    ]
    errors = {name: test.metric("mae") for name, test in tests.items()}
    away = {name: mae.value for name, mae in errors.items() if name != home and mae.value is not None}
    if away:
        # Of many test sets the best and the worst: the table has them all.
        ordered = sorted(away, key=away.__getitem__)
        named = [
            f"{format_ci(errors[name])} years on {escape_markdown(name)}"
            for name in dict.fromkeys([ordered[0], ordered[-1]])
        ]
        between = "between " if len(named) > 1 else ""
        sentences.append(f"On faces it was not trained for, it is on average off by **{between}{join_words(named)}**.")
    if home in tests:
        sentences.append(
            f"On held-out faces of its own dataset it is on average off by {format_ci(errors[home])} years."
        )
    floors = {name: test.baseline_mae for name, test in tests.items() if test.baseline_mae is not None}
    if floors:
        ends = " to ".join(dict.fromkeys(format_number(end) for end in (min(floors.values()), max(floors.values()))))
        sentences.append(f"Always answering the median age of the training set would be off by {ends} years.")
    # A model beats the baseline where its whole interval lies below; a missing figure claims nothing.
    highs = {name: _upper_end(errors[name]) for name in floors}
    weak = [escape_markdown(name) for name, high in highs.items() if high is not None and high >= floors[name]]
    if weak:
        sentences.append(f"**On {join_words(weak)} it is not shown to be better than that.**")
    return " ".join(sentences)


def _upper_end(metric: MetricValue) -> float | None:
    """Return the upper end of the interval; without an interval the value, None where the end is open."""
    return metric.value if "ci_high" not in metric.model_fields_set else metric.ci_high


def _method(metrics: MetricsFile) -> str:
    tests = metrics.tests
    subjects = {name: test.subjects for name, test in tests.items() if test.subjects}
    drawn = [f"the {format_count(n)} subjects of {escape_markdown(name)}" for name, n in subjects.items()]
    if len(drawn) < len(tests):
        drawn.append("single images elsewhere" if drawn else "images")
    return (
        f"In brackets: 95 % bootstrap intervals, resampling {join_words(drawn)}. Bias: predicted less true. CS@5: the share of "
        "images that are off by at most five years."
        + f" Median-age baseline MAE: of always predicting the {'training' if metrics.train else 'test'} set's median age."
    )


def _plot_gates(folder: Path, metrics: MetricsFile) -> dict[str, str]:
    """Write the figures of the age gates, and return their captions by name."""
    figures = [gate_figures(test.age_gates, place) for place, test in enumerate(metrics.tests.values())]
    return plot_tests(folder, {name: figure for part in figures for name, figure in part.items()}, CAPTIONS)


def _gates(metrics: MetricsFile, drawn: Mapping[str, str]) -> list[str]:
    parts = []
    for place, (name, test) in enumerate(metrics.tests.items()):
        if test.age_gates:
            sections = gate_sections(test.age_gates, level=4)
            parts += [f"### {escape_markdown(name)}, age gates", *sections[1:]]
            parts += [drawn.get(f"gates-{place}", ""), drawn.get(f"det-{place}", "")]
    return ["## Age gates", *parts] if parts else []


def _age_tables(metrics: MetricsFile) -> list[str]:
    parts = []
    for name, test in metrics.tests.items():
        table = group_table("true age", test.groups.get("age_band", {}))
        parts += [f"### {escape_markdown(name)}, by age", table] if table else []
    return parts or ["No figures by age were recorded."]


def _fairness(metrics: MetricsFile, drawn: Mapping[str, str]) -> list[str]:
    parts, without = [], []
    for place, (name, test) in enumerate(metrics.tests.items()):
        groups = _subgroups(test)
        if not groups:
            without.append(escape_markdown(name))
            continue
        parts.append(f"### {escape_markdown(name)}, by group")
        for grouping, entries in groups.items():
            words = [describe_gap(grouping, test.gaps[grouping])] if grouping in test.gaps else []
            if n_unknown := test.n_unknown.get(grouping):
                words.append(f"Unknown for {format_count(n_unknown)} images, which are in no group.")
            parts += [group_table(grouping, entries), " ".join(filter(None, words))]
        parts.append(drawn.get(f"groups-{place}", ""))
    nothing = f"No groups are annotated in {join_words(without)}, so no result is shown there." if without else ""
    return [_TESTED if parts else "", *parts, nothing]


def _subgroups(test: TestResult) -> dict[str, dict[str, GroupMetrics]]:
    """Return the groupings other than age bands."""
    return {name: groups for name, groups in test.groups.items() if name != "age_band" and groups}


def _error_analysis(folder: Path, metrics: MetricsFile) -> list[str]:
    """Curves of error and loss by age and group, and the place of the worst predictions."""
    parts = ["## Error analysis"]
    for name, (figure, caption) in error_curves(folder, metrics, dataset_colors(metrics.train, metrics.tests)).items():
        save(figure, folder / "figures" / f"{name}.png")
        parts.append(picture(name, caption))
    if (folder / "private" / "errors.md").exists():
        parts.append(
            "The worst predictions with their images, and labels that do not fit, are in `private/errors.md` of the run's "
            "folder: images of people, not for publication."
        )
    return parts if len(parts) > 1 else []


def _failures(metrics: MetricsFile) -> list[str]:
    """Describe the missing faces: a detector that misses some groups more than others biases a benchmark."""
    parts = []
    for name, test in metrics.tests.items():
        if test.failure_to_process is not None:
            parts += [describe_failures(name, test.failure_to_process), *failures_tables(test.failure_to_process)]
    return ["### Failure to process, by group", *parts] if parts else []


def _read(folder: Path, name: str, otherwise: Any) -> Any:
    """A JSON or TOML file of the folder, or `otherwise` where there is none.

    Raises:
        UserError: it cannot be read.
    """
    file = folder / name
    if not file.exists():
        return otherwise
    try:
        text = file.read_text(encoding="utf-8")
        return tomllib.loads(text) if name.endswith(".toml") else json.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{file}: cannot be read: {error}") from error
