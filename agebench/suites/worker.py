"""Execute a single run in a subprocess that is terminated when its parent exits."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from agebench.errors import RunLockedError
from agebench.types import ExitReason
from agebench.utils.io import write_text

# The end of a run's output that is returned from another host, bytes.
LOG_TAIL_BYTES = 64 * 1024
# Exit codes of a run that a user stopped: 128 + SIGINT, and the signals themselves.
_STOPPED = (130, -signal.SIGINT, -signal.SIGTERM)


@dataclass(frozen=True)
class RunRequest:
    """Everything that a host needs to execute a run; plain values, so that it can be sent to another host.

    Attributes:
        name: the run's name.
        config: the content of its config.toml.
        out: its folder, or the URL where it is kept.
        registry: extra folders of cards, at the same path on every host.
        threads: CPU threads of the run; results are bit-identical only for the same number.
        log: a file for the run's output; "": the output is returned with the outcome only.
        trackers: where the run's curves go; empty: the default.
    """

    name: str
    config: str
    out: str
    registry: tuple[str, ...]
    threads: int
    log: str
    trackers: tuple[str, ...] = ()


@dataclass(frozen=True)
class RunOutcome:
    """The outcome of one attempt.

    Attributes:
        code: the exit code; negative: the signal that ended the process.
        log_tail: the end of the run's output.
        seconds: how long the attempt took.
    """

    code: int
    log_tail: str
    seconds: float

    @property
    def exit_reason(self) -> ExitReason:
        """Why the process ended."""
        if self.code == 0:
            return ExitReason.FINISHED
        if self.code == RunLockedError.exit_code:
            return ExitReason.LOCKED
        return ExitReason.STOPPED if self.code in _STOPPED else ExitReason.FAILED


def execute_run(
    request: RunRequest, on_start: Callable[["subprocess.Popen[bytes]"], None] = lambda process: None
) -> RunOutcome:
    """Execute a run, or resume it.

    The subprocess reads from a pipe of this process and ends when the pipe breaks. Otherwise a run whose worker was killed
    would continue and keep the next attempt out of its folder.

    Args:
        request: the run.
        on_start: called with the started process.
    """
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        config, log = Path(scratch) / f"{request.name}.toml", Path(request.log or Path(scratch) / "log.txt")
        write_text(config, request.config)
        log.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "agebench", "run", "--config", str(config), "--out", request.out, "--resume"]
        for folder in request.registry:
            command += ["--registry", folder]
        for tracker in request.trackers:
            command += ["--tracker", tracker]
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*command, "--end-with-stdin"],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, "OMP_NUM_THREADS": str(request.threads)},
            )
            on_start(process)
            assert process.stdin is not None
            with process.stdin:
                code = process.wait()
        with log.open("rb") as output:
            output.seek(max(0, log.stat().st_size - LOG_TAIL_BYTES))
            log_tail = output.read().decode("utf-8", errors="replace")
    return RunOutcome(code, log_tail, time.monotonic() - start)
