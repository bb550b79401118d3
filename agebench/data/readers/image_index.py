"""Images that the lines of a list and the rows of a further table name."""

import posixpath
from collections.abc import Container, Iterable, Sequence
from typing import TypeVar

import pandas as pd

from agebench.data.readers.base import normalize_path
from agebench.data.readers.table_io import Table
from agebench.errors import UserError

Item = TypeVar("Item")


class ImageIndex:
    """Index of images by path, and by file name with or without suffix.

    Args:
        paths: unique paths of the images.
        top: folder that contains all files of the dataset, with a trailing slash.
    """

    def __init__(self, paths: Sequence[str], top: str) -> None:
        self.paths = list(paths)
        self._by_path = {path: row for row, path in enumerate(self.paths)}
        self._by_path |= {path.removeprefix(top): row for path, row in list(self._by_path.items())}
        self._spellings = [_spellings(path, top) for path in self.paths]
        # By file name, and by file name and folder: in some datasets each person's folder has images of the same names.
        self._by_name: dict[str, list[int]] = {}
        self._by_tail: dict[str, list[int]] = {}
        for row, spellings in enumerate(self._spellings):
            for name in {_tail(text, 1) for text in spellings}:
                self._by_name.setdefault(name, []).append(row)
            for tail in {_tail(text, 2) for text in spellings}:
                self._by_tail.setdefault(tail, []).append(row)

    def find(self, entry: str) -> list[int]:
        """Find the images that a line of a list or a cell of a table names.

        Images are matched by path, then by file name with or without suffix. An entry with folders only matches an image
        if one of the two paths ends like the other.

        Args:
            entry: a path or file name.

        Returns:
            Rows of the images in `paths`.
        """
        if entry in self._by_path:
            return [self._by_path[entry]]
        if "/" not in entry:
            return self._by_name.get(entry, [])
        rows = self._by_tail.get(_tail(entry, 2), [])
        longer = [row for row in rows if any(f"/{text}".endswith(f"/{entry}") for text in self._spellings[row])]
        if longer:
            return longer
        rows = [*rows, *self._by_tail.get(_tail(entry, 1), [])]  # the latter are in no folder
        lengths = {
            row: max(len(text) if f"/{entry}".endswith(f"/{text}") else 0 for text in self._spellings[row])
            for row in rows
        }
        longest = max(lengths.values(), default=0)
        return [row for row, length in lengths.items() if length == longest > 0]

    def find_one(self, entry: str, *, source: str, advice: str, among: Container[str] | None = None) -> int | None:
        """Find the image that a line of a list or a cell of a table names.

        Args:
            entry: a path or file name.
            source: name of the list or table in error messages.
            advice: how to name the folder on the card, for error messages.
            among: paths of the images that count; None for all.

        Returns:
            Row of the image in `paths`; None if no image matches.

        Raises:
            UserError: the entry matches several images.
        """
        matches = [row for row in self.find(entry) if among is None or self.paths[row] in among]
        if len(matches) > 1:
            raise UserError(
                f"{source}: '{entry}' may be {self.paths[matches[0]]} or {self.paths[matches[1]]}. Add the folder, {advice}"
            )
        return matches[0] if matches else None


def _spellings(path: str, top: str) -> set[str]:
    """Return a path with and without its suffix, and with and without the top folder."""
    return {text for full in (path, path.removeprefix(top)) for text in (full, posixpath.splitext(full)[0])}


def _tail(path: str, count: int) -> str:
    """Return the last parts of a path."""
    return "/".join(path.rsplit("/", count)[-count:])


def find_listed_image(index: ImageIndex, entries: Sequence[str], images: str, *, source: str) -> int | None:
    """Find the image of the first of several readings of a line that names one; None if none does."""
    advice = 'in the list or, for all of its lines, on the card: { file = "…", images = "…" }'
    for entry in entries:
        row = index.find_one(posixpath.join(images, entry.removeprefix("./")), source=source, advice=advice)
        if row is not None:
            return row
    return None


def find_table_images(
    paths: "pd.Series[str]", rejected_paths: list[str], top: str, content: pd.DataFrame, table: Table, *, source: str
) -> dict[str, str]:
    """Find the image that each path of a further table names, by file name.

    Where several images or several paths of the table have the same file name, the folders decide: labels must not
    reach an image of the same name in another folder. A single image of its name may be in any folder.

    Args:
        paths: paths of the images.
        rejected_paths: paths of rejected images, which get no labels.
        top: folder that contains the images and the table, with a trailing slash.
        content: the table, with `path` and `given`.
        table: its description.
        source: name of the table in error messages.

    Returns:
        Path in the table -> path of the image.

    Raises:
        UserError: a path of the table matches several images.
    """
    usable = dict.fromkeys(paths)
    index = ImageIndex([*dict.fromkeys([*usable, *rejected_paths])], top)
    entries = content[["path", "given"]].drop_duplicates("path")
    entries_by_key = _group(image_key(entries["path"], table.by), entries.itertuples(index=False, name=None))
    all_paths = pd.Series(index.paths, dtype="str")
    images_by_key = _group(image_key(all_paths, table.by), index.paths)
    image_by_path: dict[str, str] = {}
    for key, named in entries_by_key.items():
        images = images_by_key.get(key, [])
        found: dict[str, str | None] = {}
        if images and len(images) + len(named) > 2:
            found = {path: _find_image(index, path, given, usable, table, source=source) for path, given in named}
        if len(images) == 1 and not any(found.values()):
            found = {path: images[0] for path, _ in named}
        image_by_path |= {path: image for path, image in found.items() if image is not None and image in usable}
    return image_by_path


def _find_image(
    index: ImageIndex, path: str, given: str, usable: Container[str], table: Table, *, source: str
) -> str | None:
    """Find the image that a path of a further table names: by the whole path, else by the path as it is written there."""
    if path in usable:
        return path
    entry = normalize_path(posixpath.join(table.images, given.replace("\\", "/")))
    row = index.find_one(
        posixpath.splitext(entry)[0] if table.by == "stem" else entry,
        source=source,
        advice='in the table or, for all of its rows, on the card: options.tables.images = "…"',
        among=usable,
    )
    return None if row is None else index.paths[row]


def image_key(paths: "pd.Series[str]", by: str) -> "pd.Series[str]":
    """Return the part of each path by which a table is joined: the path, the file's name, or its name without suffix."""
    if by == "path":
        return paths
    names = paths.str.rpartition("/")[2]
    return names.str.replace(r"\.[^.]*$", "", regex=True) if by == "stem" else names


def _group(keys: Iterable[str], items: Iterable[Item]) -> dict[str, list[Item]]:
    groups: dict[str, list[Item]] = {}
    for key, item in zip(keys, items, strict=True):
        groups.setdefault(key, []).append(item)
    return groups
