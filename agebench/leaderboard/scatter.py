"""Estimates against true ages of each system, as counts in cells of three years.

Single points would state the label of an image beside its estimate, and estimates are published without labels. Counts are computed
where the datasets are present and stored beside the records, as rankings are.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
from pydantic import Field

from agebench.leaderboard.published_estimates import LocalDatasets
from agebench.leaderboard.schema import Record
from agebench.leaderboard.stored_results import StoredResult, inputs_digest, labeled_estimates, reuse_or_compute
from agebench.leaderboard.systems import System

# Of the method: raise it when counts of the same estimates change.
VERSION = 1
CELL_YEARS = 3
_OLDEST = 120  # estimates outside of 0 to this age are counted at its ends


class StoredScatter(StoredResult):
    """Counts of one record on one test set."""

    cells: list[Annotated[list[int], Field(min_length=3, max_length=3)]] = Field(
        description="true age and estimate as numbers of their cells, and images in the cell"
    )


def build_scatters(
    rows: Sequence[System], files: Mapping[str, Path], datasets: LocalDatasets, stored: Sequence[StoredScatter]
) -> list[StoredScatter]:
    """Return the counts of the first record of each system on each test set, as far as they are stored or can be computed here.

    Args:
        rows: the systems.
        files: record id -> the file of the record.
        datasets: the datasets of this machine.
        stored: counts computed before.
    """

    def compute(record: Record, test: str, inputs: str) -> StoredScatter | None:
        table = labeled_estimates(record, test, files, datasets)
        if table is None:
            return None
        return StoredScatter(inputs=inputs, record=record.id, test=test, cells=count_cells(table))

    firsts = ((row.records_on(test)[0], test) for row in rows for test in row.tests)
    tests = ((record, test, inputs_digest(record, test, VERSION)) for record, test in firsts)
    return reuse_or_compute(tests, stored, compute)


def count_cells(table: pd.DataFrame) -> list[list[int]]:
    """Count the images in each cell of true age and estimate.

    Args:
        table: predictions with labels.

    Returns:
        [number of the true age's cell, number of the estimate's cell, images] of each cell with images.
    """
    ages = np.stack([table[name].to_numpy(float) for name in ("age", "age_pred")], axis=1)
    codes = (np.clip(ages, 0, _OLDEST) // CELL_YEARS).astype(np.int64)
    cells, counts = np.unique(codes, axis=0, return_counts=True)
    return [[int(age), int(estimate), int(n)] for (age, estimate), n in zip(cells, counts, strict=True)]
