"""Helpers for readers: safe listing of a folder, and conversion of a table of labels to Samples."""

import os
import posixpath
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from agebench.data.readers.age_parsing import is_date
from agebench.data.samples import PHOTOGRAPH, Rejected, Samples, rejected_rows, validate_samples
from agebench.errors import UserError
from agebench.types import RejectReason
from agebench.utils.table_cells import UNKNOWN, as_numbers

# Paths that `posixpath.normpath` may change, which takes ten times as long as this search; a colon may be a drive of Windows.
_UNNORMALIZED = re.compile(r"(?:^|/)\.{0,2}(?:/|$)|[:\\]")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")


def walk_files(root: Path) -> tuple[list[str], list[str]]:
    """List the files below a folder, and the links that lead out of it.

    Hidden files and folders and `__MACOSX` are ignored. Links to folders are not followed; a link to a file counts as a
    file if the file is within `root`.

    Args:
        root: the folder.

    Returns:
        Files and outward links, as sorted relative paths with forward slashes.

    Raises:
        UserError: the folder does not exist or cannot be read.
    """
    home = os.path.realpath(root)
    files: list[str] = []
    outward_links: list[str] = []
    folders = [""]
    try:
        while folders:
            folder = folders.pop()
            with os.scandir(os.path.join(home, folder)) as entries:
                for entry in entries:
                    if entry.name.startswith(".") or entry.name == "__MACOSX":
                        continue
                    path = folder + entry.name
                    if entry.is_symlink():
                        if not is_within(home, entry.path):
                            outward_links.append(path)
                        elif entry.is_file():
                            files.append(path)
                    elif entry.is_dir():
                        folders.append(path + "/")
                    elif entry.is_file():
                        files.append(path)
    except OSError as error:
        raise UserError(f"{error.filename or root}: cannot be listed: {error.strerror or error}") from error
    return sorted(files), sorted(outward_links)


def list_images(root: Path | None) -> tuple[list[str], list[Rejected]]:
    """List the images below a folder, by their suffix.

    Args:
        root: the folder.

    Returns:
        Paths of the images, and the rejected ones: links out of the folder, and names that are not UTF-8.

    Raises:
        UserError: the folder does not exist, is an archive, or contains no image.
    """
    if root is None or not root.is_dir():
        raise UserError(f"{root}: not a folder; an archive is imported with `agebench data import NAME {root}`")
    files, outward_links = walk_files(root)
    images: list[str] = []
    rejected: list[Rejected] = []
    for path in filter(is_image, files):
        if _is_unicode(path):
            images.append(path)
        else:
            name = path.encode("utf-8", "replace").decode()
            rejected.append(Rejected(name, name, RejectReason.NOT_UTF8_NAME, "its name is not UTF-8"))
    reason = "a link that leads out of the dataset's folder"
    rejected += [Rejected(path, path, RejectReason.OUTSIDE_FOLDER, reason) for path in outward_links if is_image(path)]
    if not images and not rejected:
        raise UserError(f"{root}: no image in it (looked for {', '.join(IMAGE_SUFFIXES)})")
    return images, rejected


def _is_unicode(path: str) -> bool:
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def is_image(path: str) -> bool:
    """Return whether the file name has the suffix of an image."""
    return path.lower().endswith(IMAGE_SUFFIXES)


def is_within(root: str, path: str) -> bool:
    """Return whether a path exists within a folder after its links are resolved.

    Args:
        root: absolute path of the folder, without links.
        path: the path to check.
    """
    real = os.path.realpath(path)
    return os.path.exists(real) and os.path.commonpath([root, real]) == root


class PathFault(NamedTuple):
    """Why a path of a table cannot be used.

    Attributes:
        code: the reason as a code.
        reason: the reason as a sentence.
    """

    code: RejectReason
    reason: str


class _Folder(NamedTuple):
    """A folder that paths of a table lead to.

    Attributes:
        is_within: whether it is within the dataset's folder after its links are resolved.
        files: names of its files, without links.
    """

    is_within: bool
    files: frozenset[str]


def is_normalized(path: str) -> bool:
    """Return whether `posixpath.normpath` would leave a relative path as it is.

    False for some that it would leave, such as those with a colon.
    """
    return _UNNORMALIZED.search(path) is None


def normalize_path(path: str) -> str:
    """Return `posixpath.normpath` of a path, faster for normalized ones."""
    return path if is_normalized(path) else posixpath.normpath(path)


def check_paths(
    root: Path, base: str, paths: list[str], originals: list[str] | None = None
) -> tuple[list[PathFault | None], list[str]]:
    """Check that the paths of a table are files within the dataset's folder.

    Args:
        root: the dataset's folder.
        base: the folder in `root` that the paths start from.
        paths: paths from the table.
        originals: the paths as written in the source, for messages; None for `paths`.

    Returns:
        For each path, why it cannot be used (or None), and the path relative to `root`.
    """
    home = os.path.realpath(root)
    folders: dict[str, _Folder] = {}  # folders are listed, and their links resolved, once rather than for every file
    faults: list[PathFault | None] = []
    checked_paths = []
    for path, original in zip(paths, originals or paths, strict=True):
        text = path.replace("\\", "/")
        relative = text
        if base or not is_normalized(text):
            relative = os.path.normpath(os.path.join(base, text)).replace(os.sep, "/")
        name_start = relative.rfind("/") + 1
        folder_name, name = relative[:name_start], relative[name_start:]
        if folder_name not in folders:
            folders[folder_name] = _list_folder(home, folder_name)
        folder = folders[folder_name]
        if text and name in folder.files:
            faults.append(None)
            checked_paths.append(relative)
            continue
        full = os.path.join(home, relative)
        fault = None
        if not text:
            fault = PathFault(RejectReason.NO_IMAGE, "its path is empty")
        elif os.path.isabs(relative) or relative.startswith("../"):
            fault = PathFault(RejectReason.OUTSIDE_FOLDER, f"its path '{original}' leads out of the dataset's folder")
        elif not os.path.isfile(full):
            fault = PathFault(RejectReason.MISSING_FILE, f"no file '{relative}'")
        elif not folder.is_within or (os.path.islink(full) and not is_within(home, full)):
            reason = f"its path '{original}' is a link that leads out of the dataset's folder"
            fault = PathFault(RejectReason.OUTSIDE_FOLDER, reason)
        faults.append(fault)
        checked_paths.append(relative if fault is None else original.replace("\\", "/"))
    return faults, checked_paths


def _list_folder(home: str, name: str) -> _Folder:
    """List a folder of the dataset.

    Args:
        home: absolute path of the dataset's folder, without links.
        name: the folder, relative to `home`, with a trailing slash unless it is empty. An absolute one, or one that starts
            with `..`, is none of the dataset's even if it leads there.
    """
    if os.path.isabs(name) or name.startswith("../"):
        return _Folder(False, frozenset())
    path, is_inside, files = os.path.join(home, name), False, frozenset[str]()
    with suppress(OSError, ValueError):  # no folder, one that may not be listed, or a name that no folder can have
        is_inside = is_within(home, path)
        if is_inside:
            with os.scandir(path) as entries:
                files = frozenset(entry.name for entry in entries if entry.is_file(follow_symlinks=False))
    return _Folder(is_inside, files)


def top_folder(files: Sequence[str]) -> str:
    """Return the deepest folder that contains all files.

    It ends in a slash, and is empty for the root.

    Archives usually have one top folder and extracted copies usually lack it; names relative to this folder are the same
    in both.

    Args:
        files: relative paths.
    """
    folders = {path.rpartition("/")[0] for path in files}
    common = os.path.commonpath(folders) if folders else ""
    return common and common + "/"


def to_samples(
    table: pd.DataFrame,
    rejected: Sequence[Rejected | tuple[str, str, str]],
    groups: tuple[str, ...],
    *,
    source: str,
    own_ids: bool = False,
) -> Samples:
    """Convert labels to Samples.

    Args:
        table: `sample_id`, `path`, `age` and further labels. Rows with an age that is not a number, and rows with a repeated
            sample_id, are rejected. Rows of one image with different labels are all rejected.
        rejected: rows that the reader rejected.
        groups: columns for subgroup metrics from the card; `table` must contain them.
        source: name of the dataset's folder or file in error messages.
        own_ids: whether the source names its rows, so that several of them may show one image.

    Raises:
        UserError: no row is usable, or a group is not a column of the labels.
    """
    missing = [group for group in groups if group not in table]
    if missing:
        raise UserError(f"{source}: the card's groups name '{missing[0]}', but the labels have no such column")
    table = table.assign(written=table["age"], age=as_numbers(table["age"])).reset_index(drop=True)
    has_no_age = table["age"].isna()
    rejected_ages = [
        _reject_age(name, path, age)
        for name, path, age in table.loc[has_no_age, ["sample_id", "path", "written"]].itertuples(index=False)
    ]
    table = table[~has_no_age].drop(columns="written")
    usable, repeated = _drop_repeats(table, ["sample_id", "path"] if own_ids else ["path"])
    rejected_table = rejected_rows([*rejected, *rejected_ages, *repeated])
    if len(usable):
        samples = validate_samples(usable, groups=groups, rejected=rejected_table, source=source)
        if len(samples):
            return samples
        rejected_table = samples.rejected
    if not len(rejected_table):
        raise UserError(f"{source}: not one row in it")
    first = rejected_table.iloc[0]
    raise UserError(
        f"{source}: none of {len(rejected_table)} images is usable; the first is {first['path']}: {first['reason']}"
    )


def _reject_age(sample_id: str, path: str, age: object) -> Rejected:
    if age is None or age != age or str(age).strip() in UNKNOWN:
        return Rejected(sample_id, path, RejectReason.NO_AGE, "its age is missing")
    reason = f"age '{age}' is not a number"
    if is_date(str(age)):
        reason = f"age '{age}' is a date: a spreadsheet makes one of a range such as 3-9; export that column as text"
    return Rejected(sample_id, path, RejectReason.BAD_AGE, reason)


def _drop_repeats(table: pd.DataFrame, key: list[str]) -> tuple[pd.DataFrame, list[Rejected]]:
    """Keep each image and each sample_id once.

    Rows with the same `key` show one image. If their labels differ, all of them are rejected; otherwise the first is kept,
    with the labels that it lacks from the others.

    Returns:
        The remaining rows, and the rejected ones.
    """
    rejected = []
    drop = pd.Series(False, index=table.index)
    table = table.copy()
    for _, rows in table[table.duplicated(key, keep=False)].groupby(key, sort=False):
        conflict = _describe_conflict(rows)
        first = rows.index[0]
        for column in () if conflict else rows.columns[rows.loc[first].isna() & rows.notna().any()]:
            table.at[first, column] = rows[column].dropna().iloc[0]
        for row in rows.index if conflict else rows.index[1:]:
            code = RejectReason.CONFLICTING_LABELS if conflict else RejectReason.DUPLICATE_ROW
            reason = conflict or "a row of the same image with the same labels precedes it"
            rejected.append(Rejected(rows["sample_id"][row], rows["path"][row], code, reason))
            drop[row] = True
    table = table[~drop]
    is_repeated = table["sample_id"].duplicated()
    first_path = table[~is_repeated].set_index("sample_id")["path"]
    rejected += [
        Rejected(name, path, RejectReason.DUPLICATE_ID, f"a second image called like {first_path[name]}")
        for name, path in zip(table["sample_id"][is_repeated], table["path"][is_repeated], strict=True)
    ]
    return table[~is_repeated], rejected


def _describe_conflict(rows: pd.DataFrame) -> str:
    """Describe the first difference between rows of one image, as a sentence; empty if they agree."""
    for column in dict.fromkeys(["age", *rows.columns.difference(["sample_id", "path", PHOTOGRAPH])]):
        values = rows[column].dropna().map(_as_text).drop_duplicates().tolist()
        if len(values) > 1:
            difference = f"two different ages: {values[0]} and {values[1]}"
            if column != "age":
                difference = f"two different values of {column}: '{values[0]}' and '{values[1]}'"
            return f"its rows have {difference}; a column sample_id of their own keeps such rows apart"
    return ""


def _as_text(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
