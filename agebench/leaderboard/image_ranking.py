"""Rankings from the estimates beside the records, per test set and over test sets.

Estimates are published without labels, so rankings are computed where the datasets are present, and stored in `rankings.json`
beside the folder of records. Elsewhere the stored rankings are shown as long as they are of the same estimates.
"""

import hashlib
import json
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from pydantic import Field, ValidationError

from agebench.errors import UserError
from agebench.leaderboard.gate_rates import GateRatesByAge, StoredGates, build_gates
from agebench.leaderboard.headline_systems import headline_systems
from agebench.leaderboard.published_estimates import LocalDatasets, pseudonym_keys, read_estimates
from agebench.leaderboard.ranking import Test, shared_by_most, test_keys
from agebench.leaderboard.records import estimates_file
from agebench.leaderboard.scatter import StoredScatter, build_scatters
from agebench.leaderboard.schema import Record
from agebench.leaderboard.shifts import StoredShift, build_shifts
from agebench.leaderboard.systems import System
from agebench.metrics.bootstrap import Floats, Ints, encode_clusters
from agebench.metrics.prediction_format import FOLD
from agebench.metrics.ranking import RESAMPLES, SystemErrors
from agebench.metrics.schema import RankedSystem, ResultModel, ShiftResult, SystemRanking
from agebench.metrics.test_set_ranking import RankedTestSet, rank_on_test_sets
from agebench.registry.catalog import Catalog
from agebench.reports.formatting import join_words
from agebench.utils.io import write_text

# Of the method: raise it when rankings of the same estimates change.
VERSION = 4
_FEWEST_SYSTEMS = 2
_NAMED = 6  # records in a sentence


class RankingsFile(ResultModel):
    """The content of a rankings.json."""

    version: int = VERSION
    rankings: list[SystemRanking] = Field(default=[], description="one per test set, then those over test sets")
    shifts: list[StoredShift] = Field(default=[], description="of records that do not contain their shifts")
    gates: list[StoredGates] = Field(default=[], description="of the systems that the leaderboard begins with")
    scatters: list[StoredScatter] = Field(default=[], description="of the first record of each system and test set")


@dataclass(frozen=True)
class ImageRankings:
    """The rankings of a leaderboard.

    Attributes:
        rankings: one for each group of systems with the same test images, then those over several test sets.
        missing: what has no rank, or could not be computed, and why, as sentences.
        shifts: (record id, test set) -> why the error differs from that on the training set, for records without it.
        gates: (record id, test set) -> rates of age gates, for the systems that the leaderboard begins with.
        scatters: (record id, test set) -> counts of images by true age and estimate.
    """

    rankings: tuple[SystemRanking, ...] = ()
    missing: tuple[str, ...] = ()
    shifts: Mapping[tuple[str, str], ShiftResult] = field(default_factory=dict)
    gates: Mapping[tuple[str, str], GateRatesByAge] = field(default_factory=dict)
    scatters: Mapping[tuple[str, str], list[list[int]]] = field(default_factory=dict)

    def rank_on(self, row: System, test: str) -> tuple[RankedSystem, int] | None:
        """Return a system's place in the ranking of one test set, and how many systems are in it; None without a rank.

        Args:
            row: the system.
            test: the test set.
        """
        runs = {record.id for record in row.records}
        return next(
            (
                (system, len(ranking.systems))
                for ranking in self.rankings
                if ranking.tests == [test]
                for system in ranking.systems
                if not runs.isdisjoint(system.runs)
            ),
            None,
        )


def rankings_file(results: Path) -> Path:
    """Return where the rankings of a folder of records are stored."""
    return results.parent / "rankings.json"


def read_rankings(path: Path) -> RankingsFile:
    """Read what is stored: nothing if the file is missing, no rankings if they are of another version.

    Raises:
        UserError: the file is damaged.
    """
    if not path.exists():
        return RankingsFile()
    try:
        content = RankingsFile.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, RecursionError) as error:
        problem = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
        raise UserError(
            f"{path}: not a readable file of rankings: {problem}; delete it, and `agebench leaderboard` computes them again"
        ) from error
    # The other results have versions of their own.
    return content if content.version == VERSION else content.model_copy(update={"rankings": [], "version": VERSION})


def _write_rankings(path: Path, content: RankingsFile) -> None:
    """Store rankings and shifts."""
    whole = {"version": VERSION, **content.to_json()}
    write_text(path, json.dumps(whole, separators=(",", ":"), allow_nan=False) + "\n")


def build_rankings(results: Path, rows: Sequence[System], catalog: Catalog, *, store: bool = True) -> ImageRankings:
    """Rank the systems of a folder of records, and store the rankings beside it if any was computed.

    Args:
        results: the folder of records; a record is in `<its id>.json`.
        rows: its systems.
        catalog: the cards of the datasets.
        store: whether rankings that were computed are stored.
    """
    path = rankings_file(results)
    stored = read_rankings(path)
    files = {record.id: results / f"{record.id}.json" for row in rows for record in row.records}
    datasets = LocalDatasets(catalog)
    builder = RankingBuilder(files, datasets, stored.rankings)
    ranked = builder.build(rows)
    shifts = build_shifts(rows, files, datasets, stored.shifts)
    gates = build_gates(headline_systems(rows), files, datasets, stored.gates)
    scatters = build_scatters(rows, files, datasets, stored.scatters)
    content = RankingsFile(rankings=list(ranked.rankings), shifts=shifts, gates=gates, scatters=scatters)
    is_new = {"version": VERSION, **content.to_json()} != {"version": VERSION, **stored.to_json()}
    # Elsewhere there may be the data of rankings that are missing here, but no more estimates than here.
    if store and not builder.missing and is_new and (ranked.rankings or shifts or gates or scatters or path.exists()):
        _write_rankings(path, content)
    by_test = {(shift.record, shift.test): shift.shift for shift in shifts}
    rates = {(found.record, found.test): found.rates for found in gates}
    cells = {(found.record, found.test): found.cells for found in scatters}
    return ImageRankings(ranked.rankings, ranked.missing, by_test, rates, cells)


@dataclass
class RankingBuilder:
    """Computes the rankings of systems, or takes those stored for the same estimates.

    Attributes:
        files: record id -> the file of the record.
        datasets: the datasets of this machine; None computes nothing.
        stored: rankings computed before.
        missing: why rankings were not computed on this machine, as sentences.
        unfit: which systems are in no ranking because their estimates do not fit the dataset, as sentences.
    """

    files: Mapping[str, Path]
    datasets: LocalDatasets | None = None
    stored: Sequence[SystemRanking] = ()
    missing: list[str] = field(default_factory=list)
    unfit: list[str] = field(default_factory=list)
    _systems: dict[tuple[str, System], SystemErrors | None] = field(default_factory=dict)

    def build(self, rows: Sequence[System]) -> ImageRankings:
        """Rank all systems that share test images with others.

        Args:
            rows: the systems of the leaderboard.
        """
        keys = {row: test_keys(row) for row in rows if not row.has_no_rank}
        had = {
            row: frozenset(key for key in of if not self._without_estimates(row, key[0])) for row, of in keys.items()
        }
        groups = _group_by_test(had)
        rankings = [self._ranking(group, [key]) for key, group in groups.items() if len(group) >= _FEWEST_SYSTEMS]
        # Over several test sets, a system has one figure for each seed.
        left = {row: frozenset(key for key in of if row.has_every_seed(key[0])) for row, of in had.items()}
        while (shared := shared_by_most(list(left.values()), 2, _FEWEST_SYSTEMS)) is not None:
            group = [row for row in left if shared <= left[row]]
            order = [test for test in group[0].tests if test in {name for name, *_ in shared}]
            rankings.append(self._ranking(group, sorted(shared, key=lambda key: order.index(key[0]))))
            for row in group:
                del left[row]
        missing = tuple(dict.fromkeys([*self._systems_left_out(_group_by_test(keys)), *self.unfit, *self.missing]))
        return ImageRankings(tuple(filter(None, rankings)), missing)

    def _systems_left_out(self, groups: Mapping[Test, Sequence[System]]) -> Iterator[str]:
        """Yield a sentence for each test set on which systems would have a rank, were their estimates public."""
        records: dict[str, list[str]] = {}
        for (test, *_), group in groups.items():
            if len(group) >= _FEWEST_SYSTEMS:
                records.setdefault(test, []).extend(id_ for row in group for id_ in self._without_estimates(row, test))
        for test, ids in records.items():
            if ids:
                yield _not_ranked(test, "their estimates are not beside them", ids)

    def _without_estimates(self, row: System, test: str) -> list[str]:
        """The ids of a system's records on a test set that have no estimates beside them."""
        return [
            record.id
            for record in row.records_on(test)
            if record.id not in self.files or not estimates_file(self.files[record.id], test).exists()
        ]

    def _ranking(self, rows: Sequence[System], tests: Sequence[Test]) -> SystemRanking | None:
        inputs = _inputs(rows, [name for name, *_ in tests])
        known = next((ranking for ranking in self.stored if ranking.inputs == inputs), None)
        if known is not None:
            self._name_unfit(rows, tests, known)
            return _with_present_runs(known, rows)
        samples = {}
        for name, *_ in tests:
            problem = self._missing(rows, name)
            if problem:
                self.missing.append(problem)
                return None
            samples[name] = self._labels(name)
        ranking = self._compute(rows, tests, samples, inputs)
        if ranking is not None:
            self._name_unfit(rows, tests, ranking)
        return ranking

    def _name_unfit(self, rows: Sequence[System], tests: Sequence[Test], ranking: SystemRanking) -> None:
        """Name the systems that a ranking of test sets was computed without."""
        ranked = {(system.name, system.train) for system in ranking.systems}
        ids = [record.id for row in rows if (row.name, row.train) not in ranked for record in row.records]
        if ids:
            names = ", ".join(name for name, *_ in tests)
            self.unfit.append(_not_ranked(names, "their estimates do not fit the images of the dataset", ids))

    def _missing(self, rows: Sequence[System], test: str) -> str:
        """Why a test set's labels are not at hand; "" where they are."""
        if self.datasets is None or self.datasets.samples(test) is None:
            return (
                f"{test}: not ranked, because estimates are published without labels and the dataset is not on this machine; "
                f"`agebench data add {test} PATH`, then `agebench leaderboard` computes it"
            )
        theirs = {
            record.samples[test].fingerprint
            for row in rows
            for record in row.records_on(test)
            if test in record.samples
        }
        if theirs != {self.datasets.fingerprint(test)}:
            return f"{test}: not ranked, because the copy on this machine is not the one that the records are of"
        return ""

    def _labels(self, test: str) -> "_Labels":
        assert self.datasets is not None
        samples = self.datasets.samples(test)
        assert samples is not None
        table = samples.table
        subjects = table["subject"].to_numpy(object) if "subject" in table else None
        known = subjects is not None and bool(table["subject"].notna().any())
        return _Labels(
            pd.Index(pseudonym_keys(table)), table["age"].to_numpy(float), encode_clusters(subjects, len(table)), known
        )

    def _compute(
        self, rows: Sequence[System], tests: Sequence[Test], labels: "Mapping[str, _Labels]", inputs: str
    ) -> SystemRanking | None:
        errors = {row: [self._errors(row, name, labels[name]) for name, *_ in tests] for row in rows}
        rows = [row for row in rows if None not in errors[row]]
        if len(rows) < _FEWEST_SYSTEMS:
            names = ", ".join(name for name, *_ in tests)
            self.missing.append(f"{names}: not ranked, because estimates do not fit the images of the dataset")
            return None
        sets = []
        for place, (name, held_out, _) in enumerate(tests):
            systems = tuple(system for row in rows if (system := errors[row][place]) is not None)
            part = labels[name]
            sets.append(RankedTestSet(name, held_out, systems, part.ages, part.clusters, part.people))
        if len(sets) > 1:
            sets = [one for one in sets if one.has_baseline]
            if len(sets) < 2:
                return None
        return rank_on_test_sets(sets, runs=[[record.id for record in row.records] for row in rows], inputs=inputs)

    def _errors(self, row: System, test: str, labels: "_Labels") -> SystemErrors | None:
        if (test, row) not in self._systems:
            self._systems[test, row] = _system_errors(row, test, self.files, labels)
        return self._systems[test, row]


def _group_by_test(keys: Mapping[System, frozenset[Test]]) -> dict[Test, list[System]]:
    """Return the systems of each test, in the order of the systems and of their test sets."""
    groups: dict[Test, list[System]] = {}
    for row, tests in keys.items():
        for key in sorted(tests, key=lambda key: row.tests.index(key[0])):
            groups.setdefault(key, []).append(row)
    return groups


@dataclass(frozen=True)
class _Labels:
    """Keys, ages and clusters of a dataset's images, and whether clusters are people."""

    keys: "pd.Index[int]"
    ages: Floats
    clusters: Ints
    people: bool


def _not_ranked(test: str, reason: str, ids: Sequence[str]) -> str:
    """A sentence that names the records whose systems have no rank."""
    more = [f"{len(ids) - _NAMED} more"] if len(ids) > _NAMED else []
    return (
        f"{test}: the systems of these records are not ranked, because {reason}: {join_words([*ids[:_NAMED], *more])}"
    )


def _system_errors(row: System, test: str, files: Mapping[str, Path], labels: _Labels) -> SystemErrors | None:
    """The errors of a system's seeds; None where estimates are not one for each of the dataset's images.

    Where every fold's model answered about the same images, an image has the mean of their errors.
    """
    seeds: list[Hashable] = []
    images, errors = [], []
    for record in row.records_on(test):
        table = read_estimates(estimates_file(files[record.id], test))
        places = labels.keys.get_indexer(pd.Index(table["key"]))
        tested, answers = np.unique(places, return_counts=True)
        folds = table[FOLD].nunique() if FOLD in table else 1
        if (places < 0).any() or not ((answers == 1).all() or (answers == folds).all()):
            return None
        order = np.argsort(places, kind="stable")
        answered = np.abs(table["age_pred"].to_numpy(float)[order] - labels.ages[places[order]])
        seeds.append(record.config.seed)
        images.append(tested)
        errors.append(answered.reshape(len(tested), -1).mean(axis=1))
    return SystemErrors(row.name, row.train, tuple(seeds), tuple(images), tuple(errors))


def _with_present_runs(ranking: SystemRanking, rows: Sequence[System]) -> SystemRanking:
    """Return a stored ranking with the systems' present records: a system may have got one on another test set."""
    runs = {(row.name, row.train): [record.id for record in row.records] for row in rows}
    systems = [
        system.model_copy(update={"runs": runs.get((system.name, system.train), system.runs)})
        for system in ranking.systems
    ]
    return ranking.model_copy(update={"systems": systems})


def _inputs(rows: Sequence[System], tests: Sequence[str]) -> str:
    """Digest of everything that a ranking follows from, but the labels, which the dataset's fingerprint stands for."""
    content = [
        [row.name, row.train, test, record.id, record.config.seed, _estimates(record, test), _fingerprint(record, test)]
        for test in tests
        for row in rows
        for record in row.records_on(test)
    ]
    words = json.dumps([VERSION, RESAMPLES, content])
    return hashlib.sha256(words.encode()).hexdigest()


def _estimates(record: Record, test: str) -> str | None:
    digest = record.predictions[test].estimates_sha256 if test in record.predictions else None
    return None if digest is None else str(digest)


def _fingerprint(record: Record, test: str) -> str | None:
    return record.samples[test].fingerprint if test in record.samples else None
