"""Report sections for external models."""

from agebench.metrics.schema import MetricsFile, TestResult
from agebench.reports.formatting import (
    DASH,
    escape_markdown,
    format_ci,
    format_count,
    format_duration,
    format_number,
    join_words,
    markdown_table,
)
from agebench.reports.manifest import RunManifest

# Below this correlation with age an estimate follows something else, or the model is fed something else than in its training.
HARDLY = 0.3


def describe_external(metrics: MetricsFile, manifest: RunManifest) -> str:
    """Render the first paragraphs: the model, its test sets, and whether it can have been trained on these faces."""
    model, tests = manifest.model, metrics.tests
    errors = [f"{format_ci(test.metric('mae'))} years on {escape_markdown(name)}" for name, test in tests.items()]
    images = [f"{format_count(test.n)} images of {escape_markdown(name)}" for name, test in tests.items()]
    title = escape_markdown(model.title or model.name or "A model")
    opening = (
        f"**{title}**, as it is: nothing was trained here. It was tested on {join_words(images)}. "
        f"Its MAE is **{join_words(errors)}**."
    )
    floors = [
        f"{format_number(test.baseline_mae)} years on {escape_markdown(name)}"
        for name, test in tests.items()
        if test.baseline_mae is not None
    ]
    if floors:
        opening += f" Always answering the median age of the test set would be off by {join_words(floors)}."
    return "\n\n".join(filter(None, [opening, cautions(metrics), training_overlap(metrics)]))


def cautions(metrics: MetricsFile) -> str:
    """Warn of an estimator that does no better than a constant, or hardly follows age; empty where none does.

    Of models that were trained here the first paragraph of the report compares with the baseline.
    """
    if metrics.train is not None:
        return ""
    words = [_caution(escape_markdown(name), test) for name, test in metrics.tests.items()]
    words = list(filter(None, words))
    if not words:
        return ""
    ways = (
        "Wrong settings on the card have this effect. Compare with its training: the framing (`faces.coverage`), and on the "
        "card of an external model `value_range`, `mean`, `std`, `channels` and `layout` of `[input]`, and `name`, `column`, "
        "`scale` and `offset` of `[output]`."
    )
    return " ".join([*words, ways])


def _caution(name: str, test: TestResult) -> str:
    floor, mae, pearson = test.baseline_mae, test.metric("mae"), test.metric("pearson").value
    faults = []
    if floor is not None and mae.value is not None:
        if mae.value > floor:
            faults.append(
                f"is worse than always answering the median age ({format_number(mae.value)} against "
                f"{format_number(floor)} years)"
            )
        elif (mae.ci_high or mae.value) >= floor:
            faults.append(
                f"is not shown to be better than always answering the median age ({format_number(floor)} years)"
            )
    if "pearson" in test.overall and (pearson is None or pearson < HARDLY):
        how = "does not vary" if pearson is None else f"hardly correlates with age (Pearson {format_number(pearson)})"
        faults.append(how)
    return f"**On {name} the estimate {join_words(faults)}.**" if faults else ""


def training_overlap(metrics: MetricsFile) -> str:
    """Warn of test sets that the model was, or may have been, trained on; "" where neither is known or suspected.

    Args:
        metrics: content of metrics.json.
    """
    where: dict[str, list[str]] = {}
    for name, test in metrics.tests.items():
        where.setdefault(test.training_overlap or "", []).append(escape_markdown(name))
    words = []
    if "known" in where:
        who, source = ("it was", ", by its own card") if metrics.train is None else ("its initial weights were", "")
        words.append(
            f"**Contaminated: {who} trained on images of {join_words(where['known'])}**{source}. "
            "The figures there are no test and must not be compared with those of models that had not seen them."
        )
    if "validated" in where:
        words.append(
            f"**Not independent: its authors watched its training on {join_words(where['validated'])}**, by its card, "
            "so its weights "
            "were chosen with these images in sight."
        )
    if "unknown" in where:
        words.append(
            f"**Is it contaminated? What it was trained on is not known**, so it may have seen images or people of "
            f"{join_words(where['unknown'])}. Read the figures there as the best that can be the case, not as those "
            "on unseen faces; "
            "an error far below that of models known not to have seen them suggests that it has."
        )
    if "none stated" in where:
        words.append(
            f"By its card it was not trained on {join_words(where['none stated'])}; agebench has no way to check that."
        )
    return " ".join(words)


def external_table(manifest: RunManifest) -> str:
    """Describe the called model, its terms and the machine."""
    model, times = manifest.model, manifest.timings
    stages = [f"{key.removesuffix('_s')} {format_duration(value)}" for key, value in times.items() if key != "total_s"]
    digest = model.file_sha256
    facts = {
        "form": escape_markdown(model.format or DASH),
        "source": escape_markdown(model.source or DASH) + (f" (SHA-256 {digest}…)" if digest else ""),
        "trained on": escape_markdown(model.training_data or DASH),
        "licence": escape_markdown(model.licence or DASH),
        "citation": escape_markdown(model.citation or DASH),
        "machine": escape_markdown(manifest.machine),
        "time": f"{format_duration(times.get('total_s'))}: " + ", ".join(stages),
        "versions": ", ".join(
            f"{escape_markdown(name)} {escape_markdown(version)}" for name, version in manifest.all_versions.items()
        ),
        "commit": escape_markdown(manifest.git or DASH),
    }
    return markdown_table(["", ""], [[key, value] for key, value in facts.items()], align=("left", "left"))
