"""The settings and results of a run, as the flat tables that trackers take."""

from collections.abc import Mapping

from pydantic import JsonValue

from agebench.metrics.schema import MetricsFile
from agebench.training.trackers import Setting


def flatten_settings(settings: Mapping[str, JsonValue]) -> dict[str, Setting]:
    """Return dotted key -> value of every setting; lists become text.

    Args:
        settings: nested tables, as in config.toml.
    """
    flat: dict[str, Setting] = {}
    for key, value in settings.items():
        if isinstance(value, dict):
            flat |= {f"{key}.{name}": entry for name, entry in flatten_settings(value).items()}
        else:
            flat[key] = ", ".join(map(str, value)) if isinstance(value, list) else value
    return flat


def tracked_results(metrics: MetricsFile) -> dict[str, float]:
    """Return the overall metrics of each test set, the ends of the MAE's interval, and the rates of the age gates.

    Args:
        metrics: the run's metrics.

    Returns:
        Name -> value: `test/utk/mae`, `test/utk/mae_ci_low`, `test/utk/fpr_18_at_25`.
    """
    results: dict[str, float | None] = {}
    for dataset, test in metrics.tests.items():
        prefix = f"test/{dataset}"
        results |= {f"{prefix}/{name}": metric.value for name, metric in test.overall.items()}
        mae = test.metric("mae")
        results |= {f"{prefix}/mae_ci_low": mae.ci_low, f"{prefix}/mae_ci_high": mae.ci_high}
        for legal_age, gate in test.age_gates.items():
            for challenge_age, rates in gate.challenge.items():
                suffix = f"{legal_age}_at_{float(challenge_age):g}"
                results |= {f"{prefix}/fpr_{suffix}": rates.fpr.value, f"{prefix}/fnr_{suffix}": rates.fnr.value}
    return {name: value for name, value in results.items() if value is not None}
