"""A file of rows of equal size, in blocks with one digest each, so that damaged and unfinished blocks are detected."""

import hashlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from agebench.utils.parallel import available_cores
from agebench.utils.progress import progress

_DIGEST_BYTES = hashlib.sha256().digest_size
_UNFINISHED = bytes(_DIGEST_BYTES)


def _no_extra(block: int) -> bytes:
    return b""


@dataclass(frozen=True)
class Checked:
    """Result of a check of all blocks.

    Attributes:
        pending: blocks to write, in ascending order, including the damaged ones.
        n_damaged: number of finished blocks whose content has changed.
    """

    pending: tuple[int, ...]
    n_damaged: int


@dataclass(frozen=True)
class Blocks:
    """A file of rows, and a second file with the SHA-256 of each block of rows.

    A digest is written after its rows are on the disk, so a matching digest proves that its block is complete.

    Attributes:
        file: the rows; the digests are in the file of this name with the suffix `.sha256`.
        n_rows: number of rows in the file.
        row_bytes: bytes per row.
        block_rows: rows per block; the last one may have fewer.
    """

    file: Path
    n_rows: int
    row_bytes: int
    block_rows: int

    @property
    def digests_file(self) -> Path:
        """Path of the digests, 32 bytes per block; zeros for an unfinished block."""
        return self.file.with_name(self.file.name + ".sha256")

    def __len__(self) -> int:
        return -(-self.n_rows // self.block_rows)

    def rows(self, block: int) -> range:
        """Return the rows of a block."""
        start = block * self.block_rows
        return range(start, min(start + self.block_rows, self.n_rows))

    def rows_in(self, blocks: Sequence[int]) -> list[int]:
        """Return the rows of several blocks, in order."""
        return [row for block in blocks for row in self.rows(block)]

    def check(self, extra: Callable[[int], bytes] = _no_extra, *, label: str = "") -> Checked:
        """Compare every block with its digest, and resize both files to their expected sizes.

        Args:
            extra: block -> further bytes that its digest covers.
            label: label of the progress bar.

        Raises:
            OSError: a file cannot be read or written.
        """
        size = self.n_rows * self.row_bytes
        has_rows = self.file.exists() and self.file.stat().st_size > 0
        # A file without digests is from an earlier version, or its digests are lost: its content is unverified.
        is_unverified = has_rows and not self.digests_file.exists()
        is_resized = has_rows and self.file.stat().st_size != size
        digests = self.digests_file.read_bytes() if self.digests_file.exists() else b""
        is_resized |= bool(digests) and len(digests) != len(self) * _DIGEST_BYTES
        digests = digests.ljust(len(self) * _DIGEST_BYTES, b"\0")
        recorded = [digests[start : start + _DIGEST_BYTES] for start in range(0, len(digests), _DIGEST_BYTES)]
        matches = self._matches(recorded[: len(self)], extra, label)
        pending = tuple(block for block, matched in enumerate(matches) if not matched)
        n_damaged = len(self) if is_unverified else sum(recorded[block] != _UNFINISHED for block in pending)
        if is_resized and not n_damaged and pending:
            n_damaged = len(pending)
        for path, n_bytes in ((self.digests_file, len(self) * _DIGEST_BYTES), (self.file, size)):
            with path.open("ab") as content:
                content.truncate(n_bytes)
        return Checked(pending, n_damaged)

    def write(self, block: int, content: bytes, extra: bytes = b"", *, is_finished: bool = True) -> None:
        """Write a block, then its digest.

        Args:
            block: index of the block.
            content: its rows.
            extra: further bytes that the digest covers.
            is_finished: whether the content is final; otherwise the block stays pending for the next `check`.

        Raises:
            OSError: the disk is full, or the file cannot be written; the block stays unfinished.
        """
        # pwrite instead of a memory map: on a full disk it raises, whereas a map kills the process.
        with self.file.open("r+b", buffering=0) as rows:
            _write(rows.fileno(), content, block * self.block_rows * self.row_bytes)
            os.fsync(rows.fileno())
        with self.digests_file.open("r+b", buffering=0) as digests:
            _write(digests.fileno(), _digest(content, extra) if is_finished else _UNFINISHED, block * _DIGEST_BYTES)

    def _matches(self, recorded: Sequence[bytes], extra: Callable[[int], bytes], label: str) -> list[bool]:
        if not self.file.exists() or all(digest == _UNFINISHED for digest in recorded):
            return [False] * len(self)
        with self.file.open("rb", buffering=0) as rows, ThreadPoolExecutor(available_cores()) as threads:

            def matches(block: int) -> bool:
                if recorded[block] == _UNFINISHED:
                    return False
                n_bytes = len(self.rows(block)) * self.row_bytes
                content = os.pread(rows.fileno(), n_bytes, block * self.block_rows * self.row_bytes)
                return len(content) == n_bytes and _digest(content, extra(block)) == recorded[block]

            return list(progress(threads.map(matches, range(len(self))), total=len(self), label=label, unit="block"))


def _digest(content: bytes, extra: bytes) -> bytes:
    digest = hashlib.sha256(content)
    digest.update(extra)
    return digest.digest()


def _write(descriptor: int, content: bytes, offset: int) -> None:
    view = memoryview(content)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written
