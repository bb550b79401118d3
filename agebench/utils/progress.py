"""Progress of long work: a bar on a terminal after two seconds, elsewhere a line every thirty.

Whatever is under way stands on one stack, and only the innermost is shown. `agebench.cli` puts each command at its
bottom, so that no command is silent, whether or not the step that takes its time has a bar of its own.
"""

import contextlib
import operator
import os
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any, Generic, TextIO, TypeVar, cast, overload

Item = TypeVar("Item")

SHOWN_AFTER_S = 2.0  # before that nothing is shown
REFRESHED_S = 0.5  # of a bar on a terminal
LINE_EVERY_S = 30.0  # where standard error is no terminal

_stack: "list[Progress[Any]]" = []
_lock = threading.RLock()  # of the stack, and of what is drawn


class Progress(Generic[Item]):
    """Work that is counted, or only timed; iterate over it, or use it as a context manager and call `update`.

    A thread shows it, so that a step that takes a minute is as visible as a thousand that take a second.

    Args:
        items: what to iterate over; None where `update` counts.
        total: how many there will be; None: as many as `items` has, or unknown.
        label: what is being done, and to what.
        unit: of the count; "": nothing is counted.
        initial: how many were done before.
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
        """Count `count` more as done."""
        self.count += count

    def line(self) -> str:
        """Return the state as one line: `utk: preparing faces: 4,352 of 23,707 img, 1 min 05 s`."""
        counted = ""
        if self._unit and (self.count or self.total):
            of_total = f" of {self.total:,}" if self.total else ""
            counted = f"{self.count:,}{of_total} {self._unit}"
        return ": ".join(filter(None, [self._label, ", ".join(filter(None, [counted, self.note, self._elapsed()]))]))

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
        """End it, and remove its bar."""
        self._ended.set()
        with _lock:
            self._clear()
            with contextlib.suppress(ValueError):  # closed before
                _stack.remove(self)

    def _elapsed(self) -> str:
        minutes, seconds = divmod(round(time.monotonic() - self._start), 60)
        hours, minutes = divmod(minutes, 60)
        return (
            f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {seconds:02d} s" if minutes else f"{seconds} s"
        )

    def _show(self) -> None:
        """Show it until it ends: the thread's function."""
        stream = _raw(sys.stderr)
        terminal = is_terminal(stream)
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
                        print(self.line(), file=stream, flush=True)
                except (OSError, ValueError):  # the terminal is gone
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
                smoothing=0,  # the mean rate: counts come in chunks
                leave=False,
                delay=1e-9,  # not drawn before its start is set
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
    """Return the progress of a loop over `items`, or of what its `update` counts; see `Progress`."""
    return Progress(items, total=total, label=label, unit=unit, initial=initial)


def step(label: str) -> Progress[Any]:
    """Return the progress of a step that counts nothing, to be used as a context manager: its label and its time."""
    return Progress(label=label, unit="")


def say(text: str) -> None:
    """Print a line on standard error, above whatever bar is shown."""
    with cleared():
        if sys.stderr is not None:
            print(text, file=sys.stderr, flush=True)


@contextlib.contextmanager
def cleared() -> Iterator[None]:
    """Remove the bar while the block prints; it comes back by itself."""
    with _lock:
        for shown in _stack:
            shown._clear()
        yield


@contextlib.contextmanager
def above_progress() -> Iterator[None]:
    """Let what the block prints on a terminal remove the bar first."""
    streams = sys.stdout, sys.stderr
    if is_terminal(sys.stderr):
        wrapped = [AboveProgress(stream) if is_terminal(stream) else stream for stream in streams]
        sys.stdout, sys.stderr = cast("list[TextIO]", wrapped)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = streams


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Show no progress while the block runs: it waits for a person, not for work."""
    with step("") as quiet:
        quiet._ended.set()
        yield


def is_terminal(stream: TextIO | None) -> bool:
    """Return whether a stream is open and a terminal."""
    try:
        return stream is not None and stream.isatty()
    except ValueError:  # closed
        return False


class AboveProgress:
    """A stream that removes the bar from the terminal before it writes; everything else is the wrapped stream's.

    Attributes:
        raw_stream: the wrapped stream.
    """

    def __init__(self, stream: TextIO) -> None:
        self.raw_stream = stream

    def write(self, text: str) -> int:
        """Write `text` where the bar was."""
        with cleared():
            return self.raw_stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.raw_stream, name)


def _raw(stream: TextIO) -> TextIO:
    """Return the stream behind all wrappers: a bar moves the cursor itself."""
    while hasattr(stream, "raw_stream"):
        stream = stream.raw_stream
    return stream


def _has_size(stream: TextIO) -> bool:
    """Return whether a terminal reports its size; tqdm shows nothing on one of no rows, such as a container's."""
    try:
        return min(os.get_terminal_size(stream.fileno())) > 0
    except (OSError, ValueError):
        return False


def _is_silent() -> bool:
    """Return whether another process shows the progress of this run, or there is nowhere to show it."""
    return sys.stderr is None or os.environ.get("LOCAL_RANK", "0") != "0"


def printable(text: str) -> str:
    """Return `text` on one line, without characters that move a cursor or hide."""
    words = " ".join(text.split())
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in words)
