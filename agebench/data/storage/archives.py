"""Safe extraction of untrusted archives: no path traversal, no decompression bombs, atomic."""

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
from typing import IO, Self

from agebench.errors import AgebenchError, UserError
from agebench.utils.progress import progress

_CHUNK = 1 << 20
_SUFFIXES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".tbz2", ".xz", ".txz")
# Bytes of a tar's header with the name and the attributes of a member, which is read into memory at once.
_MAX_HEADER = 1 << 20
_LONG_HEADERS = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)
_DAMAGE_ERRORS = (tarfile.ReadError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError)


class CorruptArchiveError(UserError):
    """The archive is truncated or damaged, or the file is not an archive.

    Another download may help.
    """


class _OversizedHeaderError(Exception):
    """A tar's header is larger than any name and attributes are."""


class _Member(tarfile.TarInfo):
    """A member of a tar whose header is read only if it is of limited size."""

    __slots__ = ()

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        """Parse a block of 512 bytes.

        Args:
            buf: the block.
            encoding: encoding of names.
            errors: how names in another encoding are decoded.

        Raises:
            _OversizedHeaderError: the block announces a header of more than `_MAX_HEADER` bytes.
        """
        member = super().frombuf(buf, encoding, errors)
        if member.type in _LONG_HEADERS and member.size > _MAX_HEADER:
            raise _OversizedHeaderError
        return member


@dataclass(frozen=True)
class ExtractionLimits:
    """Limits beyond which an archive is rejected as a decompression bomb.

    Attributes:
        members: number of files and folders.
        total: bytes after extraction.
        ratio: extracted bytes per byte of the archive, beyond the first `free` bytes. Images are hardly compressible, tables
            by a factor of ten.
        free: extracted bytes up to which any ratio is allowed.
    """

    members: int = 10_000_000
    total: int = 1 << 40
    ratio: float = 100.0
    free: int = 64 << 20


def extract(archive: Path, target: Path, limits: ExtractionLimits = ExtractionLimits()) -> int:
    """Extract a tar (plain, gzip, bzip2, xz) or a zip archive into a new folder.

    Members are extracted to a temporary folder beside `target`, which is renamed at the end, or removed after an error.
    Permissions and owners in the archive are ignored.

    Args:
        archive: the archive.
        target: the folder to create.
        limits: limits on members and size.

    Returns:
        The number of extracted files.

    Raises:
        CorruptArchiveError: the archive is truncated or damaged, or the file is not an archive.
        UserError: the archive does not exist, is encrypted or exceeds `limits`, or a member is a link or a device or leads
            out of the archive. The message names the archive and the member.
        AgebenchError: the disk is full, or the folder cannot be written.
    """
    _reject_non_archive(archive)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}.", suffix=".extracting"))
    except OSError as error:
        raise write_failure(target, error) from error
    try:
        with _translate_errors(archive):
            count = (_unzip if _is_zip(archive) else _untar)(archive, staging, _Budget(archive, limits))
        staging.chmod(0o777 & ~_umask())
        staging.rename(target)
    except OSError as error:
        raise write_failure(target, error) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return count


def write_failure(folder: Path, error: OSError) -> AgebenchError:
    """Return the error for a dataset folder that could not be written.

    Args:
        folder: the folder.
        error: the cause.
    """
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return AgebenchError(
            f"{folder}: the disk is full; free some space, or move datasets with AGEBENCH_DATA. Nothing was left behind."
        )
    return AgebenchError(f"{folder}: cannot be written: {error.strerror or error}; set AGEBENCH_DATA to another folder")


class _Budget:
    """Counts extracted members and bytes, and rejects archives that exceed their limits."""

    def __init__(self, archive: Path, limits: ExtractionLimits) -> None:
        self.archive, self.limits = archive, limits
        self.size = archive.stat().st_size
        self.members = self.bytes = 0

    def count_member(self) -> None:
        """Count one member."""
        self.members += 1
        if self.members > self.limits.members:
            raise UserError(
                f"{self.archive}: more than {self.limits.members} members; rejected as a decompression bomb"
            )

    def check(self, n_bytes: int) -> None:
        """Raise a UserError if further bytes exceed the limits."""
        allowed = min(self.limits.total, int(max(self.limits.free, self.limits.ratio * self.size)))
        if self.bytes + n_bytes > allowed:
            raise UserError(
                f"{self.archive}: its {self.size} bytes unpack to more than {allowed}; rejected as a decompression bomb. "
                "If you trust it, unpack it yourself and give the folder."
            )

    def spend(self, n_bytes: int) -> None:
        """Count extracted bytes."""
        self.check(n_bytes)
        self.bytes += n_bytes


def _is_zip(archive: Path) -> bool:
    """Return whether a file is a zip archive, and not a tar whose last member is one."""
    if not zipfile.is_zipfile(archive):  # looks for the directory at the end of the file
        return False
    with archive.open("rb") as file:
        header = file.read(tarfile.BLOCKSIZE)
    try:
        tarfile.TarInfo.frombuf(header, tarfile.ENCODING, "surrogateescape")
    except tarfile.HeaderError:  # no tar, or a compressed one
        return True
    return False


def _unzip(archive: Path, staging: Path, budget: _Budget) -> int:
    count = 0
    with zipfile.ZipFile(archive) as content:
        for member in progress(content.infolist(), label=f"unpacking {archive.name}", unit="file"):
            budget.count_member()
            path = _member_path(archive, member.filename, staging)
            kind = stat.S_IFMT(member.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise UserError(f"{archive}: '{member.filename}' is a link or a device; rejected")
            if member.flag_bits & 0x1:
                raise UserError(f"{archive}: '{member.filename}' is encrypted: unpack it yourself and give the folder")
            with _translate_member_errors(archive, member.filename):
                if member.is_dir():
                    path.mkdir(parents=True, exist_ok=True)
                    continue
                with content.open(member) as source:
                    _write(source, path, member.file_size, budget)
            count += 1
    return count


def _untar(archive: Path, staging: Path, budget: _Budget) -> int:
    count = 0
    with tarfile.open(archive, "r:*", tarinfo=_Member) as content:
        for member in progress(content, label=f"unpacking {archive.name}", unit="file"):
            budget.count_member()
            path = _member_path(archive, member.name, staging)
            with _translate_member_errors(archive, member.name):
                if member.isdir():
                    path.mkdir(parents=True, exist_ok=True)
                    continue
                source = content.extractfile(member) if member.isreg() else None
                if source is None:
                    raise UserError(f"{archive}: '{member.name}' is a link or a device; rejected")
                with source:
                    _write(source, path, member.size, budget)
            count += 1
        _check_end(content, budget)
    return count


def _check_end(content: tarfile.TarFile, budget: _Budget) -> None:
    """Detect what tarfile accepts: an archive that was cut between two members, or is damaged after the last one."""
    file = content.fileobj
    assert file is not None
    # tarfile stops at a block of zeros, which a second one must follow as end mark, but also at the end or at other data.
    if file.tell() != content.offset + tarfile.BLOCKSIZE or file.read(tarfile.BLOCKSIZE).strip(b"\0"):
        raise tarfile.ReadError("no end mark")
    while chunk := file.read(_CHUNK):  # gzip and xz have their checksums at the end
        budget.spend(len(chunk))


def _write(source: IO[bytes], path: Path, size: int, budget: _Budget) -> None:
    budget.check(size)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("xb") as file:
        while chunk := source.read(_CHUNK):
            budget.spend(len(chunk))
            file.write(chunk)


@contextmanager
def _translate_member_errors(archive: Path, member: str) -> Iterator[None]:
    """Convert errors that the archive causes: repeated member names, and names that the file system does not allow."""
    try:
        yield
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        raise UserError(
            f"{archive}: '{member}' is not unique in it. Unpack it yourself and give the folder."
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


def _member_path(archive: Path, name: str, staging: Path) -> Path:
    """Return the path of a member. Backslashes count as slashes and drive letters as absolute paths on every system."""
    parts = name.replace("\\", "/").split("/")
    if parts[0] == "" or parts[0][1:2] == ":" or ".." in parts or "\0" in name:
        raise UserError(f"{archive}: '{name}' leads out of the archive; rejected")
    return staging.joinpath(*parts)


def _reject_non_archive(archive: Path) -> None:
    """Reject empty files, and web pages that a failed download leaves."""
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
def _translate_errors(archive: Path) -> Iterator[None]:
    """Convert errors about the archive as a whole to CorruptArchiveError or UserError."""
    try:
        yield
    except (*_DAMAGE_ERRORS, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # from the disk; gzip and bzip2 raise errors about damaged data without a number
        if archive.name.lower().endswith(_SUFFIXES):
            raise CorruptArchiveError(f"{archive}: cut short or damaged: download it again") from error
        raise CorruptArchiveError(f"{archive}: neither a tar (plain, gzip, bzip2, xz) nor a zip archive") from error
    except _OversizedHeaderError as error:
        raise UserError(
            f"{archive}: the name and attributes of a member take more than {_MAX_HEADER} bytes; rejected as a decompression bomb"
        ) from error
    except (NotImplementedError, RuntimeError) as error:  # a zip feature that zipfile does not support
        raise UserError(
            f"{archive}: cannot be unpacked here ({error}): unpack it yourself and give the folder"
        ) from error


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
