"""Verdicts on requirements for the test sets of a finished run."""

from collections.abc import Sequence
from pathlib import Path

from agebench.metrics.requirements import Requirement, required_gates, with_requirements
from agebench.metrics.schema import MetricsFile, TestResult
from agebench.runs.gates import stored_gates


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
            ages = next((gate.minor_ages for gate in entry.age_gates.values() if gate.minor_ages), None)
            minor_ages = None if ages is None else (ages[0], ages[1])
            computed = stored_gates(folder, name, entry, legal_ages=(), gates=missing, minor_ages=minor_ages)
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
