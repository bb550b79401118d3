"""Execute runs as jobs of a SLURM cluster, through submitit."""

import contextlib
import importlib.util
import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any

from agebench.errors import UserError
from agebench.suites.matrix import LOGS
from agebench.suites.worker import RunOutcome, RunRequest, execute_run

DEFAULT_CPUS = 4
DEFAULT_JOBS = 100  # submitted at once; the cluster decides how many of them run
_DEFAULT_MINUTES = 24 * 60


class ResumableRun:
    """A run as a job: one that is preempted or reaches its time limit is queued again and resumes from its last epoch."""

    def __call__(self, request: RunRequest) -> RunOutcome:
        """Execute the run on the host of the job.

        Args:
            request: the run.
        """
        return execute_run(request)

    def checkpoint(self, request: RunRequest) -> Any:
        """Return what submitit queues again.

        Args:
            request: the run.
        """
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, request)


class SlurmExecutor:
    """Jobs of a SLURM cluster, each with its CPU cores and GPUs.

    Args:
        runs: the folder of all runs, on a disk that all hosts share, or a URL. Scripts and logs of the jobs go to
            `.logs/slurm` in the folder; with a URL, in the current folder.
        jobs: the largest number of jobs in the queue at once; None: 100.
        cpus: CPU cores of each run; None: 4.
        gpus: GPUs of each run.
        options: further options of sbatch, such as partition, account and time (minutes; default: a day).
        cluster: `slurm`; `local` executes the jobs on this machine, for tests.

    Raises:
        UserError: submitit is not installed, this machine submits no jobs, or an option is wrong.
    """

    def __init__(
        self,
        runs: Path | str,
        jobs: int | None = None,
        cpus: int | None = None,
        gpus: float = 0,
        *,
        options: Mapping[str, str] | None = None,
        cluster: str = "slurm",
    ) -> None:
        for option, value in (("--jobs", jobs), ("--cpus", cpus)):
            if value is not None and value < 1:
                raise UserError(f"{option} {value}: give 1 or more")
        if gpus != int(gpus):
            raise UserError(f"--gpus {gpus:g}: SLURM gives whole GPUs to a run")
        if importlib.util.find_spec("submitit") is None:
            raise UserError("--executor slurm: submitit is not installed: pip install 'agebench[slurm]'")
        if cluster == "slurm" and shutil.which("sbatch") is None:
            raise UserError(
                "--executor slurm: there is no `sbatch` here; start the suite on a login node of the cluster"
            )
        import submitit

        home = runs if isinstance(runs, Path) else Path()
        self.slots = jobs or DEFAULT_JOBS
        self.threads = cpus or DEFAULT_CPUS
        self._executor = submitit.AutoExecutor(home.absolute() / LOGS / "slurm", cluster=cluster)
        self._executor.update_parameters(
            name="agebench",
            cpus_per_task=self.threads,
            timeout_min=_DEFAULT_MINUTES,
            **({"gpus_per_node": int(gpus)} if gpus else {}),
        )
        self._update(options or {})
        self._waiting = ThreadPoolExecutor(self.slots)
        self._jobs: list[Any] = []

    def __enter__(self) -> "SlurmExecutor":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for job in self._jobs:
            with contextlib.suppress(Exception):  # the job has ended
                if not job.done():
                    job.cancel()
        self._waiting.shutdown(cancel_futures=True)

    def submit(self, request: RunRequest) -> "Future[RunOutcome]":
        """Submit a run to the queue of the cluster.

        Args:
            request: the run.
        """
        job = self._executor.submit(ResumableRun(), request)
        self._jobs.append(job)
        result: Callable[[], RunOutcome] = job.result
        return self._waiting.submit(result)

    def _update(self, options: Mapping[str, str]) -> None:
        typed = {name: int(value) if value.isdecimal() else value for name, value in options.items()}
        try:
            self._executor.update_parameters(**{f"slurm_{name}": value for name, value in typed.items()})
        except (NameError, TypeError, ValueError) as error:
            raise UserError(f"--slurm: {str(error).strip().splitlines()[0]}") from error


def parse_options(texts: list[str]) -> dict[str, str]:
    """Parse options of sbatch such as `partition=gpu`.

    Args:
        texts: the options; dashes in names may be underscores.

    Raises:
        UserError: an option has another form.
    """
    options = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name.strip() and equals and value.strip()):
            raise UserError(f"--slurm {text}: write NAME=VALUE, e.g. --slurm partition=gpu")
        options[name.strip().lstrip("-").replace("-", "_")] = value.strip()
    return options
