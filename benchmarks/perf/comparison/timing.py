"""Runners of the same work, each in a process of its own, that are timed in turn."""

import importlib
import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from tempfile import TemporaryDirectory
from typing import Protocol


@dataclass(frozen=True)
class Done:
    """The share of the work that a runner did, and its remark.

    Attributes:
        share: repetitions of the whole work, such as 0.01; the time is divided by it.
        remark: words of the table beside the time, such as how much was found.
    """

    share: float = 1.0
    remark: str = ""


@dataclass(frozen=True)
class Peer:
    """A way to do the work.

    Attributes:
        name: its name in the table.
        run: does the work.
        packages: the packages that it needs: distribution -> module.
    """

    name: str
    run: Callable[[], Done]
    packages: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Work:
    """A piece of work.

    Attributes:
        title: the work and the size of the data, in words.
        peers: agebench first, then the others.
        note: differences between them, in words.
        folder: the files that the peers read, which are removed with the work.
    """

    title: str
    peers: Sequence[Peer]
    note: str = ""
    folder: TemporaryDirectory[str] | None = None


@dataclass
class Timing:
    """The processor seconds of one runner.

    Attributes:
        name: of the runner.
        seconds: one entry per repetition, of the whole work.
        remark: of the last repetition.
        error: why there is no time; empty if there is one.
    """

    name: str
    seconds: list[float] = field(default_factory=list)
    remark: str = ""
    error: str = ""

    @property
    def median(self) -> float:
        """The median."""
        return statistics.median(self.seconds)


class Runner(Protocol):
    """Does the work once; the time does not hold what came before."""

    @property
    def name(self) -> str:
        """Its name in the table."""

    def __call__(self) -> tuple[float, Done]:
        """Return the processor seconds and what was done; any exception means that it cannot."""


@dataclass(frozen=True)
class Here:
    """A runner in this process.

    Attributes:
        peer: whose work it does.
    """

    peer: Peer

    @property
    def name(self) -> str:
        """The peer's name."""
        return self.peer.name

    def __call__(self) -> tuple[float, Done]:
        """Do the work."""
        for distribution, module in self.peer.packages.items():
            try:
                importlib.import_module(module)
            except Exception as error:  # a peer's import may fail in any way
                raise ImportError(f"{distribution} cannot be imported ({type(error).__name__})") from error
        start = _processor_seconds()
        done = self.peer.run()
        return _processor_seconds() - start, done


class Elsewhere:
    """A runner in a process of its own: no runner's settings of allocator and threads reach another.

    Args:
        name: of the peer.
        builder: returns the work; a function of a module.
        quick: its argument.
        number: the peer's place in the work.
    """

    def __init__(self, name: str, builder: Callable[[bool], Work], quick: bool, number: int) -> None:
        self.name = name
        self._pipe, theirs = multiprocessing.Pipe()
        context = multiprocessing.get_context("spawn")
        self._process = context.Process(target=_serve, args=(theirs, builder, quick, number), daemon=False)
        self._process.start()
        theirs.close()

    def __call__(self) -> tuple[float, Done]:
        """Do the work."""
        self._pipe.send(True)
        answer = self._pipe.recv()
        if isinstance(answer, Exception):
            raise answer
        return answer  # type: ignore[no-any-return]

    def close(self) -> None:
        """End the process."""
        self._pipe.close()
        self._process.join()


def _serve(pipe: Connection, builder: Callable[[bool], Work], quick: bool, number: int) -> None:
    # A spawned process would spawn its own workers, too, where a peer's would be forked, as in a program of its own.
    multiprocessing.set_start_method(None, force=True)
    work = builder(quick)  # held: its folder goes with it
    runner = Here(work.peers[number])
    while True:
        try:
            pipe.recv()
        except EOFError:
            return
        try:
            pipe.send(runner())
        except Exception as error:  # the table has it
            pipe.send(type(error)(str(error)) if type(error) in (ImportError, TypeError) else RuntimeError(repr(error)))


def _processor_seconds() -> float:
    """Processor time of this process and of the processes that it started and that have ended."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def measure(runners: Sequence[Runner], repeats: int) -> list[Timing]:
    """Time runners in turn; the first call of each, which loads and compiles, does not count.

    Args:
        runners: the first one's exceptions are raised, those of others end their row.
        repeats: how often each does the work.
    """
    timings = [Timing(runner.name) for runner in runners]
    for repetition in range(repeats + 1):
        for runner, timing in zip(runners, timings, strict=True):
            if timing.error:
                continue
            try:
                seconds, done = runner()
            except Exception as error:
                if timing is timings[0]:
                    raise
                timing.error = f"skipped: {str(error)[:100] or type(error).__name__}"
                timing.seconds.clear()
                continue
            timing.remark = done.remark
            if repetition:
                timing.seconds.append(seconds / done.share)
    return timings
