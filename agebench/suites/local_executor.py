"""Execute runs in processes of this machine, several at once."""

import subprocess
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

from agebench.errors import UserError
from agebench.suites.worker import RunOutcome, RunRequest, execute_run
from agebench.utils.parallel import available_cores


class LocalExecutor:
    """Processes of this machine.

    Args:
        jobs: runs at once; None: one.
        cpus: CPU threads of each run; None: the machine's cores, shared by `jobs`.

    Raises:
        UserError: `jobs` or `cpus` is less than 1.
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
        # A run that is interrupted closes its checkpoint itself; queued runs must not start.
        self._pool.shutdown(wait=False, cancel_futures=True)
        for process in list(self._processes):
            process.terminate()
        self._pool.shutdown()

    def submit(self, request: RunRequest) -> "Future[RunOutcome]":
        """Start a run, or queue it until a slot is free.

        Args:
            request: the run.
        """
        return self._pool.submit(self._execute, request)

    def _execute(self, request: RunRequest) -> RunOutcome:
        started: list[subprocess.Popen[bytes]] = []

        def on_start(process: "subprocess.Popen[bytes]") -> None:
            started.append(process)
            self._processes.add(process)

        try:
            return execute_run(request, on_start)
        finally:
            self._processes.difference_update(started)
