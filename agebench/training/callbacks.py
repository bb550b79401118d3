"""What training tells the world while it runs: a progress bar or lines, and TensorBoard."""

import time
from pathlib import Path
from types import TracebackType

import numpy as np
from torch.utils.tensorboard import SummaryWriter

from agebench.data.image_grid import make_contact_sheet
from agebench.training.dataloader import FaceDataset
from agebench.utils.progress import progress, say

N_LOGGED_FACES = 24  # validation faces on TensorBoard


class Callback:
    """Listens to a training run; this one says nothing."""

    def step_done(self, step: int, steps: int, loss: float, rate: float, images_per_s: float) -> None:
        """`step` of `steps` is done; `loss` is the epoch's mean so far."""

    def validated(self, data: FaceDataset, ages: np.ndarray) -> None:
        """The validation faces were looked at after an epoch: `ages` (N,) is what the model says."""

    def epoch_done(self, entry: dict[str, float], epochs: int) -> None:
        """An epoch is done; `entry` is its line of history.json."""


class ConsoleCallback(Callback):
    """A bar on a terminal, a line an epoch anywhere; and TensorBoard scalars and predictions in `folder`."""

    def __init__(self, folder: Path, *, first_step: int = 0, quiet: bool = False) -> None:
        # What a killed run wrote after its last checkpoint is superseded.
        self._writer = SummaryWriter(str(folder), purge_step=first_step or None)
        self._bar = progress(unit="step", label="training", initial=first_step)
        self._quiet = quiet
        self._val_mae = ""
        self._step = first_step
        self._first: tuple[int, float] | None = None
        self._left = ""

    def __enter__(self) -> "ConsoleCallback":
        self._bar.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()
        self._writer.close()

    def step_done(self, step: int, steps: int, loss: float, rate: float, images_per_s: float) -> None:
        """Move the bar; scalars against the step."""
        self._bar.total = steps
        self._bar.note = f"{images_per_s:.0f} img/s, loss {loss:.3f}{self._val_mae}"
        self._bar.update(step - self._step)
        self._step = step
        now = time.perf_counter()
        start, since = self._first = self._first or (step, now)
        if step > start:
            self._left = f", {_duration((now - since) / (step - start) * (steps - step))} left"
        for name, value in (("loss", loss), ("learning_rate", rate), ("images_per_s", images_per_s)):
            self._writer.add_scalar(f"train/{name}", value, step)

    def validated(self, data: FaceDataset, ages: np.ndarray) -> None:
        """Some validation faces, the same ones every epoch, with what is true and what the model says."""
        chosen = np.linspace(0, len(data) - 1, min(N_LOGGED_FACES, len(data))).round().astype(int)
        texts = [f"{data.ages[row]:.0f}, says {ages[row]:.0f}" for row in chosen]
        sheet = make_contact_sheet(data.pixels[data.rows[chosen]], texts, columns=8)
        self._writer.add_image("val/predictions", np.asarray(sheet), self._step, dataformats="HWC")

    def epoch_done(self, entry: dict[str, float], epochs: int) -> None:
        """A line on standard error, and the validation MAE against the step."""
        self._val_mae = f", validation MAE {entry['val_mae']:.2f}"
        self._writer.add_scalar("val/mae", entry["val_mae"], self._step)
        if "train_mae" in entry:
            self._writer.add_scalar("train/mae", entry["train_mae"], self._step)
        self._writer.flush()
        if not self._quiet:
            line = f"epoch {entry['epoch']:.0f}/{epochs}: loss {entry['loss']:.3f}{self._val_mae}"
            rate = f", {entry['images_per_s']:.0f} images/s"
            say(line + rate + (self._left if entry["epoch"] < epochs else ""))


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {seconds:02d} s" if minutes else f"{seconds} s"
