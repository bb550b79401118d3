"""Training callbacks: progress bar, log lines, curves and images for trackers."""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol

import numpy as np

from agebench.data.image_grid import make_contact_sheet
from agebench.training.dataloader import FaceDataset
from agebench.training.trackers import Tracker
from agebench.utils.progress import progress

logger = logging.getLogger(__name__)

N_LOGGED_FACES = 24  # validation faces that trackers get


@dataclass(frozen=True)
class TrainState:
    """The progress of a training run after an optimizer step.

    Attributes:
        epoch: the current epoch, from 1.
        step: optimizer steps done, over all epochs.
        total_steps: optimizer steps of the whole training, if it does not stop early.
        loss: mean loss of the current epoch so far.
        lr: learning rate of the step.
        images_per_s: throughput of the current epoch so far.
    """

    epoch: int
    step: int
    total_steps: int
    loss: float
    lr: float
    images_per_s: float


class Callback(Protocol):
    """Hooks of a training run."""

    def on_step(self, state: TrainState) -> None:
        """Handle the progress after some optimizer steps.

        Args:
            state: the progress.
        """

    def on_validation(self, data: FaceDataset, ages: np.ndarray) -> None:
        """Handle the validation after an epoch.

        Args:
            data: the validation faces.
            ages: (N,) predicted ages, years.
        """

    def on_epoch_end(self, entry: dict[str, float], epochs: int) -> None:
        """Handle the end of an epoch, after its checkpoints are written.

        Args:
            entry: the epoch's entry of history.json.
            epochs: the number of epochs of the whole training, if it does not stop early.
        """


class NullCallback:
    """A callback that does nothing.

    It is also a base class for callbacks that need only some of the hooks.
    """

    def on_step(self, state: TrainState) -> None:
        """Do nothing."""

    def on_validation(self, data: FaceDataset, ages: np.ndarray) -> None:
        """Do nothing."""

    def on_epoch_end(self, entry: dict[str, float], epochs: int) -> None:
        """Do nothing."""


class ConsoleCallback:
    """Progress on standard error; scalars and images for trackers.

    Progress is a bar on a terminal, and one line per epoch elsewhere.

    Args:
        trackers: get the scalars and images; the caller closes them.
        first_step: optimizer steps done before a resume.
        quiet: whether to print no lines.
    """

    def __init__(self, trackers: Sequence[Tracker], *, first_step: int = 0, quiet: bool = False) -> None:
        self._trackers = trackers
        self._bar = progress(unit="step", label="training", initial=first_step)
        self._quiet = quiet
        self._val_mae = ""
        self._step = first_step
        self._start: tuple[int, float] | None = None
        self._remaining = ""

    def __enter__(self) -> "ConsoleCallback":
        self._bar.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()

    def on_step(self, state: TrainState) -> None:
        """Update the progress bar and write the scalars of the step.

        Args:
            state: the progress.
        """
        self._bar.total = state.total_steps
        self._bar.note = f"{state.images_per_s:.0f} img/s, loss {state.loss:.3f}{self._val_mae}"
        self._bar.update(state.step - self._step)
        self._step = state.step
        now = time.perf_counter()
        start_step, started = self._start = self._start or (state.step, now)
        if state.step > start_step:
            seconds_per_step = (now - started) / (state.step - start_step)
            self._remaining = f", {_duration(seconds_per_step * (state.total_steps - state.step))} left"
        scalars = {
            "train/loss": state.loss,
            "train/learning_rate": state.lr,
            "train/images_per_s": state.images_per_s,
        }
        for tracker in self._trackers:
            tracker.log_scalars(scalars, state.step)

    def on_validation(self, data: FaceDataset, ages: np.ndarray) -> None:
        """Write some validation faces with true and predicted age; nothing without a tracker, or of features.

        The faces are the same after every epoch.

        Args:
            data: the validation faces.
            ages: (N,) predicted ages, years.
        """
        if not self._trackers or data.pixels.dtype != np.uint8:
            return
        selected = np.linspace(0, len(data) - 1, min(N_LOGGED_FACES, len(data))).round().astype(int)
        captions = [f"{data.ages[row]:.0f}, predicted {ages[row]:.0f}" for row in selected]
        sheet = np.asarray(make_contact_sheet(data.pixels[data.rows[selected]], captions, columns=8))
        for tracker in self._trackers:
            tracker.log_image("val/predictions", sheet, self._step)

    def on_epoch_end(self, entry: dict[str, float], epochs: int) -> None:
        """Log a line and write the scalars of the epoch.

        Args:
            entry: the epoch's entry of history.json.
            epochs: the number of epochs of the whole training, if it does not stop early.
        """
        self._val_mae = f", validation MAE {entry['val_mae']:.2f}"
        scalars = {"val/mae": entry["val_mae"]}
        if "train_mae" in entry:
            scalars["train/mae"] = entry["train_mae"]
        for tracker in self._trackers:
            tracker.log_scalars(scalars, self._step)
            tracker.flush()
        if not self._quiet:
            line = f"epoch {entry['epoch']:.0f}/{epochs}: loss {entry['loss']:.3f}{self._val_mae}"
            throughput = f", {entry['images_per_s']:.0f} images/s"
            logger.info("%s", line + throughput + (self._remaining if entry["epoch"] < epochs else ""))


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {seconds:02d} s" if minutes else f"{seconds} s"
