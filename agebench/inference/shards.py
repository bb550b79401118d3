"""Read the images of untrusted shards, WebDataset tars and Parquet files, in one pass and in bounded memory."""

import bz2
import gzip
import lzma
import os
import tarfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, NamedTuple, Self

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from agebench.errors import ImageRejectedError, UserError
from agebench.inference.face_extraction import MAX_BYTES
from agebench.inference.input_sources import IMAGES, PARQUET
from agebench.types import RejectReason

# Encoded images of one chunk, bytes; photographs are far smaller, so that only their number limits a chunk.
MAX_CHUNK_BYTES = 64_000_000
# Headers with long names are read into memory whole; a longer one is no name.
_MAX_HEADER_BYTES = 1 << 20
_MAX_NAME = 4_096  # characters of a member's name: thousands of rows with longer ones would fill the memory
_HEADERS = (
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
)
_OPENERS: dict[bytes, Any] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ": lzma.open}
# Names of a column of encoded images, if a Parquet file has several binary columns.
_COLUMNS = ("image", "img", "jpg", "jpeg", "png", "webp", "image_bytes", "bytes")
_PARQUET_ROWS = 16
_PARQUET_BUFFER = 1 << 20


class ShardImage(NamedTuple):
    """One image of a shard, or the reason for which it cannot be read.

    Attributes:
        name: `shard.tar/member.jpg`, or `shard.parquet/ROW` with the row's number from 0; the shard itself if the rest of it
            cannot be read.
        content: the encoded image, or the reason.
    """

    name: str
    content: bytes | ImageRejectedError


@dataclass(frozen=True)
class ImageChunk:
    """Images that are processed together, in one forward pass.

    Attributes:
        source: path of their shard; empty for image files.
        names: name of each image.
        images: path or encoded image, or the reason for which it cannot be read, as `load_image` takes them.
    """

    source: str
    names: tuple[str, ...]
    images: tuple[Any, ...]


def read_shard(path: str) -> Iterator[ShardImage]:
    """Read a shard's images in their order.

    Of a tar, members with the suffix of an image are images; a link, a sparse or a too large member is an image that cannot be
    read, any other member is skipped. Of a Parquet file, each row is an image. After damage, the images before it are followed
    by one item with the path of the shard and the reason; a shard without images is only this item.

    Args:
        path: path of the shard.

    Yields:
        The images.

    Raises:
        UserError: the shard does not exist or cannot be opened, or a Parquet file has no column of encoded images, or several.
    """
    try:
        os.close(os.open(path, os.O_RDONLY))
    except OSError as error:
        raise UserError(
            f"{path}: the shard cannot be read: {error.strerror or error}; each host needs the shards at the same path"
        ) from error
    read: Callable[[str], Iterator[ShardImage]] = _read_parquet if path.lower().endswith(PARQUET) else _read_tar
    n_images = 0
    try:
        for image in read(path):
            n_images += 1
            yield image
    except UserError:
        raise
    except (
        Exception
    ) as error:  # tarfile, zlib, lzma and pyarrow raise many types on damaged data, RecursionError included
        reason = f"the shard is cut short or damaged after {n_images:,} images ({_first_line(error)}); get it again"
        yield ShardImage(path, ImageRejectedError(reason, RejectReason.UNREADABLE))
        return
    if not n_images:
        yield ShardImage(path, ImageRejectedError("the shard holds no image", RejectReason.NO_IMAGE))


def file_chunks(paths: Iterable[str], size: int) -> Iterator[ImageChunk]:
    """Divide image files into chunks, lazily.

    Args:
        paths: paths of the images.
        size: images of a chunk; the last one may have fewer.

    Yields:
        The chunks, in order.
    """
    return _chunks("", ((path, path) for path in paths), size)


def shard_chunks(path: str, size: int) -> Iterator[ImageChunk]:
    """Divide a shard's images into chunks; their bounds depend on the shard alone.

    Args:
        path: path of the shard.
        size: images of a chunk; it has fewer if their bytes exceed `MAX_CHUNK_BYTES`, or at the end.

    Yields:
        The chunks, in order; at least one.

    Raises:
        UserError: see `read_shard`.
    """
    return _chunks(path, read_shard(path), size)


def _chunks(source: str, images: Iterable[tuple[str, Any]], size: int) -> Iterator[ImageChunk]:
    chunk: list[tuple[str, Any]] = []
    n_bytes = 0
    for name, image in images:
        chunk.append((name, image))
        n_bytes += len(image) if isinstance(image, bytes) else 0
        if len(chunk) == size or n_bytes > MAX_CHUNK_BYTES:
            yield _chunk(source, chunk)
            chunk, n_bytes = [], 0
    if chunk:
        yield _chunk(source, chunk)


def _chunk(source: str, images: list[tuple[str, Any]]) -> ImageChunk:
    names, contents = zip(*images, strict=True)
    return ImageChunk(source, names, contents)


class _Member(tarfile.TarInfo):
    """A member whose headers are short: `tarfile` reads long names into memory whole, which a compressed tar could abuse."""

    def _proc_member(self, tar: tarfile.TarFile) -> Self:
        if self.type in _HEADERS and self.size > _MAX_HEADER_BYTES:
            raise tarfile.ReadError(f"a header of {self.size:,} bytes")
        if self.type == tarfile.GNUTYPE_SPARSE:
            raise tarfile.ReadError("a sparse member")
        return super()._proc_member(tar)  # type: ignore[misc, no-any-return]

    def _proc_pax(self, tar: Any) -> Any:
        """Read path and size only: `tarfile` before Python 3.11.10 takes quadratic time, and keeps all global headers."""
        this: Any = self  # typeshed lists no methods that tarfile keeps for itself
        content = tar.fileobj.read(this._block(self.size))[: self.size]
        fields, start = {}, 0
        while start < len(content):
            length = int(content[start : start + 8].split(b" ")[0])  # a ValueError is damage, too
            key, equals, value = content[start : start + max(length, 0)].partition(b" ")[2].partition(b"=")
            if not equals:
                raise tarfile.ReadError("an unreadable header")
            fields[key.decode("utf-8", "replace")] = value[:-1].decode("utf-8", "surrogateescape")
            start += length
        member: Any = self.fromtarfile(tar)
        if self.type != tarfile.XGLTYPE:
            if any(key.startswith("GNU.sparse.") for key in fields):
                member.sparse = b""
            member._apply_pax_info({key: fields[key] for key in ("path", "size") if key in fields}, "utf-8", "replace")
            if "size" in fields:
                tar.offset = member.offset_data + (member._block(member.size) if member.isreg() else 0)
        return member


def _read_tar(path: str) -> Iterator[ShardImage]:
    # `tarfile` decompresses whole blocks (10 kB of bzip2 may be 10 GB), and only the first stream of pbzip2 and bgzip.
    with open(path, "rb") as file:
        start = file.read(6)
    opener = next((opener for magic, opener in _OPENERS.items() if start.startswith(magic)), open)
    with opener(path, "rb") as file, tarfile.open(fileobj=file, mode="r|", tarinfo=_Member) as tar:
        stream: Any = tar.fileobj
        while (member := tar.next()) is not None:
            tar.members.clear()  # type: ignore[attr-defined]  # tarfile keeps all of them
            name = PurePosixPath(member.name)
            if name.suffix.lower() in IMAGES and not name.name.startswith(".") and not member.isdir():
                yield _member_image(path, tar, member)
            while (left := tar.offset - stream.tell()) > 0:  # tarfile's seek goes on at the end of the file
                if not stream.read(min(left, tarfile.RECORDSIZE)):
                    raise tarfile.ReadError("unexpected end of data")
        # tarfile takes any block that is no header for the end; the end is two blocks of zeros.
        if stream.tell() != tar.offset + tarfile.BLOCKSIZE or stream.read(tarfile.BLOCKSIZE).strip(b"\0"):
            raise tarfile.ReadError("no end mark")


def _member_image(path: str, tar: tarfile.TarFile, member: tarfile.TarInfo) -> ShardImage:
    if len(member.name) > _MAX_NAME:
        reason = ImageRejectedError(f"a name of {len(member.name):,} characters", RejectReason.UNREADABLE)
        return ShardImage(f"{path}/{member.name[:100]}…", reason)
    return ShardImage(f"{path}/{member.name}", _member_content(tar, member))


def _member_content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes | ImageRejectedError:
    if not member.isreg() or member.issparse():
        return ImageRejectedError("a link or a special file, not an image", RejectReason.UNREADABLE)
    if member.size > MAX_BYTES:
        return _too_large()
    file = tar.extractfile(member)
    assert file is not None
    return file.read()


def _too_large() -> ImageRejectedError:
    return ImageRejectedError(f"larger than the {MAX_BYTES // 1_000_000} MB allowed", RejectReason.IMAGE_TOO_LARGE)


def _read_parquet(path: str) -> Iterator[ShardImage]:
    with pq.ParquetFile(path, buffer_size=_PARQUET_BUFFER) as file:
        column = _image_column(path, file.schema_arrow)
    # Equal cells stay one: a small file may hold the same large cell thousands of times.
    with pq.ParquetFile(path, buffer_size=_PARQUET_BUFFER, read_dictionary=[column]) as file:
        row = 0
        # By row group: Arrow joins no dictionaries of structs.
        for batch in (batch for group in range(file.num_row_groups) for batch in _batches(file, group, column)):
            values = batch.column(0)
            if pa.types.is_struct(values.type):
                values = pc.struct_field(values, "bytes")
            for cell in values:
                yield ShardImage(
                    f"{path}/{row}", _cell_content(cell.value if pa.types.is_dictionary(values.type) else cell)
                )
                row += 1


def check_shard(path: str) -> None:
    """Check that a local Parquet shard has a column of images; of other shards, nothing is read.

    Args:
        path: path or URL of the shard.

    Raises:
        UserError: it has none, or several.
    """
    if path.endswith(".parquet") and os.path.isfile(path):
        with suppress(pa.ArrowException, OSError):  # of a damaged shard its row states the reason
            _image_column(path, pq.read_schema(path))


def _batches(file: Any, group: int, column: str) -> Iterator[Any]:
    batches: Iterator[Any] = file.iter_batches(_PARQUET_ROWS, row_groups=[group], columns=[column], use_threads=False)
    return batches


def _cell_content(value: Any) -> bytes | ImageRejectedError:
    if not value.is_valid:
        return ImageRejectedError("a row without the bytes of an image", RejectReason.NO_IMAGE)
    if value.as_buffer().size > MAX_BYTES:
        return _too_large()
    return bytes(value.as_py())


def _image_column(path: str, schema: Any) -> str:
    """Return the name of the column of encoded images, for a struct that of its field `bytes`."""

    def is_binary(kind: Any) -> bool:
        return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))

    structs = [
        field.name
        for field in schema
        if pa.types.is_struct(field.type)
        and field.type.get_field_index("bytes") >= 0
        and is_binary(field.type.field("bytes").type)
    ]
    candidates = structs or [field.name for field in schema if is_binary(field.type)]
    columns = candidates if len(candidates) == 1 else [name for name in candidates if name.lower() in _COLUMNS]
    if len(columns) != 1:
        problem = (
            f"several columns of images ({', '.join(candidates)})" if candidates else "no column of encoded images"
        )
        raise UserError(
            f"{path}: {problem} among {', '.join(schema.names)}. A column of images is binary, or a struct with the field "
            "'bytes'; if there are several, one of them must be named 'image'"
        )
    return f"{columns[0]}.bytes" if structs else columns[0]


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
