"""Resumable downloads."""

from http.client import HTTPException
from pathlib import Path
from typing import IO
from urllib.error import URLError
from urllib.parse import unquote, urlsplit
from urllib.request import Request, urlopen

from filelock import FileLock

from agebench.data.storage.archives import write_failure
from agebench.errors import AgebenchError, UserError
from agebench.utils.io import file_digest
from agebench.utils.progress import progress

_CHUNK = 1 << 20
_TIMEOUT = 60.0


class UnreachableError(AgebenchError):
    """The source of a download cannot be reached; nothing was received."""


def download(url: str, folder: Path, *, sha256: str = "") -> Path:
    """Download a file into a folder, under the last part of the URL.

    An existing file is kept if its checksum matches, or if none is given. An interrupted download stays in `NAME.part`, and
    the next call requests the rest.

    Args:
        url: an http, https or file URL.
        folder: the folder; it is created if it does not exist.
        sha256: expected SHA-256, hexadecimal; empty for any.

    Returns:
        Path of the file.

    Raises:
        UserError: the URL has another scheme or no file name.
        UnreachableError: the source cannot be reached.
        AgebenchError: the connection is lost, the checksum differs, or the disk is full.
    """
    parts = urlsplit(url)
    name = Path(unquote(parts.path)).name
    if parts.scheme not in ("http", "https", "file") or not name:
        raise UserError(f"{url}: not the address of a file (http, https or file)")
    target, part = folder / name, folder / f"{name}.part"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.parent / f".{folder.name}.lock"):  # two calls would write to one partial file
            if target.exists() and (not sha256 or file_digest(target) == sha256):
                return target
            _receive(url, part)
            if sha256 and (actual := file_digest(part)) != sha256:
                part.unlink()
                raise AgebenchError(
                    f"{url}: its SHA-256 is {actual}, but the card specifies {sha256}; the file has changed or was tampered with"
                )
            part.replace(target)
    except URLError as error:
        raise UnreachableError(f"{url}: cannot be reached: {error.reason}") from error
    except OSError as error:
        raise write_failure(folder, error) from error
    return target


def _receive(url: str, part: Path) -> None:
    """Download to a partial file, and continue at its end if the server supports it."""
    n_received = part.stat().st_size if part.exists() else 0
    request = Request(
        url, headers={"User-Agent": "agebench", **({"Range": f"bytes={n_received}-"} if n_received else {})}
    )
    try:
        response = urlopen(request, timeout=_TIMEOUT)
    except URLError as error:
        if getattr(error, "code", None) != 416 or not n_received:
            raise
        part.unlink()  # no further bytes: the file has changed, or was complete
        return _receive(url, part)
    except (OSError, HTTPException) as error:  # urlopen wraps those of connecting and sending, not of the answer
        raise UnreachableError(f"{url}: cannot be reached: {_describe(error)}") from error
    with response, part.open("ab" if getattr(response, "status", None) == 206 else "wb") as file:
        length = response.headers.get("Content-Length")
        total = file.tell() + int(length) if length else None
        with progress(total=total, label=f"getting {part.stem}", unit="B") as bar:
            bar.update(file.tell())
            while chunk := _read(response, url, file.tell()):
                file.write(chunk)
                bar.update(len(chunk))
        if total is not None and file.tell() != total:
            raise AgebenchError(f"{url}: broke off after {file.tell()} of {total} bytes; the same command continues")
    return None


def _read(response: IO[bytes], url: str, n_received: int) -> bytes:
    """Read the next chunk.

    Raises:
        AgebenchError: the connection is lost, or there is no answer in time.
    """
    try:
        return response.read(_CHUNK)
    except (OSError, HTTPException) as error:
        raise AgebenchError(
            f"{url}: broke off after {n_received} bytes ({_describe(error)}); the same command continues"
        ) from error


def _describe(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
