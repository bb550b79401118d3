"""Plot learning curves while a run trains."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agebench.reports.plots.run import learning_curves, save
from agebench.reports.plots.style import COLORS
from agebench.training.callbacks import ConsoleCallback
from agebench.training.trackers import Tracker

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
