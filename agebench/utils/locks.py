"""Locks between processes: whoever waits is told for whom."""

import contextlib
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from agebench.utils.progress import printable, say, step

_POLL_S = 0.2
_TOLD_AFTER_S = 1.0  # shorter waits are not worth a line
MAX_OWNER = 300  # characters of an owner's description


@contextlib.contextmanager
def held(path: Path, purpose: str) -> Iterator[None]:
    """Hold the lock at `path` while the block runs; wait for it where another process holds it.

    A message names the process that is waited for, where it is known, and progress shows how long the wait takes.

    Args:
        path: the lock's file; a file beside it describes the owner.
        purpose: what the lock is for, such as `preparing faces of utk`.

    Raises:
        OSError: the lock's file cannot be written.
    """
    lock = FileLock(path)
    try:
        lock.acquire(timeout=_TOLD_AFTER_S, poll_interval=_POLL_S)
    except Timeout:
        owner = lock_owner(path)
        say(f"agebench: {purpose}: waiting for {owner or 'another process'}, which works on it ({path})")
        with step(f"{purpose}: waiting for {owner or 'another process'}"):
            lock.acquire(poll_interval=_POLL_S)
    note = _owner_file(path)
    try:
        with contextlib.suppress(OSError):
            note.write_text(_describe(), encoding="utf-8")
        yield
    finally:
        with contextlib.suppress(OSError):
            note.unlink()
        lock.release()


def lock_owner(path: Path) -> str:
    """Return which process holds the lock at `path`, "" where that is unknown."""
    try:
        with _owner_file(path).open(encoding="utf-8", errors="replace") as file:
            return printable(file.read(MAX_OWNER))
    except OSError:
        return ""


def _owner_file(path: Path) -> Path:
    return path.with_name(path.name + ".owner")


def _describe() -> str:
    command = " ".join([Path(sys.argv[0]).name, *sys.argv[1:3]]) if sys.argv and sys.argv[0] else "python"
    return f"process {os.getpid()} on {socket.gethostname()} ({command})"[:MAX_OWNER]
