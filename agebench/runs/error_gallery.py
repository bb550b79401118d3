"""Write an error gallery (largest errors with images) to `private/`; not for publication."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from agebench.data.faces.cache import FaceCache
from agebench.data.image_grid import make_contact_sheet
from agebench.metrics.label_noise import largest_errors, suspected_label_errors
from agebench.reports.formatting import escape_markdown, markdown_table
from agebench.runs.run_dir import RunDir
from agebench.utils.io import atomic_write, write_text

FOLDER = "private"
N_IMAGES = 24  # of each gallery


def write_error_gallery(
    folder: RunDir, predictions: Mapping[str, pd.DataFrame], faces: Mapping[str, FaceCache]
) -> None:
    """Write `private/errors.md` with images: the largest errors of every test set, and suspected label errors.

    The images show people. No report and no record uses this folder.

    Args:
        folder: the run's folder.
        predictions: test set -> predictions with labels.
        faces: dataset -> prepared faces.
    """
    parts = [
        "# Largest errors and suspected label errors",
        "Images of people from datasets that allow no publication: do not share this folder.",
    ]
    for number, (name, table) in enumerate(predictions.items()):
        suspects = suspected_label_errors(table)
        parts += [
            f"## {escape_markdown(name)}",
            _sheet(folder, f"worst-{number}", largest_errors(table, N_IMAGES), faces[name]),
        ]
        parts += [_table(largest_errors(table, N_IMAGES))]
        parts += [f"### Suspected label errors: {len(suspects):,} of {len(table):,}", _SUSPECTS]
        if len(suspects):
            parts += [
                _sheet(folder, f"suspects-{number}", suspects.head(N_IMAGES), faces[name]),
                _table(suspects.head(N_IMAGES)),
            ]
    write_text(folder.path / FOLDER / "errors.md", "\n\n".join(parts) + "\n")


_SUSPECTS = (
    "Among images with similar predictions, the labels of these differ from the others' by more than five robust standard "
    "deviations. Either the label is wrong or the face is unusual: inspect them."
)


def _sheet(folder: RunDir, name: str, rows: pd.DataFrame, faces: FaceCache) -> str:
    pixels = np.stack([faces.pixels[faces.row_by_id[sample_id]] for sample_id in rows["sample_id"]])
    labels = [
        f"label {age:.0f}, predicted {predicted:.0f}"
        for age, predicted in zip(rows["age"], rows["age_pred"], strict=True)
    ]
    path = folder.path / FOLDER / f"{name}.png"
    with atomic_write(path) as temporary:
        make_contact_sheet(pixels, labels, columns=8).save(temporary, format="PNG")
    return f"![{name.replace('-', ' ')}]({path.name})"


def _table(rows: pd.DataFrame) -> str:
    group_columns = [column for column in ("gender", "race") if column in rows and rows[column].notna().any()]
    cells = [
        [
            escape_markdown(row["sample_id"]),
            f"{row['age']:g}",
            f"{row['age_pred']:.1f}",
            *(escape_markdown(row[column]) if pd.notna(row[column]) else "–" for column in group_columns),
        ]
        for _, row in rows.iterrows()
    ]
    return markdown_table(["image", "label (years)", "predicted (years)", *group_columns], cells)
