"""What `agebench predict` was given: images, folders, globs, videos, cameras, or paths on standard input."""

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
    """A stretch of the input: some images, or one video or camera.

    Attributes:
        kind: which.
        paths: of the images, or the one video's; `camera:0` for a camera.
        count: how many paths there are; None where that is not known before they are read.
    """

    kind: Literal["images", "video"]
    paths: Iterable[str]
    count: int | None


def expand_inputs(words: Sequence[str], lines: Iterable[str]) -> list[InputItem]:
    """The parts of the input, in the order in which they were named. Folders are searched in alphabetical order, to the bottom.

    Args:
        words: paths, globs, `camera:N`, or `-` for `lines`.
        lines: one path each, read as they are asked for.

    Raises:
        UserError: something is not there, a folder holds no image, a glob fits nothing.
    """
    parts: list[InputItem] = []
    named: list[str] = []

    def close() -> None:
        if named:
            parts.append(InputItem("images", tuple(named), len(named)))
            named.clear()

    for word in words:
        if word == STDIN:
            close()
            parts.append(InputItem("images", _listed(lines), None))
            continue
        for path in _found(word):
            if is_video(path):
                close()
                parts.append(InputItem("video", (path,), 1))
            else:
                named.append(path)
    close()
    return parts


def is_video(path: str) -> bool:
    """Whether this names a video or a camera: by its ending, nothing is opened."""
    return camera_number(path) is not None or Path(path).suffix.lower() in VIDEOS


def camera_number(word: str) -> int | None:
    """N of `camera:N`, else None."""
    match = _CAMERA.fullmatch(word)
    return int(match[1]) if match else None


def _found(word: str) -> list[str]:
    if camera_number(word) is not None:
        return [word]
    if os.path.isdir(word):
        inside = list(_images_in(word))
        if not inside:
            raise UserError(f"{word}: this folder holds no image, nor do those in it ({', '.join(sorted(IMAGES))})")
        return inside
    if os.path.exists(word):
        return [word]
    if glob.has_magic(word):
        fitting = sorted(path for path in glob.iglob(word, recursive=True) if os.path.isfile(path))
        if not fitting:
            raise UserError(f"{word}: no file fits this pattern")
        return fitting
    hint = "; a camera is written camera:0, camera:1, …" if word.startswith("camera") else ""
    raise UserError(f"{word}: no such file or folder{hint}")


def _images_in(folder: str) -> Iterator[str]:
    for place, inside, files in os.walk(folder):
        inside.sort()
        for name in sorted(files):
            if not name.startswith(".") and Path(name).suffix.lower() in IMAGES:
                yield os.path.join(place, name)


def _listed(lines: Iterable[str]) -> Iterator[str]:
    some = False
    for line in lines:
        if path := line.rstrip("\r\n"):
            some = True
            yield path
    if not some:
        raise UserError("standard input holds no path; it takes one a line")
