"""The worst predictions with their pictures: for the eyes of who made the run, and nobody else's."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from agebench.data.cache import Faces
from agebench.data.contact_sheet import contact_sheet
from agebench.evaluation.suspects import suspects, worst
from agebench.files import atomic, write_text
from agebench.reports.tables import escaped, markdown_table
from agebench.runs.folder import RunFolder

FOLDER, SHOWN = "private", 24


def save_worst(folder: RunFolder, answers: Mapping[str, pd.DataFrame], faces: Mapping[str, Faces]) -> None:
    """`private/errors.md` and its pictures: the 24 worst predictions of every test set, and labels that do not fit.

    They show people. No report and no record takes anything from this folder.
    """
    parts = [
        "# Worst predictions, and labels to look at",
        "Pictures of people from datasets that allow no publication: keep this folder to yourself.",
    ]
    for place, (name, table) in enumerate(answers.items()):
        doubtful = suspects(table)
        parts += [f"## {escaped(name)}", _sheet(folder, f"worst-{place}", worst(table, SHOWN), faces[name])]
        parts += [_table(worst(table, SHOWN))]
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


def _sheet(folder: RunFolder, name: str, rows: pd.DataFrame, faces: Faces) -> str:
    pixels = np.stack([faces.pixels[faces.row[identity]] for identity in rows["sample_id"]])
    labels = [f"label {age:.0f}, says {said:.0f}" for age, said in zip(rows["age"], rows["age_pred"], strict=True)]
    file = folder.path / FOLDER / f"{name}.png"
    with atomic(file) as temporary:
        contact_sheet(pixels, labels, columns=8).save(temporary, format="PNG")
    return f"![{name.replace('-', ' ')}]({file.name})"


def _table(rows: pd.DataFrame) -> str:
    given = [column for column in ("gender", "race") if column in rows and rows[column].notna().any()]
    made = [
        [
            escaped(row["sample_id"]),
            f"{row['age']:g}",
            f"{row['age_pred']:.1f}",
            *(escaped(row[column]) if pd.notna(row[column]) else "–" for column in given),
        ]
        for _, row in rows.iterrows()
    ]
    return markdown_table(["image", "label (years)", "predicted (years)", *given], made)
