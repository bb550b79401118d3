"""What a run's model can promise of a single answer, for the card of an exported file: without its data, nobody could tell."""

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from agebench.errors import UserError
from agebench.metrics.age_gates import LEGAL_AGES
from agebench.metrics.guarantees import conformal_interval, error_by_estimated_age, gate_error_rate_grid
from agebench.metrics.uncertainty import LEVELS, calibration_units, min_calibration_size
from agebench.runs.artifacts import VALIDATION
from agebench.runs.run_dir import RunDir
from agebench.utils.integrity import read_table


def tables_of_tests(folder: RunDir, home: str, tests: Iterable[str]) -> dict[str, pd.DataFrame]:
    """Test set -> predictions, as a person would call it: the training set's own part is its held-out part.

    Raises:
        UserError: a file is gone.
    """
    tables = {}
    for name in tests:
        file = folder.path / "predictions" / f"{name}.parquet"
        if not file.exists():
            raise UserError(f"{file}: gone, so the run's errors cannot be measured")
        tables[f"{name} (held-out part)" if name == home else name] = read_table(
            folder.path, f"predictions/{name}.parquet"
        )
    return tables


def deployment_guarantees(folder: RunDir, home: str, tests: Iterable[str]) -> dict[str, Any]:
    """Intervals (level -> see `interval_promise`), gates (threshold -> challenge age -> see `gate_promise`), and errors.

    Of a run that kept no predictions of its validation part, no intervals; of one that kept few, only the levels that they allow.
    """
    tables = tables_of_tests(folder, home, tests)
    found: dict[str, Any] = {
        "gates": {
            str(age): {key: gate.to_json() for key, gate in gate_error_rate_grid(tables, age).items()}
            for age in LEGAL_AGES
        },
        "errors": {
            test: {band: errors.to_json() for band, errors in bands.items()}
            for test, bands in error_by_estimated_age(tables).items()
        },
    }
    if (folder.path / VALIDATION).exists():
        calibration = read_table(folder.path, VALIDATION)
        found["intervals"] = {}
        for level in LEVELS:
            if calibration_units(calibration) >= min_calibration_size(level):
                promise = conformal_interval(calibration, tables, level)
                found["intervals"][f"{level:g}"] = {"calibrated_on": calibrated_on(home), **promise.to_json()}
    return found


def calibrated_on(home: str) -> str:
    """Which faces an interval was calibrated on, in words."""
    return f"{home} (validation part)"


def calibrated_from(interval: Mapping[str, Any]) -> str:
    """From how many images, and of how many people where that is known: then new people's ages are what is promised."""
    whose = interval.get("people")
    return f"n = {interval['n']:,}" + ("" if whose is None else f" of {whose:,} people, for new people")
