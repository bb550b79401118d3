"""Divisions that stand in files: lists of the images of each part, read and written."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from agebench.config.cards.protocol import Protocol
from agebench.data.readers.base import is_within
from agebench.data.readers.table_io import TABLES, read_label_table
from agebench.data.samples import Samples
from agebench.data.splits.splits import SPLITS, Part
from agebench.errors import UserError
from agebench.utils.io import csv_origin, write_csv

if TYPE_CHECKING:
    from agebench.data.splits.protocols import Folds

# What a column of names is called in the wild, the surest first.
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
    """Read the part of each image from list files: (N,) values of `Part`.

    A list names images by sample_id, by path, or by the file's name where that is unique.

    Raises:
        UserError: no such file, it names images that the dataset lacks, or an image stands in two lists.
    """
    known = _names(samples)
    parts = np.full(len(samples), Part.NONE, dtype=np.int64)
    for number, part in enumerate(SPLITS):
        if part not in protocol.files:
            continue
        file = _find(protocol.files[part], root, label)
        wanted = pd.Series(_read(file, protocol.column, label), dtype="str").str.replace("\\", "/")
        wanted = wanted.where(wanted.isin(known.index), wanted.map(csv_origin))
        rows = wanted.map(known)
        missing = wanted[rows.isna()]
        if len(missing):
            raise UserError(
                f"{label}: {file} names {len(missing)} images (of {len(wanted)}) that the dataset lacks, "
                f"the first is '{missing.iloc[0]}'"
            )
        places = rows.to_numpy().astype(np.int64)
        kept = places >= 0  # what was put aside stays there
        places = _with_rows_of_one_image(places[kept], wanted[kept], samples)
        twice = places[(parts[places] != Part.NONE) & (parts[places] != number)]
        if len(twice):
            first = samples.table["sample_id"].iloc[twice[0]]
            raise UserError(
                f"{label}: {len(twice)} images of {part} also stand in {SPLITS[parts[twice[0]]]}, the first is '{first}'"
            )
        parts[places] = number
    return parts


def _with_rows_of_one_image(places: np.ndarray, names: "pd.Series[str]", samples: Samples) -> np.ndarray:
    """`places` and, where a list names an image by its path, the other rows that show it."""
    table = samples.table
    if not table["path"].duplicated().any():
        return places
    by_path = places[~names.isin(table["sample_id"]).to_numpy()]
    shared = np.flatnonzero(table["path"].isin(table["path"].iloc[by_path]).to_numpy())
    return np.union1d(places, shared)


def write_split_files(folder: Path, folds: "Folds") -> None:
    """train.csv, valid.csv and test.csv, as `parts_of_lists` reads them; of several folds one folds.csv, a column a fold."""
    table = folds.samples.table
    shown = table[[column for column in ("sample_id", "path", "age", "gender", "race", "subject") if column in table]]
    shown = shown.dropna(axis="columns", how="all")
    words = folds.to_frame()
    tables = {"folds": shown.join(words)} if len(folds) > 1 else {}
    if not tables:
        files = zip(SPLITS, ("train", "valid", "test"), strict=True)
        tables = {file: shown[(words["part"] == part).to_numpy()] for part, file in files}
    for name, content in tables.items():
        write_csv(folder / f"{name}.csv", content)


def _names(samples: Samples) -> "pd.Series[int]":
    """Every name that an image may be called by -> its row; -1 for those in quarantine."""
    aside = samples.rejected
    table = pd.DataFrame(
        {
            "sample_id": [*samples.table["sample_id"], *aside["sample_id"]],
            "path": [*samples.table["path"], *aside["path"]],
            "row": [*range(len(samples)), *[-1] * len(aside)],
        }
    )
    base = table["path"].str.rpartition("/")[2]
    first = ~table["path"].duplicated()  # several rows may show one image
    clear = first & ~base.isin(base[first][base[first].duplicated()])
    found = [
        pd.Series(table["row"].to_numpy(), index=table["sample_id"]),
        pd.Series(table["row"].to_numpy(), index=table["path"]),
        pd.Series(table["row"][clear].to_numpy(), index=base[clear]),
    ]
    every = pd.concat(found)
    return every[~every.index.duplicated()]


def _find(name: str, root: Path | None, label: str) -> Path:
    if os.path.isabs(name):  # stood beside the card
        return Path(name)
    if root is not None and (root / name).is_file() and is_within(os.path.realpath(root), str(root / name)):
        return root / name
    raise UserError(f"{label}: no list '{name}', neither in the dataset's folder nor beside the card")


def _read(file: Path, column: str, label: str) -> list[str]:
    if file.suffix.lower() in TABLES:
        table = read_label_table(file)
        named = column or next((name for name in _COLUMNS if name in table), str(table.columns[0]))
        if named not in table:
            raise UserError(f"{label}: {file} has no column '{named}'; there are: {', '.join(map(str, table.columns))}")
        return table[named].astype("str").tolist()
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{label}: {file}: not a readable list: {error}") from error
    return [line.strip() for line in lines if line.strip()]
