"""Tables of predictions: one row an image, with estimated and true ages, from this package or from other programs."""

import numpy as np
import pandas as pd

from agebench.errors import UserError
from agebench.utils.table_cells import as_numbers

_PIECE = 1_000_000
REQUIRED = ("sample_id", "age", "age_pred")
# What a run writes beside labels: NAME_pred and NAME_prob of a target beside age, and which fold's model answered.
PRED, PROB, FOLD = "_pred", "_prob", "tested_in"
# What else in a table of predictions is no label that sorts people.
_NO_GROUPS = {
    *("sample_id", "path", "age", "age_low", "age_high", "age_std", "label_std", "p", "subject", "split"),
    *("landmarks", "bbox"),
    FOLD,
}


def is_group_candidate(column: str) -> bool:
    """Return whether a column is a label for groups: no age, no id, and nothing that a model answered."""
    return column not in _NO_GROUPS and not column.endswith((PRED, PROB))


def check_predictions(table: pd.DataFrame, *, source: str = "predictions", ids_distinct: bool = False) -> pd.DataFrame:
    """`table` with `sample_id` as text and `age`, `age_pred` (and `age_std`) as float64.

    Columns: sample_id, age (years), age_pred (years), optional age_std (years) and p (list, one probability an age), then
    group columns, and `subject` where there are identities.

    Args:
        table: the predictions.
        source: what they are called in messages.
        ids_distinct: whether the ids have been compared already.

    Raises:
        UserError: a column is missing, an id occurs twice, or a value is no finite number; the message names the row.
    """
    missing = [column for column in REQUIRED if column not in table]
    if missing:
        raise UserError(f"{source}: no column {', '.join(missing)}; there are: {', '.join(map(str, table.columns))}")
    if not len(table):
        raise UserError(f"{source}: no rows")
    table = table.assign(sample_id=table["sample_id"].astype("str"))
    if not ids_distinct and not ids_unique(table["sample_id"]):
        twice = table.loc[table["sample_id"].duplicated(), "sample_id"]
        raise UserError(f"{source}: sample_id '{twice.iloc[0]}' occurs twice")
    for column in ("age", "age_pred", "age_std"):
        if column not in table:
            continue
        numbers = as_numbers(table[column])
        bad = ~np.isfinite(numbers.to_numpy())
        if bad.any():
            raise UserError(f"{source}: {_not_a_number(table[bad], column, every_row=bool(bad.all()))}")
        table[column] = numbers
    return table


def _not_a_number(rows: pd.DataFrame, column: str, *, every_row: bool) -> str:
    """Describe the first cell that is no finite number, and the solution.

    Args:
        rows: the rows with such a cell in the column.
        column: the column.
        every_row: whether these are all rows of the table.
    """
    written = rows[rows[column].notna()]  # An option leaves out empty cells, but no text: that is reported first.
    row = (written if len(written) else rows).iloc[0]
    if every_row:
        solution = f"no row has one: name another column with --col {column}=COLUMN or correct this one"
    elif len(written):
        solution = "correct this cell"
    elif column == "age_pred":
        solution = "`--allow missing` counts images without an estimate as failures to process"
    else:
        solution = "fill in this cell or leave out the row"
    return f"{column} of '{row['sample_id']}' is {format_cell(row[column])}, not a finite number; {solution}"


def ids_unique(ids: "pd.Series[str]") -> bool:
    """Return whether no id occurs twice; of a long column, only hashes are held beside it."""
    hashes = np.empty(len(ids), np.uint64)
    for start in range(0, len(ids), _PIECE):
        piece = slice(start, start + _PIECE)
        hashes[piece] = pd.util.hash_array(ids.iloc[piece].to_numpy(object), categorize=False)
    hashes.sort()
    return bool((hashes[1:] != hashes[:-1]).all()) or not ids.duplicated().any()


def format_cell(value: object) -> str:
    """A cell as a person would write it: text in quotes, numbers without their numpy type."""
    return repr(value.item() if isinstance(value, np.generic) else value)


def canonical_order(table: pd.DataFrame) -> "np.ndarray[tuple[int], np.dtype[np.int64]] | None":
    """Return the order of rows by a hash of `sample_id`; None without that column.

    Resampling and shuffling number the rows: in this order their draws, and so the ends of intervals, do not depend on
    the order of rows in a file.
    """
    if "sample_id" not in table:
        return None
    keys = pd.util.hash_array(table["sample_id"].to_numpy(object), categorize=False)
    order = np.argsort(keys, kind="stable")
    if (np.diff(keys[order]) == 0).any():
        # One image with several answers: those are ordered by what they are.
        order = np.lexsort((table["age_pred"].to_numpy(float), table["age"].to_numpy(float), keys))
    return order.astype(np.int64)


def canonical(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table in `canonical_order`."""
    order = canonical_order(table)
    return table if order is None else table.take(order).reset_index(drop=True)
