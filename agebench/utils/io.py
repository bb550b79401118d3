"""Atomic writes, digests, checks of output paths, and CSV text that is safe to open in a spreadsheet."""

import errno
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agebench.errors import AgebenchError, DiskFull, UserError
from agebench.utils.paths import cache_home

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

if TYPE_CHECKING:
    import pandas as pd

# Names of the temporary files of `atomic_write` and the folders of `temporary_folder`.
_LEFTOVER = re.compile(r"\..+\.agebench-[a-z0-9_]{8}\.tmp(\..*)?", re.DOTALL)
_tidied: set[Path] = set()  # folders whose leftovers were removed
_POINTER = b"version https://git-lfs.github.com/spec/"
_MARKUP = (b"<!doctype", b"<html", b"<?xml")
# Text that a spreadsheet evaluates as a formula because of its first character, after apostrophes that `csv_cell` added.
_FORMULA = re.compile(r"'*[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`.

    Rename it to `path` when the block succeeds, remove it otherwise.

    The temporary file is locked while it is written. An unlocked one was left by a killed process; the first write of this
    process to a folder removes it.

    Args:
        path: the file to write.

    Raises:
        AgebenchError: the disk is full or the folder cannot be written. The message names the file.
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
    """Create a file beside `path`, with a lock that ends with this process."""
    while True:
        descriptor, name = tempfile.mkstemp(
            dir=path.parent, prefix=f".{path.name[:60]}.agebench-", suffix=".tmp" + path.suffix
        )
        try:
            if _try_lock(descriptor) and os.path.samestat(os.fstat(descriptor), os.stat(name)):
                return descriptor, Path(name)
        except FileNotFoundError:  # another process removed it as a leftover before it was locked
            pass
        os.close(descriptor)


@contextmanager
def temporary_folder(path: Path) -> Iterator[Path]:
    """Yield an empty temporary folder beside `path`, and remove it at the end.

    The folder is locked and, if its process is killed, removed later, as the temporary file of `atomic_write` is.

    Args:
        path: the file or folder that the temporary one is for.

    Raises:
        AgebenchError: the folder cannot be created.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(path.parent)
        descriptor, temporary = _make_temporary_folder(path)
    except OSError as error:
        raise write_error(path, error) from error
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        if descriptor is not None:
            os.close(descriptor)


def _make_temporary_folder(path: Path) -> tuple[int | None, Path]:
    """Create a folder beside `path`, with a lock that ends with this process."""
    while True:
        name = tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name[:60]}.agebench-", suffix=".tmp")
        descriptor = None
        with suppress(FileNotFoundError):  # another process removed it as a leftover before it was locked
            descriptor = os.open(name, os.O_RDONLY) if fcntl is not None else None
            if descriptor is None or (_try_lock(descriptor) and os.path.samestat(os.fstat(descriptor), os.stat(name))):
                return descriptor, Path(name)
        if descriptor is not None:
            os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    """Lock a file; return False if another process holds the lock, and True on a file system without locks."""
    try:
        if fcntl is not None:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def _remove_leftovers(folder: Path) -> None:
    """Remove temporary files and folders of killed processes, once per process and folder."""
    if fcntl is None or folder in _tidied:
        return
    _tidied.add(folder)
    for entry in os.scandir(folder):
        if not _LEFTOVER.fullmatch(entry.name) or entry.is_symlink():
            continue
        with suppress(OSError):
            descriptor = os.open(entry.path, os.O_RDONLY | os.O_NONBLOCK)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # raises if it is in use, or without locks
                if entry.is_dir(follow_symlinks=False):
                    shutil.rmtree(entry.path)
                elif entry.is_file(follow_symlinks=False):
                    os.unlink(entry.path)
            finally:
                os.close(descriptor)


def check_folder(folder: Path, option: str = "--out") -> None:
    """Check before long work that files can be created in a folder; no file is left there.

    Args:
        folder: the folder; it need not exist.
        option: the command-line option in the error message.

    Raises:
        UserError: the folder cannot be created or written.
    """
    _check_output(folder, folder, option)


def check_file(path: Path, option: str = "--out") -> None:
    """Check before long work that a file can be written.

    Args:
        path: the file.
        option: the command-line option in the error message.

    Raises:
        UserError: the path is a folder or a device, or its folder cannot be written.
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
            f"{option} {output}: cannot be written: {error.strerror or error}; set another path with {option}"
        ) from error
    finally:
        for path in reversed(created):
            with suppress(OSError):
                path.rmdir()


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file, hexadecimal.

    Args:
        path: the file.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def is_temporary(path: Path) -> bool:
    """Return whether a file is an unfinished temporary file of `atomic_write`."""
    return _LEFTOVER.fullmatch(path.name) is not None


def read_limited(path: Path, limit: int) -> bytes:
    """Read a file or a pipe of limited size.

    Args:
        path: the file.
        limit: maximum number of bytes.

    Raises:
        OSError: the file cannot be read.
        UserError: the file has more than `limit` bytes.
    """
    with path.open("rb") as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise UserError(f"{path}: has more than {limit:,} bytes; is it the right file?")
    return content


def refuse_placeholder(path: Path) -> None:
    """Reject a placeholder of a large file: a Git LFS pointer, a web page or an empty file.

    Args:
        path: the file.

    Raises:
        UserError: the file is a placeholder. The message describes how to get the file.
    """
    try:
        with path.open("rb") as content:
            start = content.read(256)
    except OSError:
        return  # the caller reports it when it reads the file
    if start.startswith(_POINTER):
        raise UserError(
            f"{path}: is a Git LFS pointer, not the file itself: run `git lfs pull` in its repository, or download the file"
        )
    if start.lstrip().lower().startswith(_MARKUP):
        raise UserError(f"{path}: holds a web page: its download failed or needs a confirmation; download it again")
    if not start:
        raise UserError(f"{path}: is empty; download it again")


@contextmanager
def readable_archive(path: Path) -> Iterator[None]:
    """Convert exceptions about a damaged or unsupported archive, raised within the block, to a UserError.

    Args:
        path: the archive, for the message.

    Raises:
        UserError: the archive is cut short, damaged or encrypted, or its compression is not supported.
    """
    # Late: most commands read no archive.
    import lzma
    import tarfile
    import zipfile
    import zlib

    try:
        yield
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # from the disk; gzip and bzip2 raise errors about damaged data without a number
        reason = " ".join(str(error).split())  # tarfile lists the formats that it tried, one a line
        raise UserError(f"{path}: the archive is cut short or damaged ({reason}); fetch it again") from error
    except RuntimeError as error:  # zipfile's class for encrypted members, and NotImplementedError, a subclass
        raise UserError(
            f"{path}: the archive is encrypted or its compression is not supported ({error}); unpack it with another program"
        ) from error


def write_error(path: Path, error: OSError) -> AgebenchError:
    """Return the error for a file that could not be written.

    Args:
        path: the file.
        error: the cause.
    """
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFull(
            f"{path}: the disk is full. Free some space, or move runs with --out and caches with AGEBENCH_CACHE; "
            "what was finished before is kept, and the same command continues."
        )
    hint = "; set AGEBENCH_CACHE to another folder" if path.is_relative_to(cache_home()) else ""
    return AgebenchError(f"{path}: cannot be written: {error.strerror or error}{hint}")


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically, UTF-8."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Any) -> None:
    """Write JSON atomically: indented, with the keys in their order, without NaN.

    Args:
        path: the file to write.
        content: JSON-serializable content.

    Raises:
        ValueError: the content contains NaN or infinity.
        AgebenchError: the file cannot be written.
    """
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def csv_cell(value: Any) -> Any:
    """Return a value as a CSV cell that no spreadsheet evaluates.

    Text that starts like a formula gets a leading apostrophe, which `csv_origin` removes. Numbers, also as text, stay
    unchanged.

    Args:
        value: any value.
    """
    if isinstance(value, str) and _FORMULA.match(value) and not _NUMBER.fullmatch(value):
        return f"'{value}"
    return value


def csv_origin(text: str) -> str:
    """Return the original text of a cell that `csv_cell` created."""
    return text[1:] if text.startswith("'") and _FORMULA.match(text) else text


def csv_text(table: "pd.DataFrame", *, index: bool = False) -> str:
    """Return a table as CSV text, with every cell and header protected by `csv_cell`.

    Args:
        table: the table.
        index: whether to write the index.
    """
    from pandas.api.types import is_numeric_dtype  # late, because callers that write JSON need no pandas

    safe = table.rename(columns=csv_cell, index=csv_cell if index else None)
    for position, dtype in enumerate(safe.dtypes):
        if not is_numeric_dtype(dtype):
            safe.isetitem(position, safe.iloc[:, position].astype("object").map(csv_cell).to_numpy(object))
    safe.index.names = [csv_cell(name) for name in safe.index.names]
    return safe.to_csv(index=index)


def write_csv(path: Path, table: "pd.DataFrame", *, index: bool = False) -> None:
    """Write a table as CSV, atomically, with every cell and header protected by `csv_cell`.

    Args:
        path: the file to write.
        table: the table.
        index: whether to write the index.
    """
    write_text(path, csv_text(table, index=index))


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
