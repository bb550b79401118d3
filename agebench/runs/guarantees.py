"""Entries of the card of an exported file, which ships without data: facts of the run, guarantees for single predictions."""

from collections.abc import Iterable

import pandas as pd

from agebench.config.toml_io import validate_model
from agebench.errors import UserError
from agebench.export.card import RunFacts
from agebench.metrics.age_gates import LEGAL_AGES
from agebench.metrics.guarantees import conformal_interval, error_by_estimated_age, gate_error_rate_grid
from agebench.metrics.schema import CalibratedInterval, ConformalInterval, DeploymentGuarantees
from agebench.metrics.uncertainty import LEVELS, calibration_units, min_calibration_size
from agebench.runs.artifacts import VALIDATION
from agebench.runs.run_dir import RunDir
from agebench.utils.integrity import read_table


def run_facts(folder: RunDir) -> RunFacts:
    """Return the entries of a run's manifest.json that its card repeats.

    Args:
        folder: the run's folder.

    Raises:
        UserError: an entry has another type.
    """
    return validate_model(RunFacts, folder.manifest(), source=str(folder.path / "manifest.json"))


def tables_of_tests(folder: RunDir, home: str, tests: Iterable[str]) -> dict[str, pd.DataFrame]:
    """Return name of a test set -> predictions; the training set's own test split is called its held-out part.

    Args:
        folder: the run's folder.
        home: the training set.
        tests: the test sets.

    Raises:
        UserError: a file is missing.
    """
    tables = {}
    for name in tests:
        file = folder.path / "predictions" / f"{name}.parquet"
        if not file.exists():
            raise UserError(f"{file}: missing, so the run's errors cannot be measured")
        tables[f"{name} (held-out part)" if name == home else name] = read_table(
            folder.path, f"predictions/{name}.parquet"
        )
    return tables


def deployment_guarantees(folder: RunDir, home: str, tests: Iterable[str]) -> DeploymentGuarantees:
    """Return intervals (by level), age-gate error rates (by threshold and challenge age), and errors by estimated age.

    A run without validation predictions has no intervals; one with few has only the levels that they allow.

    Args:
        folder: the run's folder.
        home: the training set.
        tests: the test sets.
    """
    tables = tables_of_tests(folder, home, tests)
    gates = {str(age): gate_error_rate_grid(tables, age) for age in LEGAL_AGES}
    errors = error_by_estimated_age(tables)
    if not (folder.path / VALIDATION).exists():
        return DeploymentGuarantees(gates=gates, errors=errors)
    calibration = read_table(folder.path, VALIDATION)
    n_units = calibration_units(calibration)
    intervals = {
        f"{level:g}": calibrated_interval(conformal_interval(calibration, tables, level), home)
        for level in LEVELS
        if n_units >= min_calibration_size(level)
    }
    return DeploymentGuarantees(gates=gates, errors=errors, intervals=intervals)


def calibrated_interval(interval: ConformalInterval, home: str) -> CalibratedInterval:
    """Return an interval with the name of its calibration set.

    Args:
        interval: the interval.
        home: the training set, whose validation part calibrated it.
    """
    fields = {name: getattr(interval, name) for name in interval.model_fields_set}
    return CalibratedInterval(calibrated_on=f"{home} (validation part)", **fields)
