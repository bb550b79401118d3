"""The worst predictions with their pictures: for the eyes of who made the run, and nobody else's."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from agebench.data.faces.cache import FaceCache
from agebench.data.image_grid import make_contact_sheet
from agebench.metrics.label_noise import largest_errors, suspected_label_errors
from agebench.reports.formatting import escape_markdown, markdown_table
from agebench.runs.run_dir import RunDir
from agebench.utils.io import atomic_write, write_text

FOLDER, SHOWN = "private", 24


def write_error_gallery(folder: RunDir, answers: Mapping[str, pd.DataFrame], faces: Mapping[str, FaceCache]) -> None:
    """`private/errors.md` and its pictures: the 24 worst predictions of every test set, and labels that do not fit.

    They show people. No report and no record takes anything from this folder.
    """
    parts = [
        "# Worst predictions, and labels to look at",
        "Pictures of people from datasets that allow no publication: keep this folder to yourself.",
    ]
    for place, (name, table) in enumerate(answers.items()):
        doubtful = suspected_label_errors(table)
        parts += [
            f"## {escape_markdown(name)}",
            _sheet(folder, f"worst-{place}", largest_errors(table, SHOWN), faces[name]),
        ]
        parts += [_table(largest_errors(table, SHOWN))]
        parts += [f"### Labels that do not fit: {len(doubtful):,} of {len(table):,}", _SUSPECTS]
        if len(doubtful):
            parts += [
                _sheet(folder, f"suspects-{place}", doubtful.head(SHOWN), faces[name]),
                _table(doubtful.head(SHOWN)),
            ]
    write_text(folder.path / FOLDER / "errors.md", "\n\n".join(parts) + "\n")


_SUSPECTS = (
    "Among images that the model takes for the same age, these have a label more than five robust standard deviations from the "
    "others'. Either the label is wrong or the face is unusual: look."
)


def _sheet(folder: RunDir, name: str, rows: pd.DataFrame, faces: FaceCache) -> str:
    pixels = np.stack([faces.pixels[faces.row_by_id[identity]] for identity in rows["sample_id"]])
    labels = [f"label {age:.0f}, says {said:.0f}" for age, said in zip(rows["age"], rows["age_pred"], strict=True)]
    file = folder.path / FOLDER / f"{name}.png"
    with atomic_write(file) as temporary:
        make_contact_sheet(pixels, labels, columns=8).save(temporary, format="PNG")
    return f"![{name.replace('-', ' ')}]({file.name})"


def _table(rows: pd.DataFrame) -> str:
    given = [column for column in ("gender", "race") if column in rows and rows[column].notna().any()]
    made = [
        [
            escape_markdown(row["sample_id"]),
            f"{row['age']:g}",
            f"{row['age_pred']:.1f}",
            *(escape_markdown(row[column]) if pd.notna(row[column]) else "–" for column in given),
        ]
        for _, row in rows.iterrows()
    ]
    return markdown_table(["image", "label (years)", "predicted (years)", *given], made)
