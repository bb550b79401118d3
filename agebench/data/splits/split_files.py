"""Split files: lists of the images of each split, read and written."""

import os
from pathlib import Path

import numpy as np
import pandas as pd

from agebench.config.cards.protocol import Protocol
from agebench.data.readers.base import is_within
from agebench.data.readers.table_io import TABLES, read_label_table
from agebench.data.samples import Samples
from agebench.data.splits.folds import Folds
from agebench.data.splits.splits import ASSIGNED
from agebench.errors import UserError
from agebench.types import Split
from agebench.utils.io import csv_origin, write_csv

# Common names of the column that names the images, the most reliable first.
_COLUMNS = (
    "sample_id",
    "path",
    "image_path",
    "img_path",
    "image_name",
    "image",
    "file",
    "filename",
    "file_name",
    "name",
)


def read_split_files(protocol: Protocol, samples: Samples, label: str, root: Path | None) -> np.ndarray:
    """Read the split of each image from list files.

    A list names images by sample_id, by path, or by file name if that is unique.

    Args:
        protocol: the protocol that names the list files.
        samples: the dataset's samples, with the rejected ones.
        label: name of the protocol in error messages.
        root: the dataset's folder, which relative file names start from.

    Returns:
        (N,) values of `Split`.

    Raises:
        UserError: a list does not exist or names images that the dataset lacks, or an image is in two lists.
    """
    files = {str(name): file for name, file in protocol.files.items()}
    row_by_name = _rows_by_name(samples)
    splits = np.full(len(samples), Split.NONE, dtype=np.int64)
    for split in ASSIGNED:
        if split.label not in files:
            continue
        file = _locate_list(files[split.label], root, label)
        names = pd.Series(_read_names(file, protocol.column, label), dtype="str").str.replace("\\", "/")
        names = names.where(names.isin(row_by_name.index), names.map(csv_origin))
        matches = names.map(row_by_name)
        missing = names[matches.isna()]
        if len(missing):
            raise UserError(
                f"{label}: {file} names {len(missing)} images (of {len(names)}) that the dataset lacks, "
                f"the first is '{missing.iloc[0]}'"
            )
        rows = matches.to_numpy().astype(np.int64)
        is_usable = rows >= 0  # rejected images stay rejected
        rows = _add_rows_of_same_image(rows[is_usable], names[is_usable], samples)
        conflicts = rows[(splits[rows] != Split.NONE) & (splits[rows] != split)]
        if len(conflicts):
            first, other = conflicts[0], Split(splits[conflicts[0]])
            raise UserError(
                f"{label}: {len(conflicts)} images of {split.label} are also in {other.label}, "
                f"the first is '{samples.table['sample_id'].iloc[first]}'"
            )
        splits[rows] = split
    return splits


def _add_rows_of_same_image(rows: np.ndarray, names: "pd.Series[str]", samples: Samples) -> np.ndarray:
    """Add the other rows of each image that a list names by its path."""
    table = samples.table
    if not table["path"].duplicated().any():
        return rows
    rows_by_path = rows[~names.isin(table["sample_id"]).to_numpy()]
    same_image_rows = np.flatnonzero(table["path"].isin(table["path"].iloc[rows_by_path]).to_numpy())
    return np.union1d(rows, same_image_rows)


def write_split_files(folder: Path, folds: Folds) -> None:
    """Write the splits as CSV files.

    One fold gives train.csv, valid.csv and test.csv; several folds give one folds.csv with a column per fold.

    Args:
        folder: an existing folder.
        folds: the split samples.
    """
    table = folds.samples.table
    labels = table[[column for column in ("sample_id", "path", "age", "gender", "race", "subject") if column in table]]
    labels = labels.dropna(axis="columns", how="all")
    split_names = folds.to_frame()
    if len(folds) > 1:
        tables = {"folds": labels.join(split_names)}
    else:
        files = zip(ASSIGNED, ("train", "valid", "test"), strict=True)
        tables = {file: labels[(split_names["part"] == split.label).to_numpy()] for split, file in files}
    for name, content in tables.items():
        write_csv(folder / f"{name}.csv", content)


def _rows_by_name(samples: Samples) -> "pd.Series[int]":
    """Map every name of an image to its row; -1 for rejected images."""
    rejected = samples.rejected
    table = pd.DataFrame(
        {
            "sample_id": [*samples.table["sample_id"], *rejected["sample_id"]],
            "path": [*samples.table["path"], *rejected["path"]],
            "row": [*range(len(samples)), *[-1] * len(rejected)],
        }
    )
    file_names = table["path"].str.rpartition("/")[2]
    is_first = ~table["path"].duplicated()  # several rows may show one image
    is_unique = is_first & ~file_names.isin(file_names[is_first][file_names[is_first].duplicated()])
    rows = table["row"].to_numpy()
    row_by_name = pd.concat(
        [
            pd.Series(rows, index=table["sample_id"]),
            pd.Series(rows, index=table["path"]),
            pd.Series(rows[is_unique], index=file_names[is_unique]),
        ]
    )
    return row_by_name[~row_by_name.index.duplicated()]


def _locate_list(name: str, root: Path | None, label: str) -> Path:
    if os.path.isabs(name):  # a list beside the card
        return Path(name)
    if root is not None and (root / name).is_file() and is_within(os.path.realpath(root), str(root / name)):
        return root / name
    raise UserError(f"{label}: no list '{name}', neither in the dataset's folder nor beside the card")


def _read_names(file: Path, column: str, label: str) -> list[str]:
    if file.suffix.lower() in TABLES:
        table = read_label_table(file)
        name_column = column or next((name for name in _COLUMNS if name in table), str(table.columns[0]))
        if name_column not in table:
            raise UserError(
                f"{label}: {file} has no column '{name_column}'; there are: {', '.join(map(str, table.columns))}"
            )
        return table[name_column].astype("str").tolist()
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{label}: {file}: not a readable list: {error}") from error
    return [line.strip() for line in lines if line.strip()]
