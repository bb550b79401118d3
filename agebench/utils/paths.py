"""Where things live on this machine."""

import atexit
import errno
import os
import shutil
import sys
import tempfile
from pathlib import Path

import platformdirs

from agebench.errors import AgebenchError

_writable: set[Path] = set()  # caches that were tried


def data_home() -> Path:
    """The folder of datasets: `AGEBENCH_DATA`, or the platform's data folder."""
    return Path(os.environ.get("AGEBENCH_DATA") or platformdirs.user_data_path("agebench")).expanduser()


def cache_home(*, lasting: bool = False) -> Path:
    """The folder of what can be made again (decoded faces, audits): `AGEBENCH_CACHE`, or the platform's cache folder.

    Where it cannot be written, a temporary folder takes its place until this process ends, and a line on standard error
    names `AGEBENCH_CACHE`. Processes that this one starts use the same.

    Args:
        lasting: for what cannot be made again: no temporary folder will do.

    Raises:
        AgebenchError: there is no place for a temporary folder either, or none will do.
    """
    wanted = Path(os.environ.get("AGEBENCH_CACHE") or platformdirs.user_cache_path("agebench")).expanduser()
    if wanted in _writable:
        return wanted
    try:
        wanted.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=wanted):
            pass
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return wanted  # what is there can be used; a write says that the disk is full
        reason = f"{wanted}: the cache cannot be written ({error.strerror or error})"
        if lasting:
            raise AgebenchError(f"{reason}; AGEBENCH_CACHE names another place") from error
        return _temporary_cache(reason)
    _writable.add(wanted)
    return wanted


def _temporary_cache(reason: str) -> Path:
    try:
        folder = Path(tempfile.mkdtemp(prefix="agebench-cache-"))
    except OSError as error:
        raise AgebenchError(f"{reason}; AGEBENCH_CACHE names another place") from error
    print(
        f"agebench: {reason}; a temporary one is used and deleted at the end. AGEBENCH_CACHE names a place that lasts",
        file=sys.stderr,
    )
    os.environ["AGEBENCH_CACHE"] = str(folder)
    atexit.register(_remove_cache, folder, os.getpid())
    _writable.add(folder)
    return folder


def _remove_cache(folder: Path, owner: int) -> None:
    if os.getpid() == owner:  # not a forked process
        shutil.rmtree(folder, ignore_errors=True)


def shipped(folder: str) -> Path:
    """A top-level folder that ships with agebench (`registry`, `benchmarks/suites`).

    In a source checkout it stands beside the package, in an installed wheel inside it.
    """
    package = Path(__file__).parents[1]
    installed = package / "_shipped" / folder
    return installed if installed.is_dir() else package.parent / folder
