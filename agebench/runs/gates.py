"""Age gates of a run's test sets: those of its settings, and those of other settings from its stored predictions."""

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from agebench.config.run import EvaluateConfig
from agebench.config.toml_io import Settings, read_settings
from agebench.metrics.age_gates import parse_ages, parse_gate
from agebench.metrics.cross_validation import age_gates_of_folds
from agebench.metrics.prediction_format import FOLD
from agebench.metrics.schema import GateResult, TestResult
from agebench.reports.run import write_report
from agebench.runs.run_dir import Config, RunDir
from agebench.utils.integrity import checked, read_table

# Settings that change nothing but the age gates.
_GATE_SETTINGS = ("gates", "gate_ages")


def configured_gates(settings: EvaluateConfig) -> dict[str, Any]:
    """Return the arguments of `age_gates` that the settings determine.

    Args:
        settings: the run's settings of the metrics.

    Raises:
        UserError: a gate or the range of ages has the wrong form.
    """
    return {
        "gates": tuple(parse_gate(text) for text in settings.gates),
        "minor_ages": parse_ages(settings.gate_ages) if settings.gate_ages else None,
    }


def _stored_predictions(folder: Path, name: str, entry: TestResult) -> pd.DataFrame:
    """Read the columns that age gates need from the stored predictions.

    Args:
        folder: the run's folder.
        name: the test set.
        entry: its metrics, which name the groupings.
    """
    columns = ["sample_id", "age", "age_pred", "subject", FOLD]
    columns += [column for grouping in entry.groups for column in (grouping, *grouping.split("*"))]
    table: pd.DataFrame = read_table(folder, f"predictions/{name}.parquet")
    return table[[column for column in dict.fromkeys(columns) if column in table]]


def stored_gates(folder: Path, name: str, entry: TestResult, **options: Any) -> dict[str, GateResult]:
    """Compute age gates of one test set from the stored predictions.

    Args:
        folder: the run's folder.
        name: the test set.
        entry: its metrics, which name the groupings.
        options: further arguments of `age_gates`.
    """
    groups = [grouping for grouping in entry.groups if grouping != "age_band"]
    return age_gates_of_folds(_stored_predictions(folder, name, entry), groups=groups, **options)


def renew_gates(folder: RunDir, config: Config) -> bool:
    """Compute the age gates of a finished run again if the settings differ in these alone; return whether they did.

    The model is neither trained nor asked again: gates follow from the stored predictions. metrics.json, config.toml and the
    report are written again.

    Args:
        folder: the run's folder.
        config: the settings now.

    Raises:
        UserError: a gate has the wrong form.
        Damaged: a file of the run was changed.
    """
    if not differs_in_gates(folder, config):
        return False
    with folder.locked():
        if differs_in_gates(folder, config):  # another process may have computed them in the meantime
            _renew(folder, config)
    return True


def differs_in_gates(folder: RunDir, config: Config) -> bool:
    """Return whether the folder contains this run, finished, with other age gates.

    Args:
        folder: the run's folder.
        config: the settings now.
    """
    file = folder.path / "config.toml"
    if not folder.manifest().get("finished") or not file.exists():
        return False
    stored, wanted = read_settings(checked(folder.path, file.name)), tomllib.loads(config.to_toml())
    return stored != wanted and dict(_other_settings(stored)) == dict(_other_settings(wanted))


def _other_settings(settings: Settings) -> Iterator[tuple[str, Any]]:
    for key, value in settings.items():
        if key == "evaluate" and isinstance(value, dict):
            value = {name: item for name, item in value.items() if name not in _GATE_SETTINGS}
        yield key, value


def _renew(folder: RunDir, config: Config) -> None:
    settings = tomllib.loads(config.to_toml())
    evaluate = EvaluateConfig.model_validate(settings["evaluate"])
    metrics, options = folder.metrics_file(), configured_gates(evaluate)
    tests = {}
    for name, entry in metrics.tests.items():
        gates = stored_gates(
            folder.path, name, entry, resamples=evaluate.resamples, seed=int(settings["seed"]), **options
        )
        tests[name] = entry.model_copy(update={"age_gates": gates})
    folder.write_json("metrics.json", metrics.model_copy(update={"tests": tests}).to_json())
    folder.renew_digest("metrics.json")
    folder.write_config(config)  # last: until then, the same command computes the gates again
    folder.renew_digest("config.toml")
    write_report(folder.path)
