"""One attempt at one run, on whatever host: a process of its own, which ends with the one that started it."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from agebench.utils.io import write_text

# As much of what a run printed as is sent back from another host.
LOG_TAIL_LINES = 64 * 1024


@dataclass(frozen=True)
class RunRequest:
    """What a host must know to do a run; plain values, so that it travels.

    Attributes:
        name: of the run.
        config: its config.toml.
        out: its folder, or the URL where it is kept.
        registry: extra folders of cards, at the same place on every host.
        threads: cores that it computes with; figures are the same to the last bit only for the same number.
        log: a file for what it prints; "": that comes back with the outcome only.
    """

    name: str
    config: str
    out: str
    registry: tuple[str, ...]
    threads: int
    log: str


@dataclass(frozen=True)
class RunOutcome:
    """How it ended.

    Attributes:
        code: the exit code; negative: the signal that ended it.
        said: the end of what it printed.
        seconds: how long it took.
    """

    code: int
    log_tail: str
    seconds: float


def execute_run(
    work: RunRequest, begun: Callable[["subprocess.Popen[bytes]"], None] = lambda process: None
) -> RunOutcome:
    """Do it, or go on with it; `begun` is told the process.

    The process holds the other end of a pipe to this one and ends when it breaks: a host whose worker was killed is not left
    with a run that nobody asked for, and which would keep the next attempt out of its folder.
    """
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        config, log = Path(scratch) / f"{work.name}.toml", Path(work.log or Path(scratch) / "log.txt")
        write_text(config, work.config)
        log.parent.mkdir(parents=True, exist_ok=True)
        words = [sys.executable, "-m", "agebench", "run", "--config", str(config), "--out", work.out, "--resume"]
        for folder in work.registry:
            words += ["--registry", folder]
        with log.open("wb") as printed:
            process = subprocess.Popen(
                [*words, "--end-with-stdin"],
                stdin=subprocess.PIPE,
                stdout=printed,
                stderr=subprocess.STDOUT,
                env={**os.environ, "OMP_NUM_THREADS": str(work.threads)},
            )
            begun(process)
            assert process.stdin is not None
            with process.stdin:
                code = process.wait()
        with log.open("rb") as printed:
            printed.seek(max(0, log.stat().st_size - LOG_TAIL_LINES))
            said = printed.read().decode("utf-8", errors="replace")
    return RunOutcome(code, said, time.monotonic() - started)
