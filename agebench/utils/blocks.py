"""Rows of equal size in one file, in blocks with a digest each: a damaged or unfinished block is known as such."""

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


def _nothing(block: int) -> bytes:
    return b""


@dataclass(frozen=True)
class Checked:
    """What a check of all blocks found.

    Attributes:
        pending: the blocks that have to be made, in rising order; damaged ones are among them.
        n_damaged: blocks that were finished once and no longer are as they were written.
    """

    pending: tuple[int, ...]
    n_damaged: int


@dataclass(frozen=True)
class Blocks:
    """A file of rows, and beside it a file with the SHA-256 of each block of rows.

    A digest is written after its rows are on the disk, so a digest that fits proves its block, whatever happened before.

    Attributes:
        file: the rows; the digests are in the file of the same name that ends in `.sha256`.
        n_rows: rows in the file.
        row_bytes: bytes of each.
        block_rows: rows of a block; the last one may have fewer.
    """

    file: Path
    n_rows: int
    row_bytes: int
    block_rows: int

    @property
    def digests_file(self) -> Path:
        """The digests, 32 bytes a block; zeros where a block is not finished."""
        return self.file.with_name(self.file.name + ".sha256")

    def __len__(self) -> int:
        return -(-self.n_rows // self.block_rows)

    def rows(self, block: int) -> range:
        """The rows of one block."""
        start = block * self.block_rows
        return range(start, min(start + self.block_rows, self.n_rows))

    def rows_in(self, blocks: Sequence[int]) -> list[int]:
        """The rows of several blocks, in their order."""
        return [row for block in blocks for row in self.rows(block)]

    def check(self, extra: Callable[[int], bytes] = _nothing, *, label: str = "") -> Checked:
        """Compare every block with its digest, and bring both files to their right sizes.

        Args:
            extra: block -> what else its digest covers.
            label: for the progress bar.

        Raises:
            OSError: a file cannot be read or written.
        """
        size = self.n_rows * self.row_bytes
        has_rows = self.file.exists() and self.file.stat().st_size > 0
        # A file without digests is of an earlier version, or its digests are lost: nothing proves it.
        is_unproven = has_rows and not self.digests_file.exists()
        is_resized = has_rows and self.file.stat().st_size != size
        digests = self.digests_file.read_bytes() if self.digests_file.exists() else b""
        is_resized |= bool(digests) and len(digests) != len(self) * _DIGEST_BYTES
        digests = digests.ljust(len(self) * _DIGEST_BYTES, b"\0")
        recorded = [digests[start : start + _DIGEST_BYTES] for start in range(0, len(digests), _DIGEST_BYTES)]
        matches = self._matches(recorded[: len(self)], extra, label)
        pending = tuple(block for block, matched in enumerate(matches) if not matched)
        n_damaged = len(self) if is_unproven else sum(recorded[block] != _UNFINISHED for block in pending)
        if is_resized and not n_damaged and pending:
            n_damaged = len(pending)
        for path, wanted in ((self.digests_file, len(self) * _DIGEST_BYTES), (self.file, size)):
            with path.open("ab") as content:
                content.truncate(wanted)
        return Checked(pending, n_damaged)

    def write(self, block: int, content: bytes, extra: bytes = b"") -> None:
        """Write a block, then its digest.

        Raises:
            OSError: the disk is full, or the file cannot be written; the block stays unfinished.
        """
        # pwrite, not a memory map: on a full disk it raises, where the map would kill the process.
        with self.file.open("r+b", buffering=0) as rows:
            _write(rows.fileno(), content, block * self.block_rows * self.row_bytes)
            os.fsync(rows.fileno())
        with self.digests_file.open("r+b", buffering=0) as digests:
            _write(digests.fileno(), _digest(content, extra), block * _DIGEST_BYTES)

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
