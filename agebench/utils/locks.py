"""Locks between processes, which report the owner that is waited for."""

import contextlib
import logging
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from agebench.utils.progress import printable, step

logger = logging.getLogger(__name__)

_POLL_S = 0.2
_REPORT_AFTER_S = 1.0  # shorter waits are not reported
MAX_OWNER = 300  # characters of an owner's description


@contextlib.contextmanager
def held(path: Path, purpose: str) -> Iterator[None]:
    """Hold a lock while the block runs; wait if another process holds it.

    A message names the owner, if it is known, and progress shows the duration of the wait.

    Args:
        path: the lock file; a file beside it describes the owner.
        purpose: purpose of the lock in messages, such as `preparing faces of utk`.

    Raises:
        OSError: the lock file cannot be written.
    """
    lock = FileLock(path)
    try:
        lock.acquire(timeout=_REPORT_AFTER_S, poll_interval=_POLL_S)
    except Timeout:
        owner = lock_owner(path)
        logger.warning("%s: waiting for %s, which works on it (%s)", purpose, owner or "another process", path)
        with step(f"{purpose}: waiting for {owner or 'another process'}"):
            lock.acquire(poll_interval=_POLL_S)
    owner_file = _owner_file(path)
    try:
        with contextlib.suppress(OSError):
            owner_file.unlink(missing_ok=True)  # it may be a link to a file of someone else
            with owner_file.open("x", encoding="utf-8") as file:
                file.write(_describe_process())
        yield
    finally:
        with contextlib.suppress(OSError):
            owner_file.unlink()
        lock.release()


def lock_owner(path: Path) -> str:
    """Return a description of the process that holds the lock at `path`.

    Empty if it is unknown.
    """
    try:
        with _owner_file(path).open(encoding="utf-8", errors="replace") as file:
            return printable(file.read(MAX_OWNER))
    except OSError:
        return ""


def _owner_file(path: Path) -> Path:
    return path.with_name(path.name + ".owner")


def _describe_process() -> str:
    command = " ".join([Path(sys.argv[0]).name, *sys.argv[1:3]]) if sys.argv and sys.argv[0] else "python"
    return f"process {os.getpid()} on {socket.gethostname()} ({command})"[:MAX_OWNER]
