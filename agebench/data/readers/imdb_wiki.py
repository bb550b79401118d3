"""Reader for IMDB-WIKI: `imdb.mat` or `wiki.mat` beside the images (Rothe, Timofte and Van Gool, IJCV 2018)."""

from datetime import date
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from agebench.data.readers.base import PathFault
from agebench.data.readers.table import FAULT, TableReader
from agebench.types import RejectReason

# MATLAB counts days from year 0, Python from year 1.
_MATLAB_OFFSET = 366


class IMDBWikiReader(TableReader):
    """Reader for the dataset's struct in a MATLAB file.

    The struct has the date of birth (day number), the year of the photograph, and the gender (1 male, 0 female).

    The age is that in the middle of the year of the photograph, in completed years. Rows in which the owners' detector found
    no face (score -inf) are rejected. Columns: gender, subject (the celebrity's name).

    Args:
        root: the folder of the struct and the images.
        groups: columns for subgroup metrics, from the card.
        table: name of the MATLAB file; empty for the only table.
        options: further options of `TableReader`.
    """

    required_columns: ClassVar[tuple[str, ...]] = ("path",)

    def __init__(self, root: Path | None, groups: tuple[str, ...] = (), *, table: str = "", **options: Any) -> None:
        columns: dict[str, str | int] = {
            "path": "full_path",
            "subject": "name",
            "photo_taken": "photo_taken",
            "dob": "dob",
        }
        options = {"values": {"gender": {"0": "female", "1": "male", "nan": ""}}, **options}
        columns |= {"face_score": "face_score", **options.pop("columns", {})}
        super().__init__(root, groups, table=table, columns=columns, **options)

    def derive_columns(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Add the age, NaN if a date is missing, and mark rows without a face as unusable."""
        days = pd.to_numeric(rows["dob"], errors="coerce").to_numpy()
        photo_years = pd.to_numeric(rows["photo_taken"], errors="coerce").to_numpy()
        birth_years = np.array([_effective_birth_year(day) for day in days])
        ages = pd.Series(photo_years - birth_years, index=rows.index).astype("object")
        has_no_face = np.isneginf(pd.to_numeric(rows["face_score"], errors="coerce").to_numpy())
        fault = PathFault(RejectReason.NO_FACE_BOX, "its owners' detector found no face")
        faults = pd.Series(
            [fault if is_missing else None for is_missing in has_no_face], index=rows.index, dtype="object"
        )
        return rows.assign(age=ages, **{FAULT: faults}).drop(columns=["dob", "photo_taken", "face_score"])


def _effective_birth_year(day: float) -> float:
    """Return the year of birth, or the next one for a birthday in the second half: one year younger at midyear."""
    if not np.isfinite(day) or not 1 <= day - _MATLAB_OFFSET <= date.max.toordinal():
        return float("nan")
    birthday = date.fromordinal(int(day) - _MATLAB_OFFSET)
    return birthday.year + (birthday.month >= 7)
