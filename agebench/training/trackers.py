"""Trackers of experiments: TensorBoard, Weights & Biases and MLflow receive the curves and the results of a run."""

import importlib.util
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol

import numpy as np
from PIL import Image

from agebench.errors import UserError
from agebench.types import TrackerName
from agebench.utils.integrity import read_json_table
from agebench.utils.io import write_json

logger = logging.getLogger(__name__)

_PROJECT = "agebench"  # of the runs, where the user's environment names none
IDENTIFIERS = "trackers.json"  # in the run's folder: service -> identifier of the run there
_REMEDIES = {
    TrackerName.WANDB: "(`wandb login` signs in; with WANDB_MODE=offline nothing is sent before `wandb sync`)",
    TrackerName.MLFLOW: "(MLFLOW_TRACKING_URI names the server or the folder)",
}
Setting = str | int | float | bool | None


class Tracker(Protocol):
    """A destination of scalars and images of a run."""

    def log_scalars(self, scalars: Mapping[str, float], step: int) -> None:
        """Log named values at an optimizer step.

        Args:
            scalars: name -> value, such as `train/loss`.
            step: optimizer steps done.
        """

    def log_image(self, name: str, image: np.ndarray, step: int) -> None:
        """Log an image at an optimizer step.

        Args:
            name: the image's name.
            image: (H, W, 3) uint8 RGB.
            step: optimizer steps done.
        """

    def flush(self) -> None:
        """Write everything that was logged."""


class TensorBoardTracker:
    """Writes TensorBoard files.

    Args:
        folder: the folder of the files.
        first_step: optimizer steps done before a resume. Files of later steps are superseded.
    """

    def __init__(self, folder: Path, *, first_step: int = 0) -> None:
        # Late: TensorBoard imports TensorFlow where it is installed, and a prediction writes no curves.
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder), purge_step=first_step or None)

    def log_scalars(self, scalars: Mapping[str, float], step: int) -> None:
        """Write scalars; see `Tracker.log_scalars`."""
        for name, value in scalars.items():
            self._writer.add_scalar(name, value, step)

    def log_image(self, name: str, image: np.ndarray, step: int) -> None:
        """Write an image; see `Tracker.log_image`."""
        self._writer.add_image(name, image, step, dataformats="HWC")

    def flush(self) -> None:
        """Write everything that was logged."""
        self._writer.flush()

    def close(self) -> None:
        """Close the files."""
        self._writer.close()


@dataclass(frozen=True)
class TrackedRun:
    """The description of a run for a tracking service.

    Attributes:
        folder: the run's folder.
        settings: dotted key -> value of every setting of the run.
        is_resumed: whether the run continues an earlier call; the services then continue their runs too.
    """

    folder: Path
    settings: Mapping[str, Setting]
    is_resumed: bool = False


class TrackingService(Tracker, Protocol):
    """A tracker with a run that stays open until the results are known.

    Attributes:
        identifier: identifies the run in the service.
        location: where the user finds it.
    """

    identifier: str
    location: str

    def log_results(self, results: Mapping[str, float]) -> None:
        """Log the final results.

        Args:
            results: name -> value, such as `test/utk/mae`.
        """

    def close(self, *, is_finished: bool) -> None:
        """End the run.

        Args:
            is_finished: whether the run was completed.
        """


class _WandbService:
    """A run of Weights & Biases, configured by the environment variables of wandb, such as WANDB_PROJECT and WANDB_MODE.

    Args:
        run: the run to track.
        identifier: the identifier of the run to continue; "": a new one.
    """

    def __init__(self, run: TrackedRun, identifier: str) -> None:
        import wandb

        # `create_new`: a notebook may have a run of its own open.
        self._image, self._run = (
            wandb.Image,
            wandb.init(
                project=os.environ.get("WANDB_PROJECT", _PROJECT),
                name=run.folder.name,
                config=dict(run.settings),
                id=identifier or None,
                resume="allow",
                reinit="create_new",
                settings=wandb.Settings(silent=True, console="off"),
            ),
        )
        # wandb's own step cannot restart, as it does with every fold.
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")
        self.identifier: str = self._run.id
        self.location: str = str(Path(self._run.dir).parent if self._run.offline else self._run.url)

    def log_scalars(self, scalars: Mapping[str, float], step: int) -> None:
        """Log scalars; see `Tracker.log_scalars`."""
        self._run.log({**scalars, "step": step})

    def log_image(self, name: str, image: np.ndarray, step: int) -> None:
        """Log an image; see `Tracker.log_image`."""
        self._run.log({name: self._image(image), "step": step})

    def flush(self) -> None:
        """Do nothing: wandb writes in the background."""

    def log_results(self, results: Mapping[str, float]) -> None:
        """Write the results to the run's summary; see `TrackingService.log_results`."""
        self._run.summary.update(dict(results))

    def close(self, *, is_finished: bool) -> None:
        """End the run and wait until it is written; see `TrackingService.close`."""
        self._run.finish(exit_code=0 if is_finished else 1)


class _MlflowService:
    """A run of MLflow, configured by its environment variables, such as MLFLOW_TRACKING_URI and MLFLOW_EXPERIMENT_NAME.

    Args:
        run: the run to track.
        identifier: the identifier of the run to continue; "": a new one.
    """

    def __init__(self, run: TrackedRun, identifier: str) -> None:
        import mlflow
        from mlflow.entities import Param

        self._client = mlflow.MlflowClient()  # not the global run: a notebook may have one open
        if identifier:
            self._client.update_run(identifier, status="RUNNING")
        else:
            name = os.environ.get("MLFLOW_EXPERIMENT_NAME", _PROJECT)
            experiment = self._client.get_experiment_by_name(name)
            experiment_id = experiment.experiment_id if experiment else self._client.create_experiment(name)
            identifier = self._client.create_run(experiment_id, run_name=run.folder.name).info.run_id
            self._client.log_batch(identifier, params=[Param(key, str(value)) for key, value in run.settings.items()])
        self.identifier: str = identifier
        self.location = f"{mlflow.get_tracking_uri()}, run {identifier}"

    def log_scalars(self, scalars: Mapping[str, float], step: int) -> None:
        """Log scalars; see `Tracker.log_scalars`."""
        from mlflow.entities import Metric

        now_ms = int(time.time() * 1000)
        metrics = [Metric(name, value, now_ms, step) for name, value in scalars.items()]
        self._client.log_batch(self.identifier, metrics=metrics)

    def log_image(self, name: str, image: np.ndarray, step: int) -> None:
        """Log an image; see `Tracker.log_image`."""
        self._client.log_image(self.identifier, Image.fromarray(image), key=name, step=step)

    def flush(self) -> None:
        """Do nothing: every call writes."""

    def log_results(self, results: Mapping[str, float]) -> None:
        """Log the results as metrics; see `TrackingService.log_results`."""
        self.log_scalars(results, 0)

    def close(self, *, is_finished: bool) -> None:
        """End the run; see `TrackingService.close`."""
        self._client.set_terminated(self.identifier, status="FINISHED" if is_finished else "FAILED")


_SERVICES: dict[TrackerName, Callable[[TrackedRun, str], TrackingService]] = {
    TrackerName.WANDB: _WandbService,
    TrackerName.MLFLOW: _MlflowService,
}


class RunTrackers:
    """The trackers of one run: TensorBoard files in its folder, and services that stay open until the run ends.

    Training costs more than its curves: a service that fails later is left out with a warning.

    Args:
        services: the open services.
        has_tensorboard: whether trainings write TensorBoard files.
    """

    def __init__(
        self, services: Mapping[TrackerName, TrackingService] | None = None, *, has_tensorboard: bool = True
    ) -> None:
        self._services = dict(services or {})
        self._has_tensorboard = has_tensorboard
        self._prefix = ""

    def __enter__(self) -> "RunTrackers":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(is_finished=error is None)

    @contextmanager
    def training(self, folder: Path, *, fold: str = "", first_step: int = 0) -> Iterator[list[Tracker]]:
        """Return the trackers of one training, as a context.

        Args:
            folder: the folder of the TensorBoard files.
            fold: a prefix of the names in the services, such as `fold-2`; "": none.
            first_step: optimizer steps done before a resume.
        """
        self._prefix = f"{fold}/" if fold else ""
        services: list[Tracker] = [self] if self._services else []
        if not self._has_tensorboard:
            yield services
            return
        with closing(TensorBoardTracker(folder, first_step=first_step)) as tensorboard:
            yield [tensorboard, *services]

    def log_scalars(self, scalars: Mapping[str, float], step: int) -> None:
        """Log scalars; see `Tracker.log_scalars`."""
        named = {self._prefix + name: value for name, value in scalars.items()}
        self._call(lambda service: service.log_scalars(named, step))

    def log_image(self, name: str, image: np.ndarray, step: int) -> None:
        """Log an image; see `Tracker.log_image`."""
        self._call(lambda service: service.log_image(self._prefix + name, image, step))

    def flush(self) -> None:
        """Write everything that was logged."""
        self._call(lambda service: service.flush())

    def log_results(self, results: Mapping[str, float]) -> None:
        """Log the final results; see `TrackingService.log_results`."""
        self._call(lambda service: service.log_results(results))

    def close(self, *, is_finished: bool) -> None:
        """End the runs; see `TrackingService.close`."""
        self._call(lambda service: service.close(is_finished=is_finished))
        self._services.clear()

    def _call(self, act: Callable[[TrackingService], None]) -> None:
        for name, service in list(self._services.items()):
            try:
                act(service)
            except Exception as error:
                logger.warning("%s failed and gets nothing more of this run: %s", name, error)
                del self._services[name]


def require_installed(names: Sequence[TrackerName]) -> None:
    """Refuse a tracking service whose package is not installed.

    Args:
        names: the trackers.

    Raises:
        UserError: a package is not installed.
    """
    for name in names:
        if name in _SERVICES and importlib.util.find_spec(name.value) is None:
            raise UserError(f"tracker '{name}': {name} is not installed: pip install 'agebench[{name}]'")


def open_trackers(names: Sequence[TrackerName], run: TrackedRun) -> RunTrackers:
    """Open the trackers of a run.

    Args:
        names: the trackers.
        run: the run; its folder keeps the identifiers of the runs in the services, for a resume.

    Raises:
        UserError: a service is not installed, or cannot be reached.
    """
    require_installed(names)
    services: dict[TrackerName, TrackingService] = {}
    identifiers = read_json_table(run.folder / IDENTIFIERS) if run.is_resumed else {}
    try:
        for name in dict.fromkeys(name for name in names if name in _SERVICES):
            services[name] = _open_service(name, run, str(identifiers.get(name, "")))
            identifiers[name] = services[name].identifier
            logger.info("%s: %s", name, services[name].location)
    except BaseException:
        RunTrackers(services).close(is_finished=False)
        raise
    if services:
        write_json(run.folder / IDENTIFIERS, identifiers)
    return RunTrackers(services, has_tensorboard=TrackerName.TENSORBOARD in names)


def _open_service(name: TrackerName, run: TrackedRun, identifier: str) -> TrackingService:
    try:
        return _SERVICES[name](run, identifier)
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(f"tracker '{name}': {reason} {_REMEDIES[name]}") from error
