"""Expand the inputs of `agebench predict`: images, folders, globs, videos, cameras, paths on standard input."""

import glob
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from agebench.errors import UserError

IMAGES = frozenset({".jpg", ".jpeg", ".jpe", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".pgm"})
VIDEOS = frozenset(
    {".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".wmv", ".flv", ".3gp", ".mts", ".m2ts", ".ogv"}
)
STDIN = "-"
_CAMERA = re.compile(r"camera:(\d+)")


@dataclass(frozen=True)
class InputItem:
    """Successive images of the input, or one video or camera.

    Attributes:
        kind: `images` or `video`.
        paths: paths of the images, or of the one video; `camera:0` for a camera.
        count: number of paths; None if it is not known before they are read.
    """

    kind: Literal["images", "video"]
    paths: Iterable[str]
    count: int | None


def expand_inputs(words: Sequence[str], lines: Iterable[str]) -> list[InputItem]:
    """Expand inputs in their order. Folders are searched recursively, in alphabetical order.

    Args:
        words: paths, globs, `camera:N`, or `-` for `lines`.
        lines: lines with one path each, read lazily.

    Raises:
        UserError: a path does not exist, a folder holds no image, or no file matches a glob.
    """
    items: list[InputItem] = []
    image_paths: list[str] = []

    def close() -> None:
        if image_paths:
            items.append(InputItem("images", tuple(image_paths), len(image_paths)))
            image_paths.clear()

    for word in words:
        if word == STDIN:
            close()
            items.append(InputItem("images", _paths_of(lines), None))
            continue
        for path in _expand(word):
            if _is_video(path):
                close()
                items.append(InputItem("video", (path,), 1))
            else:
                image_paths.append(path)
    close()
    return items


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


def _expand(word: str) -> list[str]:
    if camera_number(word) is not None:
        return [word]
    if os.path.isdir(word):
        images = list(_images_in(word))
        if not images:
            raise UserError(f"{word}: this folder holds no image, nor do those in it ({', '.join(sorted(IMAGES))})")
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


def _images_in(folder: str) -> Iterator[str]:
    for directory, subdirectories, files in os.walk(folder):
        subdirectories.sort()
        for name in sorted(files):
            if not name.startswith(".") and Path(name).suffix.lower() in IMAGES:
                yield os.path.join(directory, name)


def _paths_of(lines: Iterable[str]) -> Iterator[str]:
    is_empty = True
    for line in lines:
        if path := line.rstrip("\r\n"):
            is_empty = False
            yield path
    if is_empty:
        raise UserError("standard input holds no path; it takes one per line")
