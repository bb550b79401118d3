"""Why systems err more on other datasets than on the held-out part of their own: recorded, or computed from the estimates."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from agebench.leaderboard.published_estimates import LocalDatasets
from agebench.leaderboard.schema import Record
from agebench.leaderboard.stored_results import StoredResult, labeled_estimates, reuse_or_compute
from agebench.leaderboard.systems import System, pool_seeds
from agebench.metrics.schema import MetricValue, ShiftResult
from agebench.metrics.shift import explain_shift

# Of the method: raise it when shifts of the same estimates change.
VERSION = 2
# The leaderboard shows the recalibration on so many labeled images.
LABELED = 100


class StoredShift(StoredResult):
    """The shift of one record on one test set."""

    shift: ShiftResult


@dataclass(frozen=True)
class SystemShift:
    """The shift of a system on one test set, over its seeds, years."""

    difference: MetricValue
    mix: MetricValue
    same: MetricValue
    outside: MetricValue
    recalibrated: MetricValue


def build_shifts(
    rows: Sequence[System], files: Mapping[str, Path], datasets: LocalDatasets, stored: Sequence[StoredShift]
) -> list[StoredShift]:
    """Return the shifts of all records that do not contain them, as far as they are stored or can be computed here.

    Args:
        rows: the systems.
        files: record id -> the file of the record.
        datasets: the datasets of this machine.
        stored: shifts computed before.
    """

    def compute(record: Record, test: str, inputs: str) -> StoredShift | None:
        home = str(record.metrics.train)
        source, target = (labeled_estimates(record, name, files, datasets) for name in (home, test))
        if source is None or target is None:
            return None
        shift = explain_shift(source, target, name=home)
        return None if shift is None else StoredShift(inputs=inputs, record=record.id, test=test, shift=shift)

    tests = (
        (record, test, _inputs(record, record.metrics.train, test))
        for row in rows
        for record in row.records
        if record.metrics.train is not None and record.metrics.train in record.metrics.tests
        for test, result in record.metrics.tests.items()
        if test != record.metrics.train and result.shift is None
    )
    return reuse_or_compute(tests, stored, compute)


def _inputs(record: Record, home: str, test: str) -> str:
    digests = [
        (name, record.predictions[name].estimates_sha256, record.samples[name].fingerprint)
        for name in (home, test)
        if name in record.predictions and name in record.samples
    ]
    return hashlib.sha256(json.dumps([VERSION, record.id, digests]).encode()).hexdigest()


def system_shift(row: System, test: str, stored: Mapping[tuple[str, str], ShiftResult]) -> SystemShift | None:
    """Return the shift of a system on a test set over its seeds; None where a seed has none, or none against its training set.

    Args:
        row: the system.
        test: the test set.
        stored: (record id, test set) -> shift, for records that do not contain it.
    """
    shifts = []
    for record in row.records_on(test):
        shift = record.metrics.tests[test].shift or stored.get((record.id, test))
        if shift is None or shift.source != row.train:
            return None
        shifts.append(shift)
    recalibrated = [
        next((one.linear_gain for one in shift.recalibration if one.n == LABELED), MetricValue()) for shift in shifts
    ]
    return SystemShift(
        pool_seeds([shift.difference for shift in shifts]),
        pool_seeds([shift.parts.mix for shift in shifts]),
        pool_seeds([shift.parts.same for shift in shifts]),
        pool_seeds([shift.parts.outside for shift in shifts]),
        pool_seeds(recalibrated),
    )
