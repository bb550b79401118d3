"""Groups of a test set: age bands, group columns and their crossings."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from agebench.config.cards.dataset import AGE_BAND_COLUMN
from agebench.errors import UserError
from agebench.metrics.bootstrap import Floats, Ints, distinct_values, reindex
from agebench.metrics.prediction_format import is_group_candidate
from agebench.utils.text import did_you_mean

# Lower ends, completed years. Childhood, the years about the legal thresholds, then decades.
AGE_BANDS = (0, 13, 18, 25, 35, 45, 55, 65)
MIN_GROUP = 30
# A column with more values than this holds ids, dates or measurements, not groups.
_MOST_VALUES = 20
# Crossings of more columns, or into more groups, fill a report with groups of few people.
_MOST_CROSSED, _MOST_CELLS = 4, 60


@dataclass(frozen=True)
class Grouping:
    """One way to sort rows into groups.

    Attributes:
        name: a column, `age_band`, or a crossing as `gender*race`.
        names: the groups.
        codes: (n,) places in `names`, -1 where unknown.
    """

    name: str
    names: tuple[str, ...]
    codes: Ints

    @property
    def counts(self) -> Ints:
        """Rows in each group (len(names),)."""
        return np.bincount(self.codes[self.codes >= 0], minlength=len(self.names))

    def cluster_counts(self, clusters: Ints) -> Ints:
        """Count the distinct clusters (n,) in each group (len(names),)."""
        if np.array_equal(clusters, np.arange(len(clusters))):  # every row is its own
            return self.counts
        known = self.codes >= 0
        width = int(clusters.max(initial=0)) + 1
        pairs = distinct_values(self.codes[known] * width + clusters[known])
        return np.bincount(pairs // width, minlength=len(self.names))

    @property
    def unknown(self) -> int:
        """Rows of no known group."""
        return int((self.codes < 0).sum())


def band_names(edges: Sequence[int] = AGE_BANDS) -> list[str]:
    """'0-12', '13-17', …, '65+'."""
    return [f"{low}-{high - 1}" for low, high in itertools.pairwise(edges)] + [f"{edges[-1]}+"]


def age_bands(age: Floats, edges: Sequence[int] = AGE_BANDS) -> Grouping:
    """Bands of the true age that have rows: '0-12', …, '65+'; an unknown age (NaN) is in none."""
    names = band_names(edges)
    known = ~np.isnan(age)
    found = np.clip(np.searchsorted(np.asarray(edges), np.floor(age[known]), side="right") - 1, 0, None)
    codes = np.full(len(age), -1)
    codes[known] = reindex(found)
    return Grouping(AGE_BAND_COLUMN, tuple(names[code] for code in distinct_values(found)), codes)


def grouping(table: pd.DataFrame, name: str) -> Grouping:
    """The grouping by the column `name`, or by a crossing of columns 'a*b'.

    Raises:
        UserError: no such column, the message lists what is there; one that sorts no one; one that is called like the bands
            of the true age, which accompany every grouping; or groups whose names would be the same.
    """
    columns = [name] if name in table else name.split("*")
    if AGE_BAND_COLUMN in columns:
        raise UserError(
            f"group '{name}': '{AGE_BAND_COLUMN}' is what the bands of the true age are called, which are always "
            "shown; a column of that "
            f"name needs another: rename it in the file, by --col MINE={AGE_BAND_COLUMN}, or name the groups that are "
            "wanted with --group"
        )
    missing = [column for column in columns if column not in table]
    if missing:
        raise UserError(f"no group column '{missing[0]}'{did_you_mean(missing[0], map(str, table.columns))}")
    codes = np.zeros(len(table), dtype=np.int64)
    names: list[str] = [""]
    unknown = np.zeros(len(table), dtype=bool)
    for column in columns:
        try:
            column_codes, values = pd.factorize(table[column], sort=True)
        except TypeError:
            raise UserError(
                f"group '{name}': the column '{column}' holds lists or structs, which sort no one"
            ) from None
        unknown |= column_codes < 0
        codes = codes * max(len(values), 1) + column_codes
        names = [f"{before}*{value}" if before else str(value) for before in names for value in values]
    codes[unknown] = -1
    present = distinct_values(codes[~unknown])
    codes = np.where(unknown, -1, np.searchsorted(present, codes))
    groups = tuple(names[code] for code in present)
    if len(set(groups)) < len(groups):
        double = next(group for group in groups if groups.count(group) > 1)
        raise UserError(
            f"group '{name}': two different groups would be called '{double}'; rename their values, so that names differ"
        )
    return Grouping(name, groups, codes)


def group_columns(table: pd.DataFrame) -> tuple[str, ...]:
    """Select the labels beside predictions that sort their rows into 2 to 20 groups."""
    names = (str(column) for column in table if is_group_candidate(str(column)))
    return tuple(name for name in names if 2 <= _n_values(table[name]) <= _MOST_VALUES)


def ignored_columns(table: pd.DataFrame) -> dict[str, int]:
    """Return the labels that have too many values to be groups and values that repeat, with their number of values.

    Args:
        table: predictions beside labels.
    """
    names = [str(column) for column in table if is_group_candidate(str(column))]
    counts = {name: _n_values(table[name]) for name in names}
    return {name: count for name, count in counts.items() if _MOST_VALUES < count < len(table)}


def scanned_groups(table: pd.DataFrame) -> tuple[str, ...]:
    """Select the group columns of a table and the crossings of every two of them that make at most 60 groups.

    Args:
        table: predictions beside labels.
    """
    columns = group_columns(table)
    if len(columns) > _MOST_CROSSED:
        return columns
    crossings = [
        f"{first}*{second}"
        for first, second in itertools.combinations(columns, 2)
        if table[first].nunique() * table[second].nunique() <= _MOST_CELLS
    ]
    return (*columns, *(name for name in crossings if name not in table))


def _n_values(column: "pd.Series[Any]") -> int:
    try:
        return column.nunique()
    except TypeError:  # lists and structs, which sort no one
        return 0


def groupings(table: pd.DataFrame, groups: Sequence[str]) -> list[Grouping]:
    """The groupings asked for and, where both are among them, gender*race; those without a known row are left out.

    Raises:
        UserError: no such column.
    """
    wanted = list(dict.fromkeys(groups))
    if {"gender", "race"} <= set(wanted) and not {"gender*race", "race*gender"} & set(wanted):
        wanted.append("gender*race")
    return [made for made in (grouping(table, name) for name in wanted) if made.names]


def year_codes(age: Floats) -> Ints:
    """Dense codes of the completed years (n,)."""
    completed = np.floor(age).astype(np.int64)
    return reindex(completed - completed.min())
