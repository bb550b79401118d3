"""Reports of a run while it trains: learning curves, and its settings and results as the flat tables that trackers take."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from agebench.metrics.schema import MetricsFile
from agebench.reports.plots.run import learning_curves, save
from agebench.reports.plots.style import COLORS
from agebench.training.callbacks import ConsoleCallback
from agebench.training.trackers import Setting, Tracker

# Plotting takes about 1 s: short runs are not prolonged, and no run by more than a few per cent.
REFRESH_INTERVAL_S = 30.0


class LearningCurveCallback(ConsoleCallback):
    """A console callback that also plots `figures/learning-curves.png` after an epoch, at most twice a minute.

    Args:
        folder: the run's folder.
        history: the epochs; grows while the run trains.
        trackers: get the scalars and images.
        options: further ones of `ConsoleCallback`.
    """

    def __init__(
        self, folder: Path, history: list[dict[str, float]], trackers: Sequence[Tracker], **options: Any
    ) -> None:
        super().__init__(trackers, **options)
        self._figure_path, self._history = folder / "figures" / "learning-curves.png", history
        self._plotted_at = time.perf_counter()

    def on_epoch_end(self, entry: dict[str, float], epochs: int) -> None:
        """Report an epoch, and plot the curves if the last plot is old enough.

        Args:
            entry: the epoch's metrics.
            epochs: the number of epochs of the run.
        """
        super().on_epoch_end(entry, epochs)
        if time.perf_counter() - self._plotted_at < REFRESH_INTERVAL_S:
            return
        figure = learning_curves(self._history, COLORS[0])
        if figure is not None:
            save(figure, self._figure_path)
        self._plotted_at = time.perf_counter()


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
