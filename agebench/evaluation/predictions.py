"""Predictions: one row an image, what a model said beside what is true. Made here or by anyone."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from agebench.errors import UserError

REQUIRED = ("sample_id", "age", "age_pred")


def check_predictions(table: pd.DataFrame, *, source: str = "predictions") -> pd.DataFrame:
    """`table` with `sample_id` as text and `age`, `age_pred` (and `age_std`) as float64.

    Columns: sample_id, age (years), age_pred (years), optional age_std (years) and p (list, one probability an age), then
    group columns, and `subject` where there are identities.

    Raises:
        UserError: a column is missing, an id stands twice, or a value is no finite number; the message names the row.
    """
    missing = [column for column in REQUIRED if column not in table]
    if missing:
        raise UserError(f"{source}: no column {', '.join(missing)}; there are: {', '.join(map(str, table.columns))}")
    if not len(table):
        raise UserError(f"{source}: no rows")
    table = table.assign(sample_id=table["sample_id"].astype("str"))
    if not all_different(table["sample_id"]):
        twice = table.loc[table["sample_id"].duplicated(), "sample_id"]
        raise UserError(f"{source}: sample_id '{twice.iloc[0]}' stands twice")
    for column in ("age", "age_pred", "age_std"):
        if column not in table:
            continue
        numbers = pd.to_numeric(table[column], errors="coerce").astype("float64")
        bad = ~np.isfinite(numbers.to_numpy())
        if bad.any():
            row = table[bad].iloc[0]
            raise UserError(
                f"{source}: {column} of '{row['sample_id']}' is {written(row[column])}, not a finite number"
            )
        table[column] = numbers
    return table


def all_different(ids: "pd.Series[str]") -> bool:
    """Whether no id stands twice. Arrow counts them where they lie; pandas would first make an object of each."""
    return bool(pc.count_distinct(pa.array(ids)).as_py() == len(ids))


def written(value: object) -> str:
    """A cell as a person would write it: text in quotes, numbers without their numpy type."""
    return repr(value.item() if isinstance(value, np.generic) else value)
