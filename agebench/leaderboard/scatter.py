"""Estimates against true ages of each system, as counts in cells of three years.

Single points would state the label of an image beside its estimate, and estimates are published without labels. Counts are computed
where the datasets are present and stored beside the records, as rankings are.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
from pydantic import Field

from agebench.leaderboard.published_estimates import LocalDatasets
from agebench.leaderboard.records import estimates_file
from agebench.leaderboard.schema import Record
from agebench.leaderboard.systems import System
from agebench.metrics.schema import ResultModel

# Of the method: raise it when counts of the same estimates change.
VERSION = 1
CELL_YEARS = 3
_OLDEST = 120  # estimates outside of 0 to this age are counted at its ends


class StoredScatter(ResultModel):
    """Counts of one record on one test set."""

    inputs: str
    record: str
    test: str
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
    known = {(scatter.record, scatter.test, scatter.inputs): scatter for scatter in stored}
    results = []
    for row in rows:
        for test in row.tests:
            record = row.records_on(test)[0]
            inputs = _inputs(record, test)
            found = known.get((record.id, test, inputs)) or _compute(record, test, inputs, files, datasets)
            results += [found] if found is not None else []
    return results


def _inputs(record: Record, test: str) -> str:
    estimates = record.predictions[test].estimates_sha256 if test in record.predictions else None
    fingerprint = record.samples[test].fingerprint if test in record.samples else None
    return hashlib.sha256(json.dumps([VERSION, record.id, test, estimates, fingerprint]).encode()).hexdigest()


def _compute(
    record: Record, test: str, inputs: str, files: Mapping[str, Path], datasets: LocalDatasets
) -> StoredScatter | None:
    fingerprint = record.samples[test].fingerprint if test in record.samples else None
    table = datasets.labeled_estimates(estimates_file(files[record.id], test), test, fingerprint)
    return (
        None if table is None else StoredScatter(inputs=inputs, record=record.id, test=test, cells=count_cells(table))
    )


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
