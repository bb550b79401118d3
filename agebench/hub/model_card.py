"""README of a pushed model: its metrics as a model index of the hub, and as text with their intervals."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agebench.errors import UserError
from agebench.estimators.exported.card import ExportCard, TrainingFacts
from agebench.metrics.schema import CalibratedInterval, TestResult
from agebench.registry.catalog import Catalog
from agebench.reports.formatting import (
    escape_markdown,
    format_ci,
    format_count,
    format_number,
)
from agebench.reports.manifest import RunManifest
from agebench.reports.sections.card_tables import MODEL_INDEX_METRICS, group_tables, overall_table
from agebench.reports.sections.provenance import describe_limit
from agebench.reports.sections.splits import describe_protocol, leaks_of
from agebench.utils.io import write_text


def model_card(card: ExportCard, manifest: RunManifest, repo: str, cards: Catalog) -> str:
    """Return the text of README.md, whose header huggingface_hub writes and reads back.

    Further checks run on the hub during an upload.

    Args:
        card: the card of the run.
        manifest: the content of its manifest.json.
        repo: OWNER/NAME.
        cards: the registered cards, for the titles of datasets.

    Raises:
        UserError: huggingface_hub refuses the header, or reads other values than were written.
    """
    from huggingface_hub import ModelCardData

    results = _results(card.figures.tests, cards)
    data = ModelCardData(
        model_name=repo.split("/")[1],
        eval_results=results,
        license="other",
        license_name="training-data-terms",
        library_name="agebench",
        tags=["age-estimation", "face", "agebench"],
    )
    text = f"---\n{data.to_yaml()}\n---\n\n{_body(card, manifest, repo)}"
    check_card(text, sorted(_key(result) for result in results))
    return text


def check_card(text: str, expected: list[tuple[str, ...]] | None = None) -> None:
    """Check without network that huggingface_hub reads the header of a README and the results in it.

    Args:
        text: the README.
        expected: the sorted results that were written; None: they are not compared.

    Raises:
        UserError: the header is invalid, or other values are read.
    """
    from huggingface_hub import ModelCard
    from yaml import YAMLError

    try:
        data: Any = ModelCard(text, ignore_metadata_errors=False).data
        read = sorted(_key(result) for result in data.eval_results or [])
    except (ValueError, KeyError, TypeError, YAMLError) as error:  # raised by huggingface_hub and its YAML reader
        raise UserError(f"README.md: huggingface_hub refuses the card: {error}") from error
    if expected is not None and read != expected:
        difference = next(iter(set(map(str, read)) ^ set(map(str, expected))), "one of them twice")
        raise UserError(f"README.md: huggingface_hub reads other figures in the card than were written: {difference}")


def save_card(file: Path, text: str) -> None:
    """Write the README, and check it as read back.

    Args:
        file: the file to write.
        text: its content.
    """
    write_text(file, text)
    check_card(file.read_text(encoding="utf-8"))


def _results(tests: dict[str, TestResult], cards: Catalog) -> list[Any]:
    from huggingface_hub import EvalResult

    results = []
    for name, test in tests.items():
        for metric, (title, _) in MODEL_INDEX_METRICS.items():
            estimate = test.metric(metric)
            if estimate.value is None:
                continue
            ends = [estimate.ci_low, estimate.ci_high]
            between = f", 95 % interval {ends[0]:.3f} to {ends[1]:.3f}" if None not in ends else ""
            results.append(
                EvalResult(
                    task_type="image-classification",  # the hub has no task for regression on images
                    task_name="Facial age estimation",
                    dataset_type=name,
                    dataset_name=_title(name, cards),
                    dataset_split="test",
                    metric_type=metric,
                    metric_name=f"{title}, n = {test.n}{between}",
                    metric_value=round(estimate.value, 4),
                )
            )
    return results


def _key(result: Any) -> tuple[str, ...]:
    """Return the values of a result that are compared after reading."""
    return (result.dataset_type, result.metric_type, str(result.metric_name), f"{float(result.metric_value):.4f}")


def _title(name: str, cards: Catalog) -> str:
    return cards.datasets.get(name).title if name in cards.datasets.names() else name


def _body(card: ExportCard, manifest: RunManifest, repo: str) -> str:
    model, training, figures = card.model, card.training, card.figures
    unseen = (
        "" if leaks_of(figures.protocol) else "On images that were used neither in training nor in model selection. "
    )
    parts = [
        f"# {repo.split('/')[1]}",
        f"Estimates ages from faces: {escape_markdown(model.title or model.name)} with the head `{escape_markdown(model.head)}`, "
        f"{model.size} pixels, trained by agebench on {escape_markdown(training.title)}.",
        _use(repo),
        f"## Evaluation\n\n{unseen}In brackets: 95 % bootstrap intervals.",
        describe_limit(manifest),
        overall_table(figures),
        describe_protocol(figures),
        *group_tables(figures),
        *_intervals(card.promises.intervals or {}),
        "## Intended use\n\n" + escape_markdown(card.intended_use),
        "## Training data and licence\n\n" + escape_markdown(card.licence) + _citation(training),
        "## Input\n\n" + escape_markdown(card.input.text),
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


def _use(repo: str) -> str:
    return (
        f'```python\nimport agebench\n\nmodel = agebench.load_estimator("hf://{repo}@COMMIT")  # the commit that you trust\n'
        'print(model.predict(["photo.jpg"]))\n```'
    )


def _intervals(intervals: Mapping[str, CalibratedInterval]) -> list[str]:
    if "0.9" not in intervals:
        return []
    interval = intervals["0.9"]
    unit = "of the model's own standard deviations" if interval.scaled else "years"
    held = "; ".join(
        f"{format_ci(share, digits=1, percent=True)} of {format_count(share.n)} in {escape_markdown(name)}"
        for name, share in interval.coverage.items()
    )
    return [
        "## Prediction intervals",
        f"Estimate ± {format_number(interval.radius)} {unit} is calibrated to contain 90 % of true ages among faces like "
        f"those of {escape_markdown(interval.calibrated_on)}, {interval.calibration_size}. Measured: {held}.",
    ]


def _citation(training: TrainingFacts) -> str:
    return f"\n\nTraining data: {escape_markdown(training.citation)}" if training.citation else ""
