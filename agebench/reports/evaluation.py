"""The results of `agebench score` and `agebench compare`: JSON, figures, Markdown and HTML."""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from agebench.metrics.schema import ComparisonFile, MetricsFile
from agebench.reports.formatting import picture
from agebench.reports.markdown import write_markdown
from agebench.reports.nist import write_nist_page
from agebench.reports.sections.evaluation import compare_text, score_text
from agebench.reports.sections.measurement import (
    comparison_measurement_sections,
    decision_sections,
    measurement_sections,
)
from agebench.reports.sections.requirements import requirement_sections
from agebench.utils.io import write_json


def write_score(folder: Path, metrics: MetricsFile, tables: Mapping[str, pd.DataFrame]) -> None:
    """Write metrics.json, figures/, report.md and report.html of scored predictions; with NIST's figures, nist.md and nist.html.

    Args:
        folder: made where it is not there.
        metrics: the content of metrics.json.
        tables: test set -> its predictions, for the figures.
    """
    from agebench.reports.plots import run
    from agebench.reports.plots.evaluation import CAPTIONS, score_figures

    write_json(folder / "metrics.json", metrics.to_json())
    drawn = run.plot_tests(folder, score_figures(metrics, tables), run.CAPTIONS | CAPTIONS)
    verdicts = [part for entry in metrics.tests.values() for part in requirement_sections(entry.requirements, level=2)]
    opening = [*measurement_sections(metrics.measurement, metrics), *verdicts, *decision_sections(metrics)]
    text = "\n\n".join([*opening, score_text(_without_verdicts(metrics), full=True)])
    _write(folder, "report", "# Evaluation of age estimates", text, drawn)
    write_nist_page(folder, metrics)


def _without_verdicts(metrics: MetricsFile) -> MetricsFile:
    """Return the metrics without requirements, which the report begins with."""
    tests = {name: entry.model_copy(update={"requirements": []}) for name, entry in metrics.tests.items()}
    return metrics.model_copy(update={"tests": tests})


def write_comparison(folder: Path, result: ComparisonFile) -> None:
    """Write comparison.json, figures/, comparison.md and comparison.html.

    Args:
        folder: made where it is not there.
        result: the content of comparison.json.
    """
    from agebench.reports.plots import run
    from agebench.reports.plots.evaluation import CAPTIONS, comparison_figures

    write_json(folder / "comparison.json", result.to_json())
    drawn = run.plot_tests(folder, comparison_figures(result), CAPTIONS)
    text = "\n\n".join([*comparison_measurement_sections(result.measurement), compare_text(result)])
    _write(folder, "comparison", "# Comparison of systems", text, drawn)


def _write(folder: Path, name: str, title: str, text: str, drawn: Mapping[str, str]) -> None:
    pictures = [picture(name, caption) for name, caption in drawn.items()]
    write_markdown(folder, "\n\n".join([title, text.rstrip(), *pictures]) + "\n", name)
