"""Learning curves that grow while a run trains."""

import time
from pathlib import Path
from typing import Any

from agebench.reports.plots.run import learning_curves, save
from agebench.reports.plots.style import COLORS
from agebench.training.callbacks import ConsoleCallback

# Drawing takes about a second: runs of seconds are not made longer by it, and no run by more than a few per cent.
REFRESH_INTERVAL_S = 30.0


class LearningCurveCallback(ConsoleCallback):
    """As `Console`; `figures/learning-curves.png` of the run's folder is drawn anew after an epoch, at most twice a minute."""

    def __init__(self, folder: Path, history: list[dict[str, float]], **options: Any) -> None:
        super().__init__(folder / "tensorboard", **options)
        self._picture, self._history = folder / "figures" / "learning-curves.png", history
        self._drawn = time.perf_counter()

    def on_epoch_end(self, entry: dict[str, float], epochs: int) -> None:
        """Draw, where it is time."""
        super().on_epoch_end(entry, epochs)
        if time.perf_counter() - self._drawn < REFRESH_INTERVAL_S:
            return
        figure = learning_curves(self._history, COLORS[0])
        if figure is not None:
            save(figure, self._picture)
        self._drawn = time.perf_counter()
