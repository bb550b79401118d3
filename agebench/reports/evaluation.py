"""Output files of `agebench score` and `agebench compare`: JSON, Markdown and figures."""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from agebench.metrics.schema import ComparisonFile, MetricsFile
from agebench.reports.formatting import picture
from agebench.reports.plots import run
from agebench.reports.plots.evaluation import CAPTIONS, comparison_figures, score_figures
from agebench.reports.sections.evaluation import compare_text, score_text
from agebench.utils.io import write_json, write_text


def write_score(folder: Path, metrics: MetricsFile, tables: Mapping[str, pd.DataFrame]) -> None:
    """metrics.json, report.md and figures/ of scored predictions.

    Args:
        folder: made where it is not there.
        metrics: the content of metrics.json.
        tables: test set -> its predictions, for the figures.
    """
    write_json(folder / "metrics.json", metrics.to_json())
    drawn = run.plot_tests(folder, score_figures(metrics, tables), run.CAPTIONS | CAPTIONS)
    _write(folder / "report.md", "# Age estimates, scored", score_text(metrics), drawn)


def write_comparison(folder: Path, result: ComparisonFile) -> None:
    """comparison.json, comparison.md and figures/.

    Args:
        folder: made where it is not there.
        result: the content of comparison.json.
    """
    write_json(folder / "comparison.json", result.to_json())
    drawn = run.plot_tests(folder, comparison_figures(result), CAPTIONS)
    _write(folder / "comparison.md", "# Systems compared", compare_text(result), drawn)


def _write(file: Path, title: str, text: str, drawn: Mapping[str, str]) -> None:
    pictures = [picture(name, caption) for name, caption in drawn.items()]
    write_text(file, "\n\n".join([title, text.rstrip(), *pictures]) + "\n")
