"""Execute a run or a test in its folder unless it is finished there."""

import logging
import os
import shlex
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from agebench.config.evaluate import ExternalConfig, PublishedConfig
from agebench.config.run import RunConfig
from agebench.errors import DiskFull, UserError
from agebench.metrics.schema import MetricsFile
from agebench.registry.catalog import Catalog
from agebench.runs.datasets import AnyConfig
from agebench.runs.gates import renew_gates
from agebench.runs.provenance import InputTracker
from agebench.runs.remote_dir import run_folder
from agebench.runs.run_dir import RunDir
from agebench.types import TrackerName

logger = logging.getLogger(__name__)
# Returns the decision of the first of several processes.
Broadcast = Callable[[Callable[[], bool]], bool]


@dataclass(frozen=True)
class FinishedRun:
    """A finished run or test.

    Attributes:
        path: its folder; of a run at a URL, the copy on this machine, which the next call with that URL removes.
        metrics: content of metrics.json.
        location: its folder or URL, as it was given.
    """

    path: Path
    metrics: MetricsFile
    location: str

    @property
    def report(self) -> str:
        """Path or URL of report.md."""
        return f"{self.location}/report.md"

    @classmethod
    def read(cls, folder: RunDir) -> "FinishedRun":
        """Read the result in a folder.

        Args:
            folder: the folder.
        """
        return cls(folder.path, folder.metrics_file(), folder.location)


class RunInterrupted(KeyboardInterrupt):
    """A run was interrupted; the message states how to continue it."""


@dataclass(frozen=True)
class Execution:
    """Options of the execution of a run.

    Attributes:
        resume: whether to continue a run that was interrupted.
        quiet: whether progress of training is hidden.
        resume_option: what the caller is to add in order to resume, for messages.
        trackers: where the curves go. They decide nothing about the result: they are no settings of the run.
        registry: further folders of cards, for the command that continues the run.
    """

    resume: bool = False
    quiet: bool = False
    resume_option: str = "resume=True"
    trackers: tuple[TrackerName, ...] = (TrackerName.TENSORBOARD,)
    registry: tuple[Path, ...] = ()


def execute_run(config: RunConfig, catalog: Catalog, out: Path | str, execution: Execution) -> FinishedRun:
    """Execute a run in this process, unless it is finished.

    Args:
        config: the run's settings.
        catalog: the cards of the datasets.
        out: the run's folder or URL.
        execution: how the run is executed.

    Raises:
        UserError: the folder holds another run, or the beginning of this one that is not to be resumed; or the data of the
            finished run have changed.
        AgebenchError: a step of the run failed.
        RunInterrupted: the run was interrupted.
    """
    return _execute(config, catalog, out, execution, lambda decide: decide())


def execute_run_in_all_processes(
    config: RunConfig, catalog: Catalog, out: Path | str, execution: Execution
) -> FinishedRun | None:
    """Execute a run in all processes that `torchrun` has started; see `execute_run`.

    Args:
        config: the run's settings.
        catalog: the cards of the datasets.
        out: the run's folder or URL.
        execution: how the run is executed.

    Returns:
        The result; None in a process that assists the first one.
    """
    if not is_distributed():
        return execute_run(config, catalog, out, execution)
    from agebench.training import distributed

    with distributed.process_group():
        broadcast = distributed.broadcast_from_main
        if distributed.get_rank() == 0:
            logger.info("%d processes share every batch", distributed.get_world_size())
            return _execute(config, catalog, out, execution, broadcast)
        if broadcast(lambda: True):
            from agebench.runs.run import run

            with tempfile.TemporaryDirectory() as scratch:  # the first process writes the results
                run(config, catalog, RunDir(Path(scratch) / config.name()), quiet=True, trackers=())
    return None


def is_distributed() -> bool:
    """Return whether `torchrun` has started several processes."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def execute_test(config: ExternalConfig | PublishedConfig, catalog: Catalog, folder: RunDir) -> FinishedRun:
    """Test a model in a folder, unless the test is finished.

    Args:
        config: the test's settings.
        catalog: the cards of the datasets.
        folder: the test's folder.

    Raises:
        UserError: the folder holds something else, a dataset or the model's file is missing, or the data of the finished test have
            changed.
        AgebenchError: the model failed.
    """
    renew_gates(folder, config)
    if _is_finished(folder, config, catalog):
        return FinishedRun.read(folder)
    with folder.locked():
        # Checked again: another process may have finished the test while this one was starting.
        if folder.finished(config):
            pass
        elif isinstance(config, PublishedConfig):
            from agebench.runs.published import run_published  # imports torch

            run_published(config, catalog, folder)
        else:
            from agebench.runs.external import run_external

            run_external(config, catalog, folder)
    return FinishedRun.read(folder)


def _is_finished(folder: RunDir, config: AnyConfig, catalog: Catalog) -> bool:
    """Return whether a folder holds this run, finished, and log that it is not repeated.

    Args:
        folder: the run's folder.
        config: the run's settings.
        catalog: the cards of the datasets.

    Raises:
        UserError: the run's data or weights have changed since it was made, or the folder holds something else.
    """
    if not folder.finished(config):
        return False
    unverified = InputTracker(catalog).refuse_changed(folder, config)
    note = f" Its data cannot be verified: {unverified}" if unverified else ""
    logger.info("%s contains this run, finished; nothing is repeated.%s", folder.location, note)
    return True


def _execute(
    config: RunConfig, catalog: Catalog, out: Path | str, execution: Execution, broadcast: Broadcast
) -> FinishedRun:
    with run_folder(out) as folder:
        renew_gates(folder, config)
        if _is_finished(folder, config, catalog):
            broadcast(lambda: False)
            return FinishedRun.read(folder)
        if folder.started() and not execution.resume and not folder.continues():
            raise UserError(
                f"{out} holds the beginning of this run; add {execution.resume_option} to continue it, or delete the folder"
            )
        try:
            with folder.locked():
                # Checked again: another process may have finished the run while this one was starting.
                if broadcast(lambda: not folder.finished(config)):
                    from agebench.runs.run import run  # imports torch: now that the settings are known to be valid

                    run(config, catalog, folder, quiet=execution.quiet, trackers=execution.trackers)
        except KeyboardInterrupt:
            raise RunInterrupted(_interruption(folder, out, execution)) from None
        except DiskFull as error:
            # The message ends in "the same command continues".
            if folder.started() and not folder.let_continue():
                raise DiskFull(f"{error} Add {execution.resume_option} to it.") from error
            raise
        return FinishedRun.read(folder)


def _interruption(folder: RunDir, out: Path | str, execution: Execution) -> str:
    """Return how to continue after Ctrl-C; names only files that exist."""
    config = folder.path / "config.toml"
    if not config.exists() or not folder.started():
        return "interrupted before an epoch was done; the same command begins again"
    command = ["agebench", "run", "--config", str(config), "--out", str(out), "--resume"]
    for cards in execution.registry:
        command += ["--registry", str(cards)]
    if execution.trackers != Execution().trackers:
        for tracker in execution.trackers:
            command += ["--tracker", tracker]
    return f"interrupted; to continue:\n  {shlex.join(command)}"
