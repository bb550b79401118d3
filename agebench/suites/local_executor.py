"""Runs on this machine, some at once."""

import subprocess
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

from agebench.errors import UserError
from agebench.suites.worker import RunOutcome, RunRequest, execute_run
from agebench.utils.parallel import available_cores


class LocalExecutor:
    """Processes of this machine.

    Args:
        jobs: runs at once.
        cpus: cores for each; None: the machine's, shared out.

    Raises:
        UserError: fewer than one of either.
    """

    def __init__(self, jobs: int | None = None, cpus: int | None = None) -> None:
        for option, value in (("--jobs", jobs), ("--cpus", cpus)):
            if value is not None and value < 1:
                raise UserError(f"{option} {value}: give 1 or more")
        self.slots = jobs or 1
        self.threads = cpus or max(1, available_cores() // self.slots)
        self._pool = ThreadPoolExecutor(self.slots)
        self._processes: set[subprocess.Popen[bytes]] = set()

    def __enter__(self) -> "LocalExecutor":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # A run that is interrupted closes its checkpoint by itself; those that wait must not start.
        self._pool.shutdown(wait=False, cancel_futures=True)
        for process in list(self._processes):
            process.terminate()
        self._pool.shutdown()

    def submit(self, work: RunRequest) -> "Future[RunOutcome]":
        """Start it, or have it wait for a free place."""
        return self._pool.submit(self._attempt, work)

    def _attempt(self, work: RunRequest) -> RunOutcome:
        mine: list[subprocess.Popen[bytes]] = []

        def begun(process: "subprocess.Popen[bytes]") -> None:
            mine.append(process)
            self._processes.add(process)

        try:
            return execute_run(work, begun)
        finally:
            self._processes.difference_update(mine)
