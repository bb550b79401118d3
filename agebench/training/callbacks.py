"""Training callbacks: progress bar, log lines, TensorBoard."""

import logging
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol

import numpy as np
from torch.utils.tensorboard import SummaryWriter

from agebench.data.image_grid import make_contact_sheet
from agebench.training.dataloader import FaceDataset
from agebench.utils.progress import progress

logger = logging.getLogger(__name__)

N_LOGGED_FACES = 24  # validation faces on TensorBoard


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
    """Progress on standard error, and TensorBoard scalars and images.

    Progress is a bar on a terminal, and one line per epoch elsewhere.

    Args:
        folder: the folder of the TensorBoard files.
        first_step: optimizer steps done before a resume. TensorBoard files of later steps are superseded.
        quiet: whether to print no lines.
    """

    def __init__(self, folder: Path, *, first_step: int = 0, quiet: bool = False) -> None:
        self._writer = SummaryWriter(str(folder), purge_step=first_step or None)
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
        self._writer.close()

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
        for name, value in (("loss", state.loss), ("learning_rate", state.lr), ("images_per_s", state.images_per_s)):
            self._writer.add_scalar(f"train/{name}", value, state.step)

    def on_validation(self, data: FaceDataset, ages: np.ndarray) -> None:
        """Write some validation faces with true and predicted age.

        The faces are the same after every epoch.

        Args:
            data: the validation faces.
            ages: (N,) predicted ages, years.
        """
        selected = np.linspace(0, len(data) - 1, min(N_LOGGED_FACES, len(data))).round().astype(int)
        captions = [f"{data.ages[row]:.0f}, predicted {ages[row]:.0f}" for row in selected]
        sheet = make_contact_sheet(data.pixels[data.rows[selected]], captions, columns=8)
        self._writer.add_image("val/predictions", np.asarray(sheet), self._step, dataformats="HWC")

    def on_epoch_end(self, entry: dict[str, float], epochs: int) -> None:
        """Log a line and write the scalars of the epoch.

        Args:
            entry: the epoch's entry of history.json.
            epochs: the number of epochs of the whole training, if it does not stop early.
        """
        self._val_mae = f", validation MAE {entry['val_mae']:.2f}"
        self._writer.add_scalar("val/mae", entry["val_mae"], self._step)
        if "train_mae" in entry:
            self._writer.add_scalar("train/mae", entry["train_mae"], self._step)
        self._writer.flush()
        if not self._quiet:
            line = f"epoch {entry['epoch']:.0f}/{epochs}: loss {entry['loss']:.3f}{self._val_mae}"
            throughput = f", {entry['images_per_s']:.0f} images/s"
            logger.info("%s", line + throughput + (self._remaining if entry["epoch"] < epochs else ""))


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {seconds:02d} s" if minutes else f"{seconds} s"
