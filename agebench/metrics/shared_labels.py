"""Labels of the images that several systems answered: people, ranges and groups that one table has are known for all."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from agebench.errors import UserError
from agebench.metrics.prediction_format import is_group_candidate
from agebench.metrics.prediction_io import JoinedPredictions


def with_shared_labels(
    systems: Mapping[str, Sequence[JoinedPredictions]],
) -> dict[str, list[JoinedPredictions]]:
    """Give every table the people, ranges and groups that any of them has.

    Raises:
        UserError: two tables name different people on one image.
    """
    tables = [joined.table for several in systems.values() for joined in several]
    tables += [joined.unanswered for several in systems.values() for joined in several if joined.unanswered is not None]
    if all(_has_same_labels(table, tables[0]) for table in tables[1:]):
        return {name: list(several) for name, several in systems.items()}
    labels = [name for name in dict.fromkeys(str(name) for table in tables for name in table) if _is_label(name)]
    lacking = [name for name in labels if any(name not in table or table[name].isna().any() for table in tables)]
    known = {name: _known_labels(name, tables) for name in labels if name in lacking or name == "subject"}
    if "subject" in known:
        _check_people(known["subject"], tables)

    def filled(table: pd.DataFrame) -> pd.DataFrame:
        named = {name: table["sample_id"].map(known[name]) for name in lacking}
        own = {name: values.where(table[name].isna(), table[name]) for name, values in named.items() if name in table}
        people = {"subject": table["sample_id"].map(known["subject"])} if "subject" in known else {}
        return table.assign(**(named | own | people))

    return {
        name: [
            replace(
                joined,
                table=filled(joined.table),
                unanswered=None if joined.unanswered is None else filled(joined.unanswered),
            )
            for joined in several
        ]
        for name, several in systems.items()
    }


def _has_same_labels(table: pd.DataFrame, other: pd.DataFrame) -> bool:
    """Return whether two tables have the same labels of the same images in the same order, as of one file of labels."""
    names = [name for name in table if name == "sample_id" or _is_label(str(name))]
    return set(names) == {name for name in other if name == "sample_id" or _is_label(str(name))} and all(
        table[name].equals(other[name]) for name in names
    )


def _known_labels(name: str, tables: Sequence[pd.DataFrame]) -> "pd.Series[Any]":
    """Return a label of all images by their ids, the first that a table has."""
    known = pd.Series(dtype=object)
    for table in tables:
        if name in table:
            new = ~table["sample_id"].isin(known.index) & table[name].notna()
            values = table.loc[new, name].astype(object)
            values = values.map(_person) if name == "subject" else values
            known = pd.concat([known, values.set_axis(table.loc[new, "sample_id"])])
    return known


def _person(name: object) -> str:
    """Return a person's name as text: a CSV file has the text '5' where a Parquet file may have the number."""
    return str(int(name)) if isinstance(name, float) and name.is_integer() else str(name)


def _check_people(known: "pd.Series[Any]", tables: Sequence[pd.DataFrame]) -> None:
    for table in tables:
        if "subject" in table:
            expected = table["sample_id"].map(known)
            named = table["subject"].astype(object).map(_person, na_action="ignore")
            other = (named.notna() & (named != expected)).to_numpy()
            if other.any():
                place = int(np.flatnonzero(other)[0])
                raise UserError(
                    f"the predictions name two people on '{table['sample_id'].iloc[place]}', '{expected.iloc[place]}' and "
                    f"'{table['subject'].iloc[place]}': not the same labels. Give --labels FILE"
                )


def _is_label(column: str) -> bool:
    return column in ("subject", "age_low", "age_high") or is_group_candidate(column)
