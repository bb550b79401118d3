"""Compute the content of metrics.json for a prediction file."""

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from agebench.metrics.age_gates import LEGAL_AGES, Gate, age_gates
from agebench.metrics.confidence_intervals import IntervalKind
from agebench.metrics.evaluate import evaluate_seeds
from agebench.metrics.failure_to_process import failures_to_process
from agebench.metrics.groups import MIN_GROUP, ignored_columns, scanned_groups
from agebench.metrics.prediction_format import is_group_candidate
from agebench.metrics.prediction_io import JoinedPredictions
from agebench.metrics.presets.nist_fate import nist
from agebench.metrics.requirements import Requirement, required_gates, with_requirements
from agebench.metrics.schema import FailureToProcess, MetricsFile, NotScored
from agebench.metrics.uncertainty import conformal, uncertainty

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ScoreOptions:
    """Options of the metrics to compute.

    Attributes:
        groups: columns and crossings; None: the labels with 2 to 20 values, and their crossings, see `scanned_groups`.
        train_ages: (lowest, highest) age in the training set.
        resamples: bootstrap samples, and shuffles of the tests.
        seed: of both.
        interval: `bca` or `percentile`.
        minimum: rows of a group that is ranked.
        legal_ages: of the age gates.
        challenges: challenge ages; none: the legal age, and 7 years more.
        gates: further pairs of legal and challenge age.
        minor_ages: first and last completed year of the minors that count at the gates; None: all.
        requirements: limits on figures; the gates that they need are computed, too.
        preset: `nist` adds the layout of FATE AEV.
        first_age: what the first entry of `p` stands for.
    """

    groups: tuple[str, ...] | None = None
    train_ages: tuple[float, float] | None = None
    resamples: int = 1000
    seed: int = 0
    interval: IntervalKind = "bca"
    minimum: int = MIN_GROUP
    legal_ages: tuple[int, ...] = LEGAL_AGES
    challenges: tuple[float, ...] = ()
    gates: tuple[Gate, ...] = ()
    minor_ages: tuple[int, int] | None = None
    requirements: tuple[Requirement, ...] = ()
    preset: Literal["", "nist"] = ""
    first_age: int = 0


def score_predictions(
    name: str, seeds: Sequence[JoinedPredictions], options: ScoreOptions, calibration: pd.DataFrame | None = None
) -> MetricsFile:
    """Compute all metrics of one test set.

    Args:
        name: the test set's.
        seeds: one system's predictions, one table a seed. Age gates and uncertainty are those of the first.
        options: what to compute.
        calibration: predictions on the validation part, for conformal intervals.

    Raises:
        UserError: a column is missing, or the seeds are not of the same images.
    """
    tables = [joined.table for joined in seeds]
    table = tables[0]
    groups = scanned_groups(table) if options.groups is None else options.groups
    ignored = ignored_columns(table) if options.groups is None else {}
    if ignored:
        logger.warning(
            "ignored columns, which have too many values to be groups: %s. If one identifies people, name it: --col subject=COLUMN",
            ", ".join(f"{name} ({count:,} values)" for name, count in ignored.items()),
        )
    # The gates are computed beside the other metrics: most of either is work of numpy, which threads share.
    with ThreadPoolExecutor(1) as pool:
        gates = pool.submit(
            age_gates,
            _with_refusals(seeds[0]),
            legal_ages=options.legal_ages,
            challenges=options.challenges,
            groups=groups,
            gates=(*options.gates, *required_gates(options.requirements)),
            minor_ages=options.minor_ages,
            resamples=options.resamples,
            seed=options.seed,
        )
        entry = evaluate_seeds(
            tables,
            groups=groups,
            train_ages=options.train_ages,
            resamples=options.resamples,
            seed=options.seed,
            interval=options.interval,
            minimum=options.minimum,
        )
    changes: dict[str, object] = {
        "not_scored": NotScored(
            missing=max(joined.missing for joined in seeds),
            extra=max(joined.extra for joined in seeds),
            duplicates=max(joined.duplicates for joined in seeds),
        ),
        "failure_to_process": _failures(seeds, groups),
        "age_gates": gates.result(),
    }
    doubt = uncertainty(
        table, first_age=options.first_age, resamples=options.resamples, seed=options.seed, interval=options.interval
    )
    if doubt is not None:
        changes["uncertainty"] = doubt
    if calibration is not None:
        changes["conformal"] = conformal(calibration, table, groups=groups)
    if options.preset == "nist":
        changes["nist"] = nist(table, resamples=options.resamples, seed=options.seed, interval=options.interval)
    metrics = MetricsFile(train=None, tests={name: entry.model_copy(update=changes)})
    return with_requirements(metrics, options.requirements)


def _with_refusals(joined: JoinedPredictions) -> pd.DataFrame:
    """Predictions, and the labeled images without one as refusals: estimates of minus infinity."""
    if joined.unanswered is None:
        return joined.table
    labels = joined.unanswered[joined.unanswered["age"].notna()]
    refused = _with_columns(labels, joined.table.columns).assign(age_pred=-np.inf)
    return pd.concat([joined.table, refused], ignore_index=True)


def _with_columns(table: pd.DataFrame, columns: "pd.Index[str]") -> pd.DataFrame:
    """Return these columns of a table, unknown where it lacks one: as objects, so that whole numbers beside them stay whole."""
    lacking = [column for column in columns if column not in table]
    return table.reindex(columns=columns).astype(dict.fromkeys(lacking, object))


def _failures(seeds: Sequence[JoinedPredictions], groups: Sequence[str]) -> FailureToProcess:
    """Failures to process of the seed that lacks most predictions; by group where the labels of these images are known."""
    worst = max(seeds, key=lambda joined: joined.missing)
    columns = ["age", *(column for column in worst.table if column == "subject" or is_group_candidate(str(column)))]
    parts = [worst.table[columns]]
    if worst.unanswered is not None and len(worst.unanswered) == worst.missing:
        parts.append(_with_columns(worst.unanswered, pd.Index(columns)))
    elif worst.missing:
        groups = ()
        parts = [worst.table[["age"]], pd.DataFrame({"age": np.full(worst.missing, np.nan)})]
    images = pd.concat(parts, ignore_index=True)
    failed = pd.Series(np.arange(len(images)) >= len(worst.table))
    if not failed.any():
        return failures_to_process(images, failed, ())
    return failures_to_process(images, failed, groups)
