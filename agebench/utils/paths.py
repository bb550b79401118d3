"""Folders of datasets, caches and shipped files."""

import atexit
import errno
import logging
import os
import shutil
import tempfile
from pathlib import Path

import platformdirs

from agebench.errors import AgebenchError

logger = logging.getLogger(__name__)

_writable: set[Path] = set()  # cache folders that were tested


def data_home() -> Path:
    """Return the folder of datasets: `AGEBENCH_DATA`, or the platform's data folder."""
    return Path(os.environ.get("AGEBENCH_DATA") or platformdirs.user_data_path("agebench")).expanduser()


def cache_home(*, lasting: bool = False) -> Path:
    """Return the folder of reproducible files such as faces and digests.

    It is `AGEBENCH_CACHE`, or the platform's cache folder.

    If it cannot be written, a temporary folder replaces it until this process ends, and a line on standard error names
    `AGEBENCH_CACHE`. Child processes use the same folder.

    Args:
        lasting: whether the files cannot be reproduced, so that a temporary folder is not acceptable.

    Raises:
        AgebenchError: the folder cannot be written, and a temporary one is not acceptable or cannot be created.
    """
    folder = Path(os.environ.get("AGEBENCH_CACHE") or platformdirs.user_cache_path("agebench")).expanduser()
    if folder in _writable:
        return folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return folder  # existing files can be used; a write reports the full disk
        reason = f"{folder}: the cache cannot be written ({error.strerror or error})"
        if lasting:
            raise AgebenchError(f"{reason}; set AGEBENCH_CACHE to another folder") from error
        return _temporary_cache(reason)
    _writable.add(folder)
    return folder


def _temporary_cache(reason: str) -> Path:
    try:
        folder = Path(tempfile.mkdtemp(prefix="agebench-cache-"))
    except OSError as error:
        raise AgebenchError(f"{reason}; set AGEBENCH_CACHE to another folder") from error
    logger.warning(
        "%s; a temporary one is used and deleted at the end. Set AGEBENCH_CACHE to a permanent folder", reason
    )
    os.environ["AGEBENCH_CACHE"] = str(folder)
    atexit.register(_remove_cache, folder, os.getpid())
    _writable.add(folder)
    return folder


def _remove_cache(folder: Path, owner: int) -> None:
    if os.getpid() == owner:  # not a forked process
        shutil.rmtree(folder, ignore_errors=True)


def shipped(folder: str) -> Path:
    """Return a top-level folder that ships with agebench.

    It is beside the package in a checkout, and inside it in a wheel.

    Args:
        folder: path from the top level, such as `registry` or `benchmarks/suites`.
    """
    package = Path(__file__).parents[1]
    installed = package / "_shipped" / folder
    return installed if installed.is_dir() else package.parent / folder
