"""What `agebench score` and `agebench compare` leave behind: JSON, Markdown and figures."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from agebench.files import write_json, write_text
from agebench.reports import figures
from agebench.reports.evaluation_text import compare_text, score_text
from agebench.reports.figures_evaluation import CAPTIONS, comparison_figures, score_figures
from agebench.reports.tables import picture


def write_score(folder: Path, metrics: Mapping[str, Any], tables: Mapping[str, pd.DataFrame]) -> None:
    """metrics.json, report.md and figures/ of scored predictions.

    Args:
        folder: made where it is not there.
        metrics: the structure of metrics.json.
        tables: test set -> its predictions, for the figures.
    """
    write_json(folder / "metrics.json", metrics)
    drawn = figures.draw(folder, score_figures(metrics, tables), figures.CAPTIONS | CAPTIONS)
    _write(folder / "report.md", "# Age estimates, scored", score_text(metrics), drawn)


def write_comparison(folder: Path, result: Mapping[str, Any]) -> None:
    """comparison.json, comparison.md and figures/.

    Args:
        folder: made where it is not there.
        result: `tests` (name -> what `compare` gives) and, over several test sets, `across`.
    """
    write_json(folder / "comparison.json", result)
    drawn = figures.draw(folder, comparison_figures(result), CAPTIONS)
    _write(folder / "comparison.md", "# Systems compared", compare_text(result), drawn)


def _write(file: Path, title: str, text: str, drawn: Mapping[str, str]) -> None:
    pictures = [picture(name, caption) for name, caption in drawn.items()]
    write_text(file, "\n\n".join([title, text.rstrip(), *pictures]) + "\n")
