"""Files: written so that they are there whole or not at all, and told apart by their digests."""

import errno
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from agebench.errors import AgebenchError, UserError
from agebench.paths import cache_home

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_LEFTOVER = re.compile(r"\..+\.agebench-[a-z0-9_]{8}\.tmp(\..*)?", re.DOTALL)
_tidied: set[Path] = set()


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` when the block ends well, remove it otherwise.

    The temporary file is locked while it is written. One that is not was left by a process that was killed: the first write of
    this process into a folder removes it.

    Raises:
        AgebenchError: the disk is full or the folder cannot be written; the message names the file.
    """
    path = Path(path)
    descriptor, temporary = None, None
    try:
        if path.exists() and not path.is_file():  # as root, the rename would replace a device
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(path.parent)
        descriptor, temporary = _make_temporary(path)
        temporary.chmod(0o666 & ~_umask())
        yield temporary
        with temporary.open("rb") as handle:
            os.fsync(handle.fileno())
        temporary.replace(path)
    except OSError as error:
        raise write_error(path, error) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        if descriptor is not None:
            os.close(descriptor)


def _make_temporary(path: Path) -> tuple[int, Path]:
    """A new file beside `path`, held by a lock that ends with this process."""
    while True:
        descriptor, name = tempfile.mkstemp(
            dir=path.parent, prefix=f".{path.name[:60]}.agebench-", suffix=".tmp" + path.suffix
        )
        try:
            if _hold(descriptor) and os.path.samestat(os.fstat(descriptor), os.stat(name)):
                return descriptor, Path(name)
        except FileNotFoundError:  # another process took it for a leftover before it was locked
            pass
        os.close(descriptor)


def _hold(descriptor: int) -> bool:
    """Lock a file; False where another process holds it. A file system without locks has it done."""
    try:
        if fcntl is not None:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def _remove_leftovers(folder: Path) -> None:
    """Remove temporary files of killed processes, once a process and folder."""
    if fcntl is None or folder in _tidied:
        return
    _tidied.add(folder)
    for entry in os.scandir(folder):
        if _LEFTOVER.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
            with suppress(OSError), open(entry.path, "rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # raises where it is at work, or locks are not known
                os.unlink(entry.path)


def check_folder(folder: Path, option: str = "--out") -> None:
    """Refuse a folder in which no file can be made, before any work is done for it. Nothing is left there.

    Raises:
        UserError: it cannot be made or written; the message names the option.
    """
    _check_output(folder, folder, option)


def check_file(path: Path, option: str = "--out") -> None:
    """Refuse a file that cannot be written, before any work is done for it.

    Raises:
        UserError: it is a folder or a device, or its folder cannot be written.
    """
    _check_output(path, path.parent, option)


def _check_output(output: Path, folder: Path, option: str) -> None:
    created: list[Path] = []
    try:
        if output is not folder and output.exists() and not output.is_file():
            raise OSError(errno.EINVAL, "not a regular file")
        missing = [path for path in (folder, *folder.parents) if not path.exists()]
        for path in reversed(missing):
            path.mkdir()
            created.append(path)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(
            f"{option} {output}: cannot be written: {error.strerror or error}; choose another place with {option}"
        ) from error
    finally:
        for path in reversed(created):
            with suppress(OSError):
                path.rmdir()


def digest(path: Path) -> str:
    """The SHA-256 of a file, hexadecimal.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def write_error(path: Path, error: OSError) -> AgebenchError:
    """The sentence for a file that could not be written."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return AgebenchError(
            f"{path}: the disk is full. Free some space, or put runs elsewhere with --out and caches with AGEBENCH_CACHE; "
            "what was finished before is kept, and the same command continues."
        )
    hint = "; AGEBENCH_CACHE names another place" if path.is_relative_to(cache_home()) else ""
    return AgebenchError(f"{path}: cannot be written: {error.strerror or error}{hint}")


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically, UTF-8."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Any) -> None:
    """Write JSON atomically: indented, keys in the order given, NaN refused (JSON has none)."""
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
