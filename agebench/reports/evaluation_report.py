"""What `agebench score` and `agebench compare` leave behind: JSON, Markdown and figures."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from agebench.files import write_json, write_text
from agebench.reports.evaluation_text import compare_text, test_text
from agebench.reports.figures_evaluation import comparison_figures, score_figures


def write_score(folder: Path, metrics: Mapping[str, Any], tables: Mapping[str, pd.DataFrame]) -> None:
    """metrics.json, report.md and figures/ of scored predictions.

    Args:
        folder: made where it is not there.
        metrics: the structure of metrics.json.
        tables: test set -> its predictions, for the figures.
    """
    write_json(folder / "metrics.json", metrics)
    sections = []
    for place, (name, entry) in enumerate(metrics["tests"].items()):
        drawn = score_figures(tables[name], entry, folder / "figures", prefix=f"{place}-" if place else "")
        sections.append(test_text(name, entry))
        sections += [f"![{caption}](figures/{path.name})\n\n*{caption}*" for path, caption in drawn]
    write_text(folder / "report.md", "# Age estimates, scored\n\n" + "\n\n".join(sections) + "\n")


def write_comparison(folder: Path, result: Mapping[str, Any]) -> None:
    """comparison.json, comparison.md and figures/.

    Args:
        folder: made where it is not there.
        result: `tests` (name -> what `compare` gives) and, over several test sets, `across`.
    """
    write_json(folder / "comparison.json", result)
    drawn = comparison_figures(result, folder / "figures")
    pictures = [f"![{caption}](figures/{path.name})\n\n*{caption}*" for path, caption in drawn]
    write_text(folder / "comparison.md", "\n\n".join(["# Systems compared", compare_text(result), *pictures]) + "\n")
