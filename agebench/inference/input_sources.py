"""Expand the inputs of `agebench predict`: images, folders, globs, shards, videos, cameras, paths on standard input."""

import glob
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from agebench.errors import UserError

IMAGES = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".pgm"})
# Images that are not read here, by suffix: other formats, and the raw formats of cameras. A folder's are counted.
_OTHER_IMAGES = frozenset(
    {".heic", ".heif", ".hif", ".avif", ".jp2", ".j2k", ".jpx", ".jpf", ".jxl", ".jxr", ".psd", ".tga", ".mpo", ".apng"}
    | {".dng", ".cr2", ".cr3", ".crw", ".nef", ".nrw", ".arw", ".sr2", ".srf", ".orf", ".rw2", ".rwl", ".raf", ".pef"}
    | {".srw", ".3fr", ".iiq", ".x3f", ".raw"}
)
VIDEOS = frozenset(
    {".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".wmv", ".flv", ".3gp", ".mts", ".m2ts", ".ogv"}
)
PARQUET = ".parquet"
SHARDS = (PARQUET, ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
STDIN = "-"
_CAMERA = re.compile(r"camera:(\d+)")


@dataclass(frozen=True)
class InputItem:
    """Successive images or shards of the input, or one video or camera.

    Attributes:
        kind: `images`, `shards` or `video`.
        paths: paths of the images or shards, or of the one video; `camera:0` for a camera.
        count: number of images; None if it is not known before they are read.
    """

    kind: Literal["images", "shards", "video"]
    paths: Iterable[str]
    count: int | None


def expand_inputs(words: Sequence[str], lines: Iterable[str], left_out: Counter[str] | None = None) -> list[InputItem]:
    """Expand inputs in their order. Folders are searched for images recursively, in alphabetical order.

    Args:
        words: paths, globs, `camera:N`, or `-` for `lines`.
        lines: lines with one path each, read lazily.
        left_out: suffix -> number of files in folders that are images of a format that is not read here; added to.

    Raises:
        UserError: a path does not exist, a folder holds no image, or no file matches a glob.
    """
    items: list[InputItem] = []
    left_out = Counter() if left_out is None else left_out
    paths: list[str] = []
    kind: Literal["images", "shards"] = "images"

    def close() -> None:
        if paths:
            items.append(InputItem(kind, tuple(paths), len(paths) if kind == "images" else None))
            paths.clear()

    for word in words:
        if word == STDIN:
            close()
            items.append(InputItem("images", _paths_of(lines), None))
            continue
        for path in _expand(word, left_out):
            if _is_video(path):
                close()
                items.append(InputItem("video", (path,), 1))
                continue
            if is_shard(path) != (kind == "shards"):
                close()
                kind = "shards" if is_shard(path) else "images"
            paths.append(path)
    close()
    return items


def refuse_videos(items: Iterable[InputItem]) -> None:
    """Check that no input is a video or a camera, which a cluster does not predict.

    Args:
        items: the inputs.

    Raises:
        UserError: an input is.
    """
    for item in items:
        if item.kind == "video":
            raise UserError(
                f"{next(iter(item.paths))}: a video is one sequence of frames; predict videos with --executor local"
            )


def is_shard(path: str) -> bool:
    """Return whether a path is a tar or Parquet file of images, by its suffix.

    Args:
        path: the path.
    """
    return path.lower().endswith(SHARDS)


def _is_video(path: str) -> bool:
    """Return whether a path is a video or a camera, by its suffix.

    Args:
        path: a path, or `camera:N`.
    """
    return camera_number(path) is not None or Path(path).suffix.lower() in VIDEOS


def camera_number(word: str) -> int | None:
    """Return N of `camera:N`, else None.

    Args:
        word: an input.
    """
    match = _CAMERA.fullmatch(word)
    return int(match[1]) if match else None


def describe_left_out(left_out: Mapping[str, int]) -> str:
    """Describe how many images of a folder are not read, e.g. `3 images of formats that are not read here: 2 .heic, 1 .dng`.

    Args:
        left_out: suffix -> number of files; at least one.
    """
    total = sum(left_out.values())
    counts = ", ".join(f"{count:,} {suffix}" for suffix, count in sorted(left_out.items()))
    return f"{total:,} image{'s' * (total != 1)} of formats that are not read here: {counts}"


def _expand(word: str, left_out: Counter[str]) -> list[str]:
    if camera_number(word) is not None:
        return [word]
    if os.path.isdir(word):
        others: Counter[str] = Counter()
        images = list(_images_in(word, others))
        left_out.update(others)
        if not images:
            hint = f"; shards are inputs of their own: '{os.path.join(word, '*.tar')}'" if _holds_shard(word) else ""
            if others:
                hint += f"; it holds {describe_left_out(others)}; convert them to JPEG"
            raise UserError(
                f"{word}: this folder holds no image, nor do those in it ({', '.join(sorted(IMAGES))}){hint}"
            )
        return images
    if os.path.exists(word):
        return [word]
    if glob.has_magic(word):
        matches = sorted(path for path in glob.iglob(word, recursive=True) if os.path.isfile(path))
        if not matches:
            raise UserError(f"{word}: no file matches this pattern")
        return matches
    hint = "; a camera is written camera:0, camera:1, …" if word.startswith("camera") else ""
    raise UserError(f"{word}: no such file or folder{hint}")


def _images_in(folder: str, others: Counter[str]) -> Iterator[str]:
    """Yield the paths of a folder's images, and count those of other formats by suffix in `others`.

    Linked folders in it are left out, because they may lead back.

    Raises:
        UserError: a folder in it cannot be read.
    """

    def refuse(error: OSError) -> None:
        raise UserError(
            f"{error.filename}: this folder cannot be read ({error.strerror}); make it readable, or name the folders that are"
        ) from None

    for directory, subdirectories, files in os.walk(folder, onerror=refuse):
        subdirectories.sort()
        for name in sorted(files):
            suffix = Path(name).suffix.lower()
            if name.startswith("."):
                continue
            if suffix in IMAGES:
                yield os.path.join(directory, name)
            elif suffix in _OTHER_IMAGES:
                others[suffix] += 1


def _holds_shard(folder: str) -> bool:
    return any(is_shard(name) for name in os.listdir(folder))


def _paths_of(lines: Iterable[str]) -> Iterator[str]:
    is_empty = True
    for line in lines:
        if path := line.rstrip("\r\n"):
            is_empty = False
            yield path
    if is_empty:
        raise UserError("standard input holds no path; it takes one per line")
