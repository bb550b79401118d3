"""Runs on this machine: each in a process of its own, so that one that dies takes nothing with it."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path

from agebench.errors import UserError
from agebench.files import write_text
from agebench.suites.plan import Job, State

Told = Callable[[Job, State], None]

# Exit codes of a run that somebody stopped: nothing is wrong with it.
_STOPPED = (130, -signal.SIGINT, -signal.SIGTERM)


def run_jobs(jobs: Sequence[Job], *, parallel: int, registry: Sequence[Path], tell: Told) -> dict[str, State]:
    """Do what is not done, `parallel` at a time; a failure stops none of the others.

    Args:
        jobs: of a plan.
        parallel: processes at once; each gets its share of the cores.
        registry: extra folders of cards, as for `agebench run`.
        tell: called when a job has ended, from this thread.

    Returns:
        Folder name -> state after the attempt. "begun": it was stopped, or another process is at work on it.

    Raises:
        KeyboardInterrupt: after the runs at work have been told to stop; they are resumable.
    """
    if parallel < 1:
        raise UserError(f"--jobs {parallel}: give 1 or more")
    found: dict[str, State] = {}
    threads = max(1, (os.cpu_count() or 1) // parallel)
    processes: set[subprocess.Popen[bytes]] = set()
    with tempfile.TemporaryDirectory() as settings, ThreadPoolExecutor(parallel) as pool:
        waiting: dict[Future[State], Job] = {}
        try:
            for job in jobs:
                work = pool.submit(_attempt, job, Path(settings), threads, registry, processes)
                waiting[work] = job
            while waiting:
                for work in wait(waiting, return_when=FIRST_COMPLETED).done:
                    job = waiting.pop(work)
                    found[job.folder.name] = work.result()
                    tell(job, work.result())
        except BaseException:
            # A run that is interrupted closes its checkpoint by itself; those that wait must not start.
            pool.shutdown(wait=False, cancel_futures=True)
            for process in list(processes):
                process.terminate()
            raise
    return found


def _attempt(
    job: Job, settings: Path, threads: int, registry: Sequence[Path], processes: "set[subprocess.Popen[bytes]]"
) -> State:
    if job.state() == "done":
        return "done"
    config = settings / f"{job.folder.name}.toml"
    write_text(config, job.config.to_toml())
    job.log.parent.mkdir(parents=True, exist_ok=True)
    words = [sys.executable, "-m", "agebench", "run", "--config", str(config), "--out", str(job.folder), "--resume"]
    for folder in registry:
        words += ["--registry", str(folder)]
    with job.log.open("wb") as log:
        process = subprocess.Popen(
            words, stdout=log, stderr=subprocess.STDOUT, env={**os.environ, "OMP_NUM_THREADS": str(threads)}
        )
        processes.add(process)
        try:
            code = process.wait()
        finally:
            processes.discard(process)
    job.failure.unlink(missing_ok=True)
    if code == 0:
        return "done"
    said = job.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    reason = said[-1] if said else "it said nothing"
    if code in _STOPPED or "another process is working on this run" in reason:
        return "begun"
    write_text(job.failure, f"{reason} (exit code {code})" if code >= 0 else f"killed by signal {-code}: {reason}")
    return "failed"
