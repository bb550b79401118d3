"""Doing what a plan has left to do, by whatever executor: what is done stays, a failure stops none of the others."""

import signal
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from pathlib import Path
from typing import Protocol

from agebench.suites.matrix import Job, State, spent_seconds
from agebench.suites.worker import RunOutcome, RunRequest
from agebench.utils.progress import progress

OnFinish = Callable[[Job, State], None]

# Exit codes of a run that somebody stopped: nothing is wrong with it.
_STOPPED = (130, -signal.SIGINT, -signal.SIGTERM)


class Executor(Protocol):
    """Who does the work: so many attempts at once, each with so many cores."""

    slots: int
    threads: int

    def submit(self, work: RunRequest) -> "Future[RunOutcome]":
        """Begin an attempt."""


def run_jobs(
    jobs: Sequence[Job],
    executor: Executor,
    *,
    registry: Sequence[Path],
    tell: OnFinish,
    budget_s: float | None = None,
) -> dict[str, State]:
    """Do what is not done.

    Args:
        jobs: of a plan.
        executor: who does it.
        registry: extra folders of cards, as for `agebench run`.
        tell: called when a job has ended, from this thread.
        budget_s: no run is begun when the suite's runs have taken this long together; those at work go on to their end.

    Returns:
        Folder name -> state after the attempt; a run that the budget kept from beginning is not in it. "begun": it was
        stopped, or another process is at work on it.
    """
    found: dict[str, State] = {}
    waiting = list(reversed(jobs))
    work: dict[Future[RunOutcome], tuple[Job, float]] = {}
    spent = spent_seconds(jobs)
    with progress(total=len(jobs), label="suite", unit="run") as bar:
        while waiting or work:
            while waiting and len(work) < executor.slots:
                job = waiting.pop()
                if job.state() == "done":
                    found[job.folder.name] = "done"
                    tell(job, "done")
                    bar.update()
                    continue
                running = sum(time.monotonic() - since for _, since in work.values())
                if budget_s is not None and spent + running >= budget_s:
                    waiting.clear()
                    break
                work[executor.submit(job.attempt(executor.threads, registry))] = (job, time.monotonic())
            bar.note = f"at work: {', '.join(job.folder.name for job, _ in work.values())}"
            for future in wait(work, return_when=FIRST_COMPLETED).done:
                job, _ = work.pop(future)
                outcome = _outcome(future)
                spent += outcome.seconds
                found[job.folder.name] = _settle(job, outcome)
                tell(job, found[job.folder.name])
                bar.update()
    return found


def _outcome(future: "Future[RunOutcome]") -> RunOutcome:
    try:
        return future.result()
    except Exception as error:  # its host is lost for good, or cannot start it
        lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()]
        return RunOutcome(1, f"{type(error).__name__}: {lines[-1] if lines else 'no reason given'}", 0.0)


def _settle(job: Job, outcome: RunOutcome) -> State:
    """What became of the job; a failure's reason is kept beside its log."""
    said = outcome.log_tail.strip().splitlines()
    reason = said[-1] if said else "it said nothing"
    if outcome.code == 0 or outcome.code in _STOPPED or "another process is working on this run" in reason:
        job.settle(outcome.log_tail)
        return "begun" if outcome.code else "done"
    killed = f"killed by signal {-outcome.code}: {reason}"
    job.settle(outcome.log_tail, f"{reason} (exit code {outcome.code})" if outcome.code > 0 else killed)
    return "failed"
