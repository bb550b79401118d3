"""Taking archives from strangers apart: nothing escapes, nothing explodes, nothing stays half done."""

import errno
import lzma
import os
import shutil
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from agebench.errors import AgebenchError, UserError
from agebench.utils.progress import progress

_CHUNK = 1 << 20
_ENDINGS = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".tbz2", ".xz", ".txz")
_DAMAGE = (tarfile.ReadError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError)


class CorruptArchiveError(UserError):
    """An archive that is cut short, damaged or none at all; another download may help."""


@dataclass(frozen=True)
class ExtractionLimits:
    """What an archive may hold before it is taken for a decompression bomb.

    Attributes:
        members: files and folders.
        total: bytes after extraction.
        ratio: extracted bytes for each byte of the archive, beyond the first `free` bytes. Images hardly shrink, tables
            by a factor of ten.
        free: bytes after extraction up to which any ratio will do.
    """

    members: int = 10_000_000
    total: int = 1 << 40
    ratio: float = 100.0
    free: int = 64 << 20


def extract(archive: Path, target: Path, limits: ExtractionLimits = ExtractionLimits()) -> int:
    """Extract a tar (plain, gzip, bzip2, xz) or a zip into the new folder `target`; returns how many files it holds.

    Everything goes to a temporary folder beside `target`, which is renamed at the end and removed when anything fails.
    Permissions and owners in the archive are ignored.

    Raises:
        CorruptArchiveError: cut short, damaged, or no archive.
        UserError: no such archive, encrypted, larger than `limits` allow, or with a member that is
            a link, a device or leads out of the archive; the message names the archive and the member.
        AgebenchError: the disk is full, or the folder cannot be written.
    """
    _check_kind(archive)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}.", suffix=".extracting"))
    except OSError as error:
        raise write_failure(target, error) from error
    try:
        with _explained(archive):
            count = (_unzip if zipfile.is_zipfile(archive) else _untar)(archive, staging, _Budget(archive, limits))
        staging.chmod(0o777 & ~_umask())
        staging.rename(target)
    except OSError as error:
        raise write_failure(target, error) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return count


def write_failure(folder: Path, error: OSError) -> AgebenchError:
    """The sentence for a dataset's folder that could not be written."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return AgebenchError(
            f"{folder}: the disk is full; free some space, or put datasets elsewhere with AGEBENCH_DATA. Nothing was left behind."
        )
    return AgebenchError(f"{folder}: cannot be written: {error.strerror or error}; AGEBENCH_DATA names another place")


class _Budget:
    """Counts what comes out of an archive and refuses more than the limits allow."""

    def __init__(self, archive: Path, limits: ExtractionLimits) -> None:
        self.archive, self.limits = archive, limits
        self.size = archive.stat().st_size
        self.members = self.bytes = 0

    def member(self) -> None:
        self.members += 1
        if self.members > self.limits.members:
            raise UserError(f"{self.archive}: more than {self.limits.members} members; refused as a decompression bomb")

    def check(self, coming: int) -> None:
        allowed = min(self.limits.total, int(max(self.limits.free, self.limits.ratio * self.size)))
        if self.bytes + coming > allowed:
            raise UserError(
                f"{self.archive}: its {self.size} bytes unpack to more than {allowed}; refused as a decompression bomb. "
                "If you trust it, unpack it yourself and give the folder."
            )

    def spend(self, count: int) -> None:
        self.check(count)
        self.bytes += count


def _unzip(archive: Path, staging: Path, budget: _Budget) -> int:
    count = 0
    with zipfile.ZipFile(archive) as content:
        for member in progress(content.infolist(), label=f"unpacking {archive.name}", unit="file"):
            budget.member()
            path = _safe(archive, member.filename, staging)
            kind = stat.S_IFMT(member.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise UserError(f"{archive}: '{member.filename}' is a link or a device; refused")
            if member.flag_bits & 0x1:
                raise UserError(f"{archive}: '{member.filename}' is encrypted: unpack it yourself and give the folder")
            with _named(archive, member.filename):
                if member.is_dir():
                    path.mkdir(parents=True, exist_ok=True)
                    continue
                with content.open(member) as source:
                    _write(source, path, member.file_size, budget)
            count += 1
    return count


def _untar(archive: Path, staging: Path, budget: _Budget) -> int:
    count = 0
    with tarfile.open(archive, "r:*") as content:
        for member in progress(content, label=f"unpacking {archive.name}", unit="file"):
            budget.member()
            path = _safe(archive, member.name, staging)
            with _named(archive, member.name):
                if member.isdir():
                    path.mkdir(parents=True, exist_ok=True)
                    continue
                source = content.extractfile(member) if member.isreg() else None
                if source is None:
                    raise UserError(f"{archive}: '{member.name}' is a link or a device; refused")
                with source:
                    _write(source, path, member.size, budget)
            count += 1
        _check_end(content, budget)
    return count


def _check_end(content: tarfile.TarFile, budget: _Budget) -> None:
    """What tarfile lets pass: an archive that was cut between two members, or whose rest is damaged."""
    file = content.fileobj
    assert file is not None
    # tarfile stopped on a block of zeros, the end mark, which a second one follows; or on nothing, or on nonsense.
    if file.tell() != content.offset + tarfile.BLOCKSIZE or file.read(tarfile.BLOCKSIZE).strip(b"\0"):
        raise tarfile.ReadError("no end mark")
    while rest := file.read(_CHUNK):  # to the end, where gzip and xz have their checksums
        budget.spend(len(rest))


def _write(source: IO[bytes], path: Path, size: int, budget: _Budget) -> None:
    budget.check(size)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("xb") as file:
        while chunk := source.read(_CHUNK):
            budget.spend(len(chunk))
            file.write(chunk)


@contextmanager
def _named(archive: Path, member: str) -> Iterator[None]:
    """Blame on the archive what is its own fault: names that occur twice, or that no file system takes."""
    try:
        yield
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        raise UserError(
            f"{archive}: '{member}' stands in it twice, and which one is meant cannot be known: unpack it yourself and give the "
            "folder"
        ) from error
    except (OSError, UnicodeError) as error:
        if isinstance(error, OSError) and error.errno not in (errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL):
            raise
        raise UserError(
            f"{archive}: '{_shortened(member)}': a file cannot have this name here ({getattr(error, 'strerror', None) or error}): "
            "unpack it yourself and give the folder"
        ) from error


def _shortened(name: str) -> str:
    return name if len(name) <= 100 else f"{name[:60]}…{name[-30:]}"


def _safe(archive: Path, name: str, staging: Path) -> Path:
    """Where the member goes. Backslashes count as slashes, and a drive letter as an absolute path, on every system."""
    parts = name.replace("\\", "/").split("/")
    if parts[0] == "" or parts[0][1:2] == ":" or ".." in parts or "\0" in name:
        raise UserError(f"{archive}: '{name}' leads out of the archive; refused")
    return staging.joinpath(*parts)


def _check_kind(archive: Path) -> None:
    """Refuse what is no archive at all, above all the web page that a failed download leaves."""
    try:
        with archive.open("rb") as file:
            start = file.read(512)
    except OSError as error:
        raise UserError(f"{archive}: cannot be read: {error.strerror or error}") from error
    if start.lstrip()[:1] == b"<":
        raise CorruptArchiveError(f"{archive}: a web page, not an archive: the download failed; download it again")
    if not start:
        raise CorruptArchiveError(f"{archive}: empty; download it again")


@contextmanager
def _explained(archive: Path) -> Iterator[None]:
    try:
        yield
    except (*_DAMAGE, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the disk's; gzip and bzip2 raise theirs, about damaged data, without a number
        if archive.name.lower().endswith(_ENDINGS):
            raise CorruptArchiveError(f"{archive}: cut short or damaged: download it again") from error
        raise CorruptArchiveError(f"{archive}: neither a tar (plain, gzip, bzip2, xz) nor a zip archive") from error
    except (NotImplementedError, RuntimeError) as error:  # a zip with a compression or a trick that zipfile lacks
        raise UserError(
            f"{archive}: cannot be unpacked here ({error}): unpack it yourself and give the folder"
        ) from error


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
