"""Trackers get the curves, and none of them can stop a run; wandb and MLflow are tested offline where they are installed."""

import importlib.util
import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from agebench.errors import UserError
from agebench.training import trackers
from agebench.training.callbacks import ConsoleCallback, TrainState
from agebench.training.dataloader import FaceDataset
from agebench.training.trackers import RunTrackers, TrackedRun, open_trackers
from agebench.types import TrackerName

IMAGE = np.zeros((8, 12, 3), np.uint8)


class RecordingService:
    """A service that keeps what it gets.

    Args:
        run: the run to track.
        identifier: the run to continue.
    """

    def __init__(self, run: TrackedRun | None = None, identifier: str = "") -> None:
        self.identifier = identifier or "new"
        self.location = "in memory"
        self.scalars: list[tuple[str, float, int]] = []
        self.images: list[tuple[str, int]] = []
        self.results: dict[str, float] = {}
        self.ends: list[bool] = []

    def log_scalars(self, scalars: Mapping[str, float], step: int) -> None:
        self.scalars += [(name, value, step) for name, value in scalars.items()]

    def log_image(self, name: str, image: np.ndarray, step: int) -> None:
        self.images.append((name, step))

    def flush(self) -> None:
        pass

    def log_results(self, results: Mapping[str, float]) -> None:
        self.results |= results

    def close(self, *, is_finished: bool) -> None:
        self.ends.append(is_finished)


class BrokenService(RecordingService):
    def log_scalars(self, scalars: Mapping[str, float], step: int) -> None:
        raise ConnectionError("the server is gone")


def state(step: int) -> TrainState:
    return TrainState(epoch=1, step=step, total_steps=10, loss=0.5, lr=0.01, images_per_s=100.0)


def test_console_callback_logs_steps_and_epochs_to_tensorboard(tmp_path: Path) -> None:
    with RunTrackers().training(tmp_path) as opened, ConsoleCallback(opened, quiet=True) as callback:
        callback.on_step(state(5))
        callback.on_epoch_end({"epoch": 1, "loss": 0.5, "val_mae": 7.0, "train_mae": 6.0, "images_per_s": 100.0}, 2)
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    values = {tag: (event.step, event.value) for tag in events.Tags()["scalars"] for event in events.Scalars(tag)}
    assert values["train/loss"] == (5, 0.5)
    assert values["val/mae"] == (5, 7.0)
    assert values["train/mae"] == (5, 6.0)


def test_features_are_no_pictures(tmp_path: Path) -> None:
    features = np.random.default_rng(0).normal(size=(6, 2, 5)).astype(np.float32)
    data = FaceDataset(features, np.arange(6), np.arange(6, dtype=np.float32))
    with RunTrackers().training(tmp_path) as opened, ConsoleCallback(opened, quiet=True) as callback:
        callback.on_validation(data, np.arange(6, dtype=float))
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert events.Tags()["images"] == []


def test_run_trackers_prefix_the_names_of_each_fold(tmp_path: Path) -> None:
    service = RecordingService()
    with RunTrackers({TrackerName.WANDB: service}, has_tensorboard=False) as run:
        for fold in ("fold-1", "fold-2"):
            with run.training(tmp_path, fold=fold) as (tracker,):
                tracker.log_scalars({"val/mae": 5.0}, 3)
                tracker.log_image("val/predictions", IMAGE, 3)
        run.log_results({"test/few/mae": 4.0})
    assert service.scalars == [("fold-1/val/mae", 5.0, 3), ("fold-2/val/mae", 5.0, 3)]
    assert service.images == [("fold-1/val/predictions", 3), ("fold-2/val/predictions", 3)]
    assert service.results == {"test/few/mae": 4.0}
    assert service.ends == [True]
    assert not list(tmp_path.iterdir())


def test_run_trackers_end_a_failed_run_as_not_finished() -> None:
    service = RecordingService()
    with pytest.raises(KeyboardInterrupt), RunTrackers({TrackerName.WANDB: service}):
        raise KeyboardInterrupt
    assert service.ends == [False]


def test_run_trackers_go_on_without_a_service_that_fails(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    broken, working = BrokenService(), RecordingService()
    services = {TrackerName.WANDB: broken, TrackerName.MLFLOW: working}
    with (
        caplog.at_level(logging.WARNING),
        RunTrackers(services, has_tensorboard=False) as run,
        run.training(tmp_path) as (tracker,),
    ):
        tracker.log_scalars({"train/loss": 1.0}, 1)
        tracker.log_scalars({"train/loss": 0.5}, 2)
    assert working.scalars == [("train/loss", 1.0, 1), ("train/loss", 0.5, 2)]
    assert working.ends == [True]
    assert [record.getMessage() for record in caplog.records] == [
        "wandb failed and gets nothing more of this run: the server is gone"
    ]


def test_open_trackers_continues_the_runs_of_a_resumed_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(trackers._SERVICES, TrackerName.WANDB, RecordingService)
    monkeypatch.setattr(trackers, "require_installed", lambda names: None)

    def identifier(*, is_resumed: bool) -> str:
        opened = open_trackers([TrackerName.WANDB], TrackedRun(tmp_path, {}, is_resumed))
        return opened._services[TrackerName.WANDB].identifier

    assert identifier(is_resumed=False) == "new"
    (tmp_path / trackers.IDENTIFIERS).write_text('{"wandb": "abc123"}')
    assert identifier(is_resumed=True) == "abc123"
    assert identifier(is_resumed=False) == "new"


@pytest.mark.parametrize("name", [TrackerName.WANDB, TrackerName.MLFLOW])
def test_open_trackers_names_the_extra_of_a_missing_package(
    name: TrackerName, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda package: None)
    with pytest.raises(UserError, match=rf"pip install 'agebench\[{name}\]'"):
        open_trackers([name], TrackedRun(tmp_path, {}))


def test_open_trackers_reports_a_service_that_cannot_be_reached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(run: TrackedRun, identifier: str) -> RecordingService:
        raise ConnectionError("no route to host")

    monkeypatch.setitem(trackers._SERVICES, TrackerName.MLFLOW, refuse)
    monkeypatch.setattr(trackers, "require_installed", lambda names: None)
    with pytest.raises(UserError, match=r"tracker 'mlflow': no route to host .*MLFLOW_TRACKING_URI"):
        open_trackers([TrackerName.MLFLOW], TrackedRun(tmp_path, {}))


def test_wandb_writes_an_offline_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    with open_trackers([TrackerName.WANDB], TrackedRun(tmp_path, {"train.lr": 0.01, "data.train": "few"})) as run:
        with run.training(tmp_path / "tensorboard") as (*_, tracker):
            tracker.log_scalars({"train/loss": 0.5}, 5)
            tracker.log_image("val/predictions", IMAGE, 5)
        run.log_results({"test/few/mae": 4.25})
    wandb.teardown()  # its process writes the file until it ends, as it does at the end of Python
    (record,) = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    content = record.read_bytes()
    for text in (b"train.lr", b"train/loss", b"test/few/mae", b"4.25"):
        assert text in content


def test_mlflow_writes_a_local_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("mlflow.tracking._tracking_service.utils._tracking_uri", None)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    with open_trackers([TrackerName.MLFLOW], TrackedRun(tmp_path, {"train.lr": 0.01})) as run:
        with run.training(tmp_path / "tensorboard") as (*_, tracker):
            tracker.log_scalars({"train/loss": 0.5}, 5)
            tracker.log_image("val/predictions", IMAGE, 5)
        run.log_results({"test/few/mae": 4.25})
    client = mlflow.MlflowClient()
    (stored,) = client.search_runs([client.get_experiment_by_name("agebench").experiment_id])
    assert stored.data.params == {"train.lr": "0.01"}
    assert stored.data.metrics == {"train/loss": 0.5, "test/few/mae": 4.25}
    assert [metric.step for metric in client.get_metric_history(stored.info.run_id, "train/loss")] == [5]
    assert stored.info.status == "FINISHED"
