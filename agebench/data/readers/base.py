"""What several readers share: listing a folder safely, and the last steps from labels as text to Samples."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from agebench.data.readers.age_parsing import is_date, resolve_ages
from agebench.data.readers.patterns import to_text
from agebench.data.samples import PHOTOGRAPH, Rejected, Samples, rejected_rows, validate_samples
from agebench.errors import UserError
from agebench.types import RejectReason
from agebench.utils.table_cells import UNKNOWN, as_numbers, unknown_words

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
# Columns with a fixed vocabulary, and the spellings that need no explaining on a card.
VOCABULARY = {
    "gender": {"f": "female", "female": "female", "m": "male", "male": "male"},
    "split": {"train": "train", "val": "val", "test": "test", "training": "train", "valid": "val", "validation": "val"},
}


def walk_files(root: Path) -> tuple[list[str], list[str]]:
    """The files below `root`, and the links that lead out of it, as sorted relative paths with forward slashes.

    Hidden files and folders and `__MACOSX` are passed over. Links to folders are never followed; a link to a file is a
    file when it stays within `root`.

    Raises:
        UserError: `root` is no folder that can be read.
    """
    home = os.path.realpath(root)
    files: list[str] = []
    outward: list[str] = []
    folders = [""]
    try:
        while folders:
            inside = folders.pop()
            with os.scandir(os.path.join(home, inside)) as entries:
                for entry in entries:
                    if entry.name.startswith(".") or entry.name == "__MACOSX":
                        continue
                    path = inside + entry.name
                    if entry.is_symlink():
                        if not is_within(home, entry.path):
                            outward.append(path)
                        elif entry.is_file():
                            files.append(path)
                    elif entry.is_dir():
                        folders.append(path + "/")
                    elif entry.is_file():
                        files.append(path)
    except OSError as error:
        raise UserError(f"{error.filename or root}: cannot be listed: {error.strerror or error}") from error
    return sorted(files), sorted(outward)


def list_images(root: Path | None) -> tuple[list[str], list[Rejected]]:
    """The images below `root`, by their suffix, and quarantine rows: for links out of it, and names that are no text.

    Raises:
        UserError: no such folder, an archive that was not added, or no image in the folder.
    """
    if root is None or not root.is_dir():
        raise UserError(f"{root}: not a folder; an archive is imported with `agebench data add NAME {root}`")
    files, outward = walk_files(root)
    images: list[str] = []
    put_aside: list[Rejected] = []
    for path in filter(is_image, files):
        if _is_unicode(path):
            images.append(path)
        else:
            name = path.encode("utf-8", "replace").decode()
            put_aside.append(Rejected(name, name, RejectReason.NOT_UTF8_NAME, "its name is not UTF-8"))
    link = "a link that leads out of the dataset's folder"
    put_aside += [Rejected(path, path, RejectReason.OUTSIDE_FOLDER, link) for path in outward if is_image(path)]
    if not images and not put_aside:
        raise UserError(f"{root}: no image in it (looked for {', '.join(IMAGE_SUFFIXES)})")
    return images, put_aside


def _is_unicode(path: str) -> bool:
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def is_image(path: str) -> bool:
    """Whether the file's name says that it is an image."""
    return path.lower().endswith(IMAGE_SUFFIXES)


def is_within(root: str, path: str) -> bool:
    """Whether `path`, its links followed, exists in the folder `root` (an absolute path without links)."""
    real = os.path.realpath(path)
    return os.path.exists(real) and os.path.commonpath([root, real]) == root


class PathFault(NamedTuple):
    """Why a path of a table cannot be used: a code and a sentence."""

    code: RejectReason
    reason: str


def check_paths(
    root: Path, base: str, paths: list[str], given: list[str] | None = None
) -> tuple[list[PathFault | None], list[str]]:
    """For each path, counted from the folder `base` in `root`: why it cannot be used (or None), and the path from `root`.

    `given` is what stands in the source, for messages.
    """
    home = os.path.realpath(root)
    within: dict[str, bool] = {}  # folders, so that links are looked for once a folder and not once a file
    faults: list[PathFault | None] = []
    found = []
    for path, named in zip(paths, given or paths, strict=True):
        text = path.replace("\\", "/")
        relative = os.path.normpath(os.path.join(base, text)).replace(os.sep, "/")
        full = os.path.join(home, relative)
        folder = os.path.dirname(full)
        fault = None
        if not text:
            fault = PathFault(RejectReason.NO_IMAGE, "its path is empty")
        elif os.path.isabs(relative) or relative.startswith("../"):
            fault = PathFault(RejectReason.OUTSIDE_FOLDER, f"its path '{named}' leads out of the dataset's folder")
        elif not os.path.isfile(full):
            fault = PathFault(RejectReason.MISSING_FILE, f"no file '{relative}'")
        else:
            if folder not in within:
                within[folder] = is_within(home, folder)
            if not within[folder] or (os.path.islink(full) and not is_within(home, full)):
                link = f"its path '{named}' is a link that leads out of the dataset's folder"
                fault = PathFault(RejectReason.OUTSIDE_FOLDER, link)
        faults.append(fault)
        found.append(relative if fault is None else named.replace("\\", "/"))
    return faults, found


def top_folder(files: Sequence[str]) -> str:
    """The folder that holds all of `files`, as a prefix that ends in a slash; empty where that is the root itself.

    Archives mostly have one top folder, extracted copies mostly lack it; names counted from here are the same in both.
    """
    folders = {path.rpartition("/")[0] for path in files}
    common = os.path.commonpath(folders) if folders else ""
    return common and common + "/"


def normalize_labels(
    table: pd.DataFrame, values: dict[str, dict[str, str]], *, open_ages: Sequence[float] = (), source: str
) -> pd.DataFrame:
    """Labels as text, in agebench's words: first by the card's `[options.values.COLUMN]`, then by `VOCABULARY`.

    Args:
        table: any labels; `path` and `sample_id` stay as they are, and of `age` see `agebench.data.readers.age_parsing`.
        values: column -> value in the source -> value here; the empty text stands for unknown, and `*` for all that
            are not listed, which else stay as they are.
        open_ages: the ages that ranges with an open end reach to, see `agebench.data.readers.age_parsing`.
        source: the table or folder, for messages.

    Raises:
        UserError: `values` names a column that is not there, a gender or split is none of the known ones, or an age is an
            open range.
    """
    for column in values:
        if column not in table:
            raise UserError(f"{source}: options.values names '{column}', of which the labels say nothing")
    changed = {}
    untouched = ["sample_id", "path", "age", "age_low", "age_high", "bbox", "landmarks", PHOTOGRAPH]
    for column in table.columns.difference(untouched):
        meaning = {str(old): str(new) for old, new in values.get(column, {}).items()}
        text = to_text(table[column])
        text = _mapped(text.mask(text.isin(list(unknown_words(column) - {*meaning}))), meaning)
        text = text.mask(text == "")
        if column in VOCABULARY:
            known = text.str.lower().map(VOCABULARY[column])
            unknown = text[text.notna() & known.isna()]
            if len(unknown):
                raise UserError(
                    f"{source}: {column} '{unknown.iloc[0]}' is none of {', '.join(dict.fromkeys(VOCABULARY[column].values()))}; "
                    f'say on the card what it means: options.values.{column} = {{"{unknown.iloc[0]}" = "…"}} ("" for unknown)'
                )
            text = known
        changed[column] = text
    return resolve_ages(table.assign(**changed), values.get("age", {}), open_ages, source=source)


def _mapped(text: "pd.Series[str]", meaning: dict[str, str]) -> "pd.Series[str]":
    if "*" not in meaning:
        return text.replace(meaning)
    return text.where(text.isna() | (text == "") | text.isin(list(meaning)), meaning["*"]).replace(meaning)


def to_samples(
    table: pd.DataFrame,
    put_aside: Sequence[Rejected | tuple[str, str, str]],
    groups: tuple[str, ...],
    *,
    source: str,
    own_ids: bool = False,
) -> Samples:
    """Samples from labels as they stand in the source.

    Args:
        table: `age` may hold anything; a value that is no number sends its row to quarantine, and so does a sample_id
            that stood before. Rows of one image that contradict one another are all rejected.
        put_aside: quarantine rows that the reader made already.
        groups: columns that the card names; they must be in `table`.
        source: the dataset's folder or file, for messages.
        own_ids: whether the source itself names its rows, so that several of them may show one image.

    Raises:
        UserError: not one row is usable, or a group is in no label.
    """
    missing = [group for group in groups if group not in table]
    if missing:
        raise UserError(f"{source}: the card's groups name '{missing[0]}', of which the labels say nothing")
    table = table.assign(written=table["age"], age=as_numbers(table["age"])).reset_index(drop=True)
    unlabelled = table["age"].isna()
    rows = [
        _no_age(name, path, age)
        for name, path, age in table.loc[unlabelled, ["sample_id", "path", "written"]].itertuples(index=False)
    ]
    table = table[~unlabelled].drop(columns="written")
    usable, repeated = _without_repeats(table, ["sample_id", "path"] if own_ids else ["path"])
    aside = rejected_rows([*put_aside, *rows, *repeated])
    if len(usable):
        samples = validate_samples(usable, groups=groups, quarantined=aside, source=source)
        if len(samples):
            return samples
        aside = samples.rejected
    if not len(aside):
        raise UserError(f"{source}: not one row in it")
    first = aside.iloc[0]
    raise UserError(f"{source}: none of {len(aside)} images is usable; the first is {first['path']}: {first['reason']}")


def _no_age(sample_id: str, path: str, age: object) -> Rejected:
    if age is None or age != age or str(age).strip() in UNKNOWN:
        return Rejected(sample_id, path, RejectReason.NO_AGE, "nothing says its age")
    reason = f"age '{age}' is not a number"
    if is_date(str(age)):
        reason = f"age '{age}' is a date: a spreadsheet makes one of a range such as 3-9; export that column as text"
    return Rejected(sample_id, path, RejectReason.BAD_AGE, reason)


def _without_repeats(table: pd.DataFrame, key: list[str]) -> tuple[pd.DataFrame, list[Rejected]]:
    """`table` with each image and each id once, and the rows left out.

    Rows with the same `key` show one image. All of them are rejected where their labels differ; else the first is kept.
    """
    rejected = []
    several = table[table.duplicated(key, keep=False)]
    drop = pd.Series(False, index=table.index)
    for _, rows in several.groupby(key, sort=False):
        conflict = _conflict(rows)
        for row in rows.index if conflict else rows.index[1:]:
            code = RejectReason.CONFLICTING_LABELS if conflict else RejectReason.DUPLICATE_ROW
            reason = conflict or "a row of the same image with the same labels stands before"
            rejected.append(Rejected(rows["sample_id"][row], rows["path"][row], code, reason))
            drop[row] = True
    table = table[~drop]
    twice = table["sample_id"].duplicated()
    first_path = table[~twice].set_index("sample_id")["path"]
    rejected += [
        Rejected(name, path, RejectReason.DUPLICATE_ID, f"a second image called like {first_path[name]}")
        for name, path in zip(table["sample_id"][twice], table["path"][twice], strict=True)
    ]
    return table[~twice], rejected


def _conflict(rows: pd.DataFrame) -> str:
    """What differs between rows of one image, as a sentence; empty where they agree."""
    for column in dict.fromkeys(["age", *rows.columns.difference(["sample_id", "path", PHOTOGRAPH])]):
        values = rows[column].dropna().map(_plain).drop_duplicates().tolist()
        if len(values) > 1:
            what = f"two different ages: {values[0]} and {values[1]}"
            if column != "age":
                what = f"two different values of {column}: '{values[0]}' and '{values[1]}'"
            return f"its rows have {what}; a column sample_id of their own keeps such rows apart"
    return ""


def _plain(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
