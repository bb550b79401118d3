"""Results of one record on one test set, which are computed where the dataset is present and stored beside the records."""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import pandas as pd

from agebench.leaderboard.published_estimates import LocalDatasets
from agebench.leaderboard.records import estimates_file
from agebench.leaderboard.schema import Record
from agebench.metrics.schema import ResultModel


class StoredResult(ResultModel):
    """A result with the digest of what it follows from."""

    inputs: str
    record: str
    test: str


StoredResultT = TypeVar("StoredResultT", bound=StoredResult)


def reuse_or_compute(
    tests: Iterable[tuple[Record, str, str]],
    stored: Sequence[StoredResultT],
    compute: Callable[[Record, str, str], StoredResultT | None],
) -> list[StoredResultT]:
    """Return the result of each record and test set: the stored one if its inputs are the same, else a computed one.

    Args:
        tests: records, their test sets, and the digests of what the results follow from.
        stored: results computed before.
        compute: record, test set, digest -> the result; None where it cannot be computed here.
    """
    known = {(result.record, result.test, result.inputs): result for result in stored}
    results = []
    for record, test, inputs in tests:
        result = known.get((record.id, test, inputs)) or compute(record, test, inputs)
        results += [result] if result is not None else []
    return results


def inputs_digest(record: Record, test: str, version: int) -> str:
    """Return the SHA-256 of what a result follows from: the method's version, the estimates, the dataset's fingerprint.

    Args:
        record: the record.
        test: its test set.
        version: version of the method.
    """
    estimates = record.predictions[test].estimates_sha256 if test in record.predictions else None
    content = json.dumps([version, record.id, test, estimates, _fingerprint(record, test)])
    return hashlib.sha256(content.encode()).hexdigest()


def labeled_estimates(
    record: Record, test: str, files: Mapping[str, Path], datasets: LocalDatasets
) -> pd.DataFrame | None:
    """Return a record's estimates with the labels of the dataset; None where one of the two is missing.

    Args:
        record: the record.
        test: its test set.
        files: record id -> the file of the record.
        datasets: the datasets of this machine.
    """
    return datasets.labeled_estimates(estimates_file(files[record.id], test), test, _fingerprint(record, test))


def _fingerprint(record: Record, test: str) -> str | None:
    return record.samples[test].fingerprint if test in record.samples else None
