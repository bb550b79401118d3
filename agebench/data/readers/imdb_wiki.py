"""IMDB-WIKI: `imdb.mat` or `wiki.mat` beside the photographs or their crops (Rothe, Timofte and Van Gool, IJCV 2018)."""

from datetime import date
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from agebench.data.readers.base import PathFault
from agebench.data.readers.table import FAULT, TableReader
from agebench.types import RejectReason

# Matlab counts days from the year 0, Python from the year 1.
_MATLAB_OFFSET = 366


class IMDBWikiReader(TableReader):
    """The set's own struct: date of birth as a day number, the year of the photograph, gender 1 for male and 0 for female.

    The age is that at the middle of the year of the photograph, in whole years. Rows in which the owners' detector found
    no face (score -inf) are put aside. Columns: gender, subject (the celebrity's name).
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
        """`rows` with the age, which is no number where there is no face or no date."""
        days = pd.to_numeric(rows["dob"], errors="coerce").to_numpy()
        taken = pd.to_numeric(rows["photo_taken"], errors="coerce").to_numpy()
        born = [_year_of_birth(day) for day in days]
        ages = pd.Series(taken - np.array(born), index=rows.index).astype("object")
        no_face = np.isneginf(pd.to_numeric(rows["face_score"], errors="coerce").to_numpy())
        faceless = PathFault(RejectReason.NO_FACE_BOX, "its owners' detector found no face")
        faults = pd.Series([faceless if missing else None for missing in no_face], index=rows.index, dtype="object")
        return rows.assign(age=ages, **{FAULT: faults}).drop(columns=["dob", "photo_taken", "face_score"])


def _year_of_birth(day: float) -> float:
    """The year, and the next one for people born in its second half, who are a year younger in the middle of a year."""
    if not np.isfinite(day) or not 1 <= day - _MATLAB_OFFSET <= date.max.toordinal():
        return float("nan")
    born = date.fromordinal(int(day) - _MATLAB_OFFSET)
    return born.year + (born.month >= 7)
