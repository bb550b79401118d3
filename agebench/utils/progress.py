"""Progress of long work: a bar on a terminal after two seconds, elsewhere a line every thirty seconds.

Running work is on one stack, and only its innermost entry is displayed. `agebench.cli` adds each command at the bottom of the
stack, so that every command displays progress, even in steps without their own bar.
"""

import contextlib
import logging
import operator
import os
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any, Generic, TextIO, TypeVar, cast, overload

Item = TypeVar("Item")

SHOWN_AFTER_S = 2.0  # delay of a bar on a terminal
REFRESHED_S = 0.5  # interval of a bar on a terminal
LINE_EVERY_S = 30.0  # interval of lines if standard error is not a terminal

_stack: "list[Progress[Any]]" = []
_lock = threading.RLock()  # protects the stack and the bars


class Progress(Generic[Item]):
    """Work that is counted or timed.

    Iterate over it, or use it as a context manager and call `update`.

    A thread displays it, so that one long step is as visible as many short ones.

    Args:
        items: the items to iterate over; None if `update` counts.
        total: expected number of items; None for the length of `items`, or unknown.
        label: description of the work.
        unit: unit of the count; empty if nothing is counted.
        initial: number of items that were done before.
    """

    def __init__(
        self,
        items: Iterable[Item] | None = None,
        *,
        total: int | None = None,
        label: str = "",
        unit: str = "it",
        initial: int = 0,
    ) -> None:
        if total is None and items is not None:
            total = operator.length_hint(items) or None
        self.total = total
        self.count = initial
        self.note = ""
        self._items = items
        self._label = printable(label)
        self._unit = unit
        self._initial = initial
        self._start = time.monotonic()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._bar: Any = None

    def update(self, count: int = 1) -> None:
        """Add `count` to the number of finished items."""
        self.count += count

    def line(self) -> str:
        """Return the state as one line: `utk: preparing faces: 4,352 of 23,707 img, 1 min 05 s`."""
        count = ""
        if self._unit and (self.count or self.total):
            total = f" of {self.total:,}" if self.total else ""
            count = f"{self.count:,}{total} {self._unit}"
        return ": ".join(filter(None, [self._label, ", ".join(filter(None, [count, self.note, self._elapsed()]))]))

    def __iter__(self) -> Iterator[Item]:
        assert self._items is not None
        with self:
            for item in self._items:
                yield item
                self.count += 1

    def __enter__(self) -> "Progress[Item]":
        self._start = time.monotonic()
        with _lock:
            _stack.append(self)
        if not _is_silent():
            self._thread = threading.Thread(target=self._show, daemon=True, name="agebench-progress")
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the work and remove its bar."""
        self._ended.set()
        with _lock:
            self._clear()
            with contextlib.suppress(ValueError):  # already closed
                _stack.remove(self)

    def _elapsed(self) -> str:
        minutes, seconds = divmod(round(time.monotonic() - self._start), 60)
        hours, minutes = divmod(minutes, 60)
        return (
            f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {seconds:02d} s" if minutes else f"{seconds} s"
        )

    def _show(self) -> None:
        """Display the progress until the work ends; the function of the thread."""
        stream = _raw(sys.stderr)
        terminal = _is_terminal(stream)
        pause = SHOWN_AFTER_S if terminal else LINE_EVERY_S
        while not self._ended.wait(pause):
            with _lock:
                if self._ended.is_set():
                    return
                try:
                    if _stack[-1:] != [self]:
                        self._clear()
                    elif terminal:
                        self._draw(stream)
                    else:
                        stream.write(f"{self.line()}\n")
                        stream.flush()
                except (OSError, ValueError):  # the terminal was closed
                    return
            pause = REFRESHED_S if terminal else LINE_EVERY_S

    def _draw(self, stream: TextIO) -> None:
        from tqdm import tqdm

        if self._bar is None:
            shape: dict[str, Any] = {} if self._unit else {"bar_format": "{desc}: {elapsed}"}
            shape |= {"dynamic_ncols": True} if _has_size(stream) else {"ncols": 80, "nrows": 24}
            self._bar = tqdm(
                total=self.total,
                desc=self._label,
                unit=self._unit,
                unit_scale=self._unit == "B",
                initial=self._initial,
                smoothing=0,  # mean rate, because counts arrive in chunks
                leave=False,
                delay=1e-9,  # not drawn before its start time is set
                file=stream,
                **shape,
            )
            self._bar.start_t -= time.monotonic() - self._start
        self._bar.total, self._bar.n = self.total, self.count
        self._bar.set_postfix_str(self.note, refresh=False)
        self._bar.refresh()

    def _clear(self) -> None:
        if self._bar is not None:
            bar, self._bar = self._bar, None
            with contextlib.suppress(OSError, ValueError):
                bar.close()


@overload
def progress(
    items: Iterable[Item], *, total: int | None = ..., label: str = ..., unit: str = ..., initial: int = ...
) -> Progress[Item]: ...
@overload
def progress(
    items: None = ..., *, total: int | None = ..., label: str = ..., unit: str = ..., initial: int = ...
) -> Progress[Any]: ...
def progress(
    items: Iterable[Any] | None = None,
    *,
    total: int | None = None,
    label: str = "",
    unit: str = "it",
    initial: int = 0,
) -> Progress[Any]:
    """Create the progress of a loop, or of work that calls `update`.

    Args:
        items: the items to iterate over; None if `update` counts.
        total: expected number of items; None for the length of `items`, or unknown.
        label: description of the work.
        unit: unit of the count.
        initial: number of items that were done before.
    """
    return Progress(items, total=total, label=label, unit=unit, initial=initial)


def step(label: str) -> Progress[Any]:
    """Create the progress of an uncounted step, a context manager.

    It displays the label and the elapsed time.
    """
    return Progress(label=label, unit="")


class _ConsoleHandler(logging.Handler):
    """Writes log records to standard error, above a displayed bar: warnings with the program's name, notes as they are."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line.

        Args:
            record: the record; without a standard error it is dropped.
        """
        prefix = "agebench: " if record.levelno >= logging.WARNING else ""
        with _cleared(), contextlib.suppress(OSError, ValueError):  # the terminal was closed
            if sys.stderr is not None:
                sys.stderr.write(f"{prefix}{record.getMessage()}\n")
                sys.stderr.flush()


@contextlib.contextmanager
def console_log() -> Iterator[None]:
    """Write the package's log to standard error while the block runs, notes (INFO) included: for programs, not libraries."""
    logger, handler = logging.getLogger("agebench"), _ConsoleHandler()
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


@contextlib.contextmanager
def _cleared() -> Iterator[None]:
    """Remove the bar while the block prints; it reappears afterwards."""
    with _lock:
        for work in _stack:
            work._clear()
        yield


@contextlib.contextmanager
def above_progress() -> Iterator[None]:
    """Remove the bar before each output of the block on a terminal."""
    streams = sys.stdout, sys.stderr
    if _is_terminal(sys.stderr):
        wrapped = [_AboveProgress(stream) if _is_terminal(stream) else stream for stream in streams]
        sys.stdout, sys.stderr = cast("list[TextIO]", wrapped)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = streams


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Display no progress while the block runs, for example while it waits for input."""
    with step("") as hidden:
        hidden._ended.set()
        yield


def _is_terminal(stream: TextIO | None) -> bool:
    """Return whether a stream is open and a terminal."""
    try:
        return stream is not None and stream.isatty()
    except ValueError:  # closed
        return False


class _AboveProgress:
    """A stream that removes the bar from the terminal before it writes.

    Other attributes are those of the wrapped stream.

    Attributes:
        raw_stream: the wrapped stream.
    """

    def __init__(self, stream: TextIO) -> None:
        self.raw_stream = stream

    def write(self, text: str) -> int:
        """Remove the bar, and write text."""
        with _cleared():
            return self.raw_stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.raw_stream, name)


def _raw(stream: TextIO) -> TextIO:
    """Return the innermost wrapped stream, because a bar moves the cursor."""
    while hasattr(stream, "raw_stream"):
        stream = stream.raw_stream
    return stream


def _has_size(stream: TextIO) -> bool:
    """Return whether a terminal reports its size; tqdm displays nothing on one without rows, such as a container's."""
    try:
        return min(os.get_terminal_size(stream.fileno())) > 0
    except (OSError, ValueError):
        return False


def _is_silent() -> bool:
    """Return whether another process displays the progress of this run, or there is no standard error."""
    return sys.stderr is None or os.environ.get("LOCAL_RANK", "0") != "0"


def printable(text: str) -> str:
    """Return text on one line, with unprintable characters replaced."""
    line = " ".join(text.split())
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in line)
