"""Verification of rankings.json: everything in it is computed again from the estimates beside the records."""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agebench.leaderboard.gate_rates import build_gates
from agebench.leaderboard.headline_systems import headline_systems
from agebench.leaderboard.image_ranking import RankingBuilder, RankingsFile, rankings_file, read_rankings
from agebench.leaderboard.published_estimates import LocalDatasets
from agebench.leaderboard.scatter import build_scatters
from agebench.leaderboard.shifts import build_shifts
from agebench.leaderboard.systems import System
from agebench.metrics.schema import ResultModel, SystemRanking

# Years or shares: resampled sums are single precision, and numbers are rounded to four digits.
_TOLERANCE = 2e-3
# Computed from the differences, which are compared; a difference that ends at 0 decides it by the last digit.
_DERIVED = frozenset({"rank_low", "rank_high"})
_OUTDATED = "is not of the records that are there now; `agebench leaderboard` computes it again"


@dataclass(frozen=True)
class RankingCheck:
    """The result of a verification.

    Attributes:
        path: the file.
        problems: what is wrong, in sentences.
        computed: how many of its entries were computed again.
        entries: how many entries it has.
    """

    path: Path
    problems: tuple[str, ...]
    computed: int
    entries: int


def check_rankings(results: Path, rows: Sequence[System], datasets: LocalDatasets | None) -> RankingCheck | None:
    """Compare the stored rankings, shifts and gate rates with those that follow from the estimates.

    Entries of test sets that are not on this machine are only checked for being of the present records.

    Args:
        results: the folder of records.
        rows: its systems.
        datasets: the datasets of this machine; None: nothing is computed again.

    Returns:
        The result; None if no rankings are stored.

    Raises:
        UserError: the file cannot be read.
    """
    path = rankings_file(results)
    stored = read_rankings(path)
    if not (stored.rankings or stored.shifts or stored.gates):
        return None
    files = {record.id: results / f"{record.id}.json" for row in rows for record in row.records}
    expected = {} if datasets is None else _by_key(_compute(rows, files, datasets))
    recorded = _by_key(stored)
    problems = [problem for key, entry in expected.items() for problem in _compare(key, recorded.get(key), entry)]
    problems += [problem for ranking in stored.rankings for problem in _inconsistent(ranking)]
    # What cannot be computed here must still be of these records.
    problems += [
        f"the ranking on {', '.join(ranking.tests)} {_OUTDATED}"
        for ranking in stored.rankings
        if not _is_current(ranking, rows, files)
    ]
    return RankingCheck(path, tuple(dict.fromkeys(problems)), len(expected), len(recorded))


def _compute(rows: Sequence[System], files: Mapping[str, Path], datasets: LocalDatasets) -> RankingsFile:
    return RankingsFile(
        rankings=list(RankingBuilder(files, datasets).build(rows).rankings),
        shifts=build_shifts(rows, files, datasets, ()),
        gates=build_gates(headline_systems(rows), files, datasets, ()),
        scatters=build_scatters(rows, files, datasets, ()),
    )


def _by_key(content: RankingsFile) -> dict[tuple[str, Hashable], ResultModel]:
    entries: dict[tuple[str, Hashable], ResultModel] = {}
    for ranking in content.rankings:
        entries[f"the ranking on {', '.join(ranking.tests)}", ranking.inputs] = ranking
    for shift in content.shifts:
        entries[f"the shift of {shift.record} on {shift.test}", shift.inputs] = shift
    for gates in content.gates:
        entries[f"the gate rates of {gates.record} on {gates.test}", gates.inputs] = gates
    for scatter in content.scatters:
        entries[f"the scatter of {scatter.record} on {scatter.test}", scatter.inputs] = scatter
    return entries


def _compare(key: tuple[str, Hashable], recorded: ResultModel | None, computed: ResultModel) -> Iterator[str]:
    name, _ = key
    if recorded is None:
        yield f"{name} is missing, or {_OUTDATED}"
        return
    difference = next(_differences(recorded.to_json(), computed.to_json(), ""), None)
    if difference is not None:
        yield f"{name}: {difference}"


def _differences(recorded: Any, computed: Any, where: str) -> Iterator[str]:
    """Yield the places at which two JSON values differ by more than rounding."""
    if isinstance(recorded, Mapping) and isinstance(computed, Mapping):
        for key in {**recorded, **computed}:
            if key not in _DERIVED:
                yield from _differences(recorded.get(key), computed.get(key), f"{where}.{key}".lstrip("."))
    elif isinstance(recorded, list) and isinstance(computed, list) and len(recorded) == len(computed):
        for place, (theirs, ours) in enumerate(zip(recorded, computed, strict=True)):
            yield from _differences(theirs, ours, f"{where}[{place}]")
    elif isinstance(recorded, float) and isinstance(computed, float):
        if abs(recorded - computed) > _TOLERANCE:
            yield f"{where} is {recorded:.4f} there, and {computed:.4f} by the estimates"
    elif recorded != computed:
        yield f"{where} is not what follows from the estimates"


def _inconsistent(ranking: SystemRanking) -> Iterator[str]:
    """Yield systems whose rank interval does not follow from the ranking's differences."""
    count = len(ranking.systems)
    low, high = [1] * count, [count] * count
    for first, second, _, lower, upper in ranking.differences:
        better, worse = (int(first), int(second)) if lower > 0 else (int(second), int(first))
        if lower > 0 or upper < 0:
            low[worse] += 1
            high[better] -= 1
    for place, system in enumerate(ranking.systems):
        if (system.rank_low, system.rank_high) != (low[place], high[place]):
            yield (
                f"the ranking on {', '.join(ranking.tests)}: rank {system.rank_low}-{system.rank_high} of {system.name} "
                f"does not follow from its differences ({low[place]}-{high[place]})"
            )


def _is_current(ranking: SystemRanking, rows: Sequence[System], files: Mapping[str, Path]) -> bool:
    """Return whether a stored ranking is of the present records; needs no dataset."""
    current = RankingBuilder(files, None, [ranking]).build(rows).rankings
    return any(one.inputs == ranking.inputs for one in current)
