"""Error rates of age gates, and errors of children and adults apart, from the estimates beside the records.

They are computed where the datasets are present and stored beside the records, as rankings are.
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
from agebench.leaderboard.systems import System, pool_seeds
from agebench.metrics.age_gates import LEGAL_AGES
from agebench.metrics.bootstrap import Flags, Ints
from agebench.metrics.clustered_rates import group_rates, subject_codes
from agebench.metrics.cross_validation import evaluate_folds, pool_folds
from agebench.metrics.groups import Grouping, groupings
from agebench.metrics.point import has_ranges
from agebench.metrics.prediction_format import FOLD
from agebench.metrics.schema import Count, MetricValue, ResultModel

# Of the method: raise it when rates of the same estimates change.
VERSION = 3
MOST_CHALLENGE = 40
# The minors that count are those of so many years below the legal age: 13 to 17 for 18.
MINOR_YEARS = 5
# Name -> first and last completed year.
STAGES = {"0-12": (0, 12), "13-17": (13, 17), "18-64": (18, 64), "65+": (65, 200)}
_RESAMPLES = 1000
_DIGITS = 4
ALL = "all"
Rate = Annotated[list[float | None], Field(min_length=3, max_length=3)]  # value, and ends of its interval


class GroupGateRates(ResultModel):
    """Rates of one group at each challenge age, as value and ends of the interval."""

    grouping: str
    group: str
    n_minors: Count = Field(description="images of minors that count")
    n_adults: Count = Field(description="images of people of legal age")
    passing: list[Rate] = Field(description="share of the minors that pass")
    refused: list[Rate] = Field(description="share of the people of legal age that are refused")


class LegalAgeRates(ResultModel):
    """Rates for one legal age."""

    legal: int = Field(description="years")
    minors: Annotated[list[int], Field(min_length=2, max_length=2)] = Field(
        description="first and last completed year of the minors that count"
    )
    challenge: list[int] = Field(description="challenge ages, years")
    groups: list[GroupGateRates] = Field(description="all images, then those of each group")


class StageError(ResultModel):
    """MAE of one stage of life."""

    stage: str
    n: Count
    mae: MetricValue


class GateRatesByAge(ResultModel):
    """All that was computed of one record on one test set, or of a system over its seeds."""

    gates: list[LegalAgeRates] = Field(default=[], description="one for each legal age")
    stages: list[StageError] = Field(default=[], description="errors of children and adults apart")


class StoredGates(StoredResult):
    """The rates of one record on one test set."""

    rates: GateRatesByAge


def build_gates(
    rows: Sequence[System], files: Mapping[str, Path], datasets: LocalDatasets, stored: Sequence[StoredGates]
) -> list[StoredGates]:
    """Return the rates of the systems' records, as far as they are stored or can be computed here.

    Args:
        rows: the systems.
        files: record id -> the file of the record.
        datasets: the datasets of this machine.
        stored: rates computed before.
    """

    def compute(record: Record, test: str, inputs: str) -> StoredGates | None:
        table, samples = labeled_estimates(record, test, files, datasets), datasets.samples(test)
        if table is None or samples is None:
            return None
        columns = [name for name in samples.groups if table[name].notna().any()]
        return StoredGates(inputs=inputs, record=record.id, test=test, rates=gate_rates_by_age(table, columns))

    tests = (
        (record, test, inputs_digest(record, test, VERSION))
        for row in rows
        for record in row.records
        for test in record.metrics.tests
    )
    return reuse_or_compute(tests, stored, compute)


def gate_rates_by_age(table: pd.DataFrame, groups: Sequence[str] = ()) -> GateRatesByAge:
    """Compute rates for each legal and challenge age, and the MAE of each stage of life.

    Labels that are ranges of ages leave open on which side of a legal age a person is: they give no rates. Of several folds
    each answer counts in the rates, and each image once in the numbers of images.

    Args:
        table: predictions with labels; `tested_in` may name the fold of each answer.
        groups: group columns.
    """
    if has_ranges(table):
        return GateRatesByAge()
    stages = _stage_errors(table)
    table = pool_folds(table)
    years = _completed_years(table)
    predicted = table["age_pred"].to_numpy(float)
    clusters = subject_codes(table)
    everyone = Grouping(ALL, (ALL,), np.zeros(len(table), dtype=np.int64))
    parts = [everyone, *groupings(table, groups)]
    gates = []
    for legal in LEGAL_AGES:
        minors = (legal - MINOR_YEARS, legal - 1)
        under, over = (years >= minors[0]) & (years < legal), years >= legal
        if not under.any() or not over.any():
            continue
        challenge = list(range(legal, MOST_CHALLENGE + 1))
        rates = []
        for part in parts:
            size = len(part.names)
            passing = [group_rates(predicted >= t, under, part.codes, size, clusters) for t in challenge]
            refused = [group_rates(predicted < t, over, part.codes, size, clusters) for t in challenge]
            for place, name in enumerate(part.names):
                rates.append(
                    GroupGateRates(
                        grouping=part.name,
                        group=name,
                        n_minors=_n_images(table, under & (part.codes == place)),
                        n_adults=_n_images(table, over & (part.codes == place)),
                        passing=[_rate(of[place]) for of in passing],
                        refused=[_rate(of[place]) for of in refused],
                    )
                )
        gates.append(LegalAgeRates(legal=legal, minors=list(minors), challenge=challenge, groups=rates))
    return GateRatesByAge(gates=gates, stages=stages)


def _completed_years(table: pd.DataFrame) -> Ints:
    years: Ints = np.floor(table["age"].to_numpy(float)).astype(np.int64)
    return years


def _n_images(table: pd.DataFrame, among: Flags) -> int:
    return int(table.loc[among, "sample_id"].nunique())


def _rate(metric: MetricValue) -> Rate:
    return [_rounded(metric.value), _rounded(metric.ci_low), _rounded(metric.ci_high)]


def _rounded(number: float | None) -> float | None:
    return None if number is None else round(min(max(number, 0.0), 1.0), _DIGITS)


def _stage_errors(table: pd.DataFrame) -> list[StageError]:
    names, years = np.array(list(STAGES), dtype=object), np.maximum(_completed_years(table), 0)
    stage = names[np.searchsorted([low for low, _ in STAGES.values()], years, side="right") - 1]
    kept = [name for name in ("sample_id", "age", "age_pred", "subject", FOLD) if name in table]
    result = evaluate_folds(table[kept].assign(stage=stage), groups=["stage"], resamples=_RESAMPLES, seed=0)
    found = result.groups.get("stage", {})
    return [
        StageError(
            stage=name,
            n=_n_images(table, stage == name),
            mae=_rounded_years(found[name].mae),
        )
        for name in STAGES
        if name in found
    ]


def _rounded_years(metric: MetricValue) -> MetricValue:
    value, low, high = (
        None if end is None else round(end, _DIGITS) for end in (metric.value, metric.ci_low, metric.ci_high)
    )
    return MetricValue(value=value, ci_low=low, ci_high=high)


def system_gates(row: System, test: str, stored: Mapping[tuple[str, str], GateRatesByAge]) -> GateRatesByAge | None:
    """Return the rates of a system on a test set over its seeds; None where a seed has none.

    Args:
        row: the system.
        test: the test set.
        stored: (record id, test set) -> rates.
    """
    seeds = [stored.get((record.id, test)) for record in row.records_on(test)]
    known = [rates for rates in seeds if rates is not None]
    if len(known) < len(seeds):
        return None
    return known[0] if len(known) == 1 else GateRatesByAge(gates=_pool_gates(known), stages=_pool_stages(known))


def _pool_gates(seeds: Sequence[GateRatesByAge]) -> list[LegalAgeRates]:
    by_seed = [{gates.legal: gates for gates in rates.gates} for rates in seeds]
    return [
        first.model_copy(update={"groups": _pool_groups([rates[first.legal] for rates in by_seed])})
        for first in seeds[0].gates
        if all(first.legal in rates for rates in by_seed)
    ]


def _pool_groups(seeds: Sequence[LegalAgeRates]) -> list[GroupGateRates]:
    by_seed = [{(group.grouping, group.group): group for group in rates.groups} for rates in seeds]
    pooled = []
    for first in seeds[0].groups:
        key = (first.grouping, first.group)
        if all(key in groups for groups in by_seed):
            same = [groups[key] for groups in by_seed]
            rates = {
                "passing": _pool_rates([group.passing for group in same]),
                "refused": _pool_rates([group.refused for group in same]),
            }
            pooled.append(first.model_copy(update=rates))
    return pooled


def _pool_rates(seeds: Sequence[Sequence[Rate]]) -> list[Rate]:
    return [_rate(pool_seeds([_rate_metric(rate) for rate in rates])) for rates in zip(*seeds, strict=True)]


def _rate_metric(rate: Rate) -> MetricValue:
    """Return a rate as a metric."""
    value, low, high = rate
    return MetricValue(value=value, ci_low=low, ci_high=high)


def _pool_stages(seeds: Sequence[GateRatesByAge]) -> list[StageError]:
    by_seed = [{error.stage: error for error in rates.stages} for rates in seeds]
    return [
        first.model_copy(update={"mae": pool_seeds([errors[first.stage].mae for errors in by_seed])})
        for first in seeds[0].stages
        if all(first.stage in errors for errors in by_seed)
    ]


def gate_rate(rates: GateRatesByAge | None, legal: int, challenge: int) -> tuple[MetricValue, int]:
    """Return the share of minors that pass one gate, of all groups, and the number of their images.

    Args:
        rates: of a system on a test set.
        legal: legal age, years.
        challenge: challenge age, years.
    """
    found = _everyone(rates, legal, challenge)
    return (MetricValue(), 0) if found is None else (_rate_metric(found[0].passing[found[1]]), found[0].n_minors)


def refusal_rate(rates: GateRatesByAge | None, legal: int, challenge: int) -> MetricValue:
    """Return the share of people of legal age that one gate refuses, of all groups.

    Args:
        rates: of a system on a test set.
        legal: legal age, years.
        challenge: challenge age, years.
    """
    found = _everyone(rates, legal, challenge)
    return MetricValue() if found is None else _rate_metric(found[0].refused[found[1]])


def _everyone(rates: GateRatesByAge | None, legal: int, challenge: int) -> tuple[GroupGateRates, int] | None:
    """The rates of all images, and the place of a challenge age among them; None where they were not measured."""
    for gates in rates.gates if rates else ():
        if gates.legal == legal and challenge in gates.challenge:
            return gates.groups[0], gates.challenge.index(challenge)
    return None
