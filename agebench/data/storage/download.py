"""Downloads that continue where they broke off."""

from pathlib import Path
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


def download(url: str, folder: Path, *, sha256: str = "") -> Path:
    """The file at `url` (http, https or file) in `folder`, under the name that the address ends in.

    A file that is there already is kept if its checksum holds, or if there is none to hold. What was received of a
    download that broke off stays in `NAME.part`, and the next call asks for the rest.

    Raises:
        UserError: an address of another kind.
        AgebenchError: the source cannot be reached, broke off, or gave a file with another checksum; or the disk is full.
    """
    parts = urlsplit(url)
    name = Path(unquote(parts.path)).name
    if parts.scheme not in ("http", "https", "file") or not name:
        raise UserError(f"{url}: not the address of a file (http, https or file)")
    target, part = folder / name, folder / f"{name}.part"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.parent / f".{folder.name}.lock"):  # two calls would write into one part
            if target.exists() and (not sha256 or file_digest(target) == sha256):
                return target
            _receive(url, part)
            if sha256 and (found := file_digest(part)) != sha256:
                part.unlink()
                raise AgebenchError(
                    f"{url}: its SHA-256 is {found}, the card says {sha256}; the file has changed or was tampered with"
                )
            part.replace(target)
    except URLError as error:
        raise AgebenchError(f"{url}: cannot be reached: {error.reason}") from error
    except OSError as error:
        raise write_failure(folder, error) from error
    return target


def _receive(url: str, part: Path) -> None:
    """Fill `part` from `url`, from where it ends if the server can do that."""
    have = part.stat().st_size if part.exists() else 0
    request = Request(url, headers={"User-Agent": "agebench", **({"Range": f"bytes={have}-"} if have else {})})
    try:
        answer = urlopen(request, timeout=_TIMEOUT)
    except URLError as error:
        if getattr(error, "code", None) != 416 or not have:
            raise
        part.unlink()  # there is no rest: the file has changed, or it was all there
        return _receive(url, part)
    with answer, part.open("ab" if getattr(answer, "status", None) == 206 else "wb") as file:
        announced = answer.headers.get("Content-Length")
        total = file.tell() + int(announced) if announced else None
        with progress(total=total, label=f"getting {part.stem}", unit="B") as bar:
            bar.update(file.tell())
            while chunk := answer.read(_CHUNK):
                file.write(chunk)
                bar.update(len(chunk))
        if total is not None and file.tell() != total:
            raise AgebenchError(f"{url}: broke off after {file.tell()} of {total} bytes; the same command continues")
    return None
