"""Verdicts on requirements for the test sets of a finished run."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from agebench.metrics.cross_validation import age_gates_of_folds
from agebench.metrics.prediction_format import FOLD
from agebench.metrics.requirements import Requirement, required_gates, with_requirements
from agebench.metrics.schema import MetricsFile, TestResult
from agebench.utils.integrity import read_table


def check_run(folder: Path, metrics: MetricsFile, requirements: Sequence[Requirement]) -> MetricsFile:
    """Return the run's metrics with the verdicts on every test set.

    Gates that metrics.json does not have are computed from the stored predictions.

    Args:
        folder: the run's folder.
        metrics: the content of its metrics.json.
        requirements: limits; each applies to every test set.

    Raises:
        UserError: a requirement names a metric, grouping or group that a test set does not have.
    """
    gates = required_gates(requirements)
    tests = {}
    for name, entry in metrics.tests.items():
        missing = [gate for gate in gates if not _has_gate(entry, gate.legal, gate.challenge)]
        if missing:
            columns = ["sample_id", "age", "age_pred", "subject", FOLD, *_columns(entry)]
            table: pd.DataFrame = read_table(folder, f"predictions/{name}.parquet")
            table = table[[column for column in dict.fromkeys(columns) if column in table]]
            groups = [grouping for grouping in entry.groups if grouping != "age_band"]
            computed = age_gates_of_folds(table, legal_ages=(), gates=missing, groups=groups)
            for legal, gate in computed.items():
                old = entry.age_gates.get(legal)
                merged = (
                    gate
                    if old is None
                    else old.model_copy(
                        update={
                            key: getattr(old, key) | getattr(gate, key)
                            for key in ("challenge", "by_age", "by_group", "refused_by_age")
                        }
                    )
                )
                entry = entry.model_copy(update={"age_gates": entry.age_gates | {legal: merged}})
        tests[name] = entry
    return with_requirements(metrics.model_copy(update={"tests": tests}), requirements)


def _has_gate(entry: TestResult, legal: int, challenge: float) -> bool:
    gate = entry.age_gates.get(str(legal))
    return gate is not None and f"{challenge:g}" in gate.challenge


def _columns(entry: TestResult) -> list[str]:
    """Group columns of the test set; a crossing's are its parts."""
    return [column for grouping in entry.groups for column in (grouping, *grouping.split("*"))]
