"""Execute the pending runs of a suite. Finished runs stay, and a failed run stops none of the others."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from pathlib import Path
from typing import Protocol

from agebench.suites.matrix import Job, spent_seconds
from agebench.suites.worker import RunOutcome, RunRequest
from agebench.types import ExitReason, RunState, TrackerName
from agebench.utils.progress import progress

OnFinish = Callable[[Job, RunState], None]


class Executor(Protocol):
    """Executes runs: `slots` at once, each with `threads` CPU threads."""

    slots: int
    threads: int

    def submit(self, request: RunRequest) -> "Future[RunOutcome]":
        """Start a run, or queue it.

        Args:
            request: the run.
        """


def run_jobs(
    jobs: Sequence[Job],
    executor: Executor,
    *,
    registry: Sequence[Path],
    trackers: Sequence[TrackerName] = (TrackerName.TENSORBOARD,),
    on_finish: OnFinish,
    budget_s: float | None = None,
) -> dict[str, RunState]:
    """Execute the runs that are not done.

    Args:
        jobs: the runs of a suite.
        executor: executes them.
        registry: extra folders of cards, as for `agebench run`.
        trackers: where the curves of the runs go.
        on_finish: called in this thread with each run and its state when it has ended.
        budget_s: no run is started after the suite's runs have taken this long together; started runs are completed.

    Returns:
        Folder name -> state after the attempt, without the runs that the budget prevented. `incomplete`: the run was
        stopped, or another process works on it.
    """
    states: dict[str, RunState] = {}
    pending = list(reversed(jobs))
    running: dict[Future[RunOutcome], tuple[Job, float]] = {}
    spent_s = spent_seconds(jobs)

    def finish(job: Job, state: RunState) -> None:
        states[job.folder.name] = state
        on_finish(job, state)
        bar.update()

    with progress(total=len(jobs), label="suite", unit="run") as bar:
        while pending or running:
            while pending and len(running) < executor.slots:
                job = pending[-1]
                if job.state() is RunState.DONE:
                    finish(pending.pop(), RunState.DONE)
                    continue
                running_s = sum(time.monotonic() - start for _, start in running.values())
                if budget_s is not None and spent_s + running_s >= budget_s:
                    # Runs at work may have waited in a queue: only their own time counts once they have ended.
                    if not running:
                        pending.clear()
                    break
                pending.pop()
                running[executor.submit(job.request(executor.threads, registry, trackers))] = (job, time.monotonic())
            bar.note = f"at work: {', '.join(job.folder.name for job, _ in running.values())}"
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                job, _ = running.pop(future)
                outcome = _outcome(future)
                spent_s += outcome.seconds
                finish(job, _record_outcome(job, outcome))
    return states


def _outcome(future: "Future[RunOutcome]") -> RunOutcome:
    try:
        return future.result()
    except Exception as error:  # the host was lost for good, or cannot start the run
        lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()]
        return RunOutcome(1, f"{type(error).__name__}: {lines[-1] if lines else 'no reason given'}", 0.0)


def _record_outcome(job: Job, outcome: RunOutcome) -> RunState:
    """Return the job's state after an attempt; write the reason of a failure beside its log."""
    if outcome.exit_reason is not ExitReason.FAILED:
        job.record_attempt(outcome.log_tail, seconds=outcome.seconds)
        return RunState.DONE if outcome.exit_reason is ExitReason.FINISHED else RunState.INCOMPLETE
    lines = outcome.log_tail.strip().splitlines()
    reason = lines[-1] if lines else "no output"
    is_killed = outcome.code < 0
    reason = f"killed by signal {-outcome.code}: {reason}" if is_killed else f"{reason} (exit code {outcome.code})"
    job.record_attempt(outcome.log_tail, reason, outcome.seconds)
    return RunState.FAILED
