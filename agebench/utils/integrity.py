"""Digests of the files that a run keeps: written when it is finished, compared wherever one of them is read again."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from agebench.errors import Damaged, UserError
from agebench.utils.io import file_digest, is_temporary

# The key of the digests in manifest.json, and in fold.json of a fold.
DIGESTS = "files"
MANIFEST, FOLD = "manifest.json", "fold.json"
# What is read again after a run. Reports and figures are not, and exported files have records of their own.
_KEPT = (
    *("config.toml", "metrics.json", "history.json", "validation.parquet", "checkpoints/best.safetensors"),
    *("predictions/*.parquet", "samples/*.parquet", "lists/*.csv"),
)
_SHOWN = 12  # digits of a digest in messages


def kept_digests(folder: Path) -> dict[str, str]:
    """The SHA-256 of every file of a run or fold that is read again, by its name relative to the folder."""
    files = sorted(
        {file for pattern in _KEPT for file in folder.glob(pattern) if file.is_file() and not is_temporary(file)}
    )
    return {file.relative_to(folder).as_posix(): file_digest(file) for file in files}


def read_json_table(path: Path) -> dict[str, Any]:
    """The table in a JSON file; an empty one where there is no such file.

    Raises:
        Damaged: the file does not contain a table.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError, RecursionError) as error:  # also what is not UTF-8
        raise Damaged(f"{path}: damaged: {error}. {_way_out(path)}") from error
    if not isinstance(content, dict):
        raise Damaged(f"{path}: damaged: a table is expected, not a {type(content).__name__}. {_way_out(path)}")
    return content


def checked(folder: Path, name: str) -> Path:
    """The path of a run's file, whose content is compared with the recorded digest, if one is recorded.

    Args:
        folder: the folder of a run or of a fold.
        name: of the file, relative to the folder.

    Raises:
        Damaged: the file is missing or is not the one that the run wrote.
    """
    path = folder / name
    source = MANIFEST if (folder / MANIFEST).exists() else FOLD
    digests = read_json_table(folder / source).get(DIGESTS)
    recorded = digests.get(name) if isinstance(digests, Mapping) else None
    if recorded is None:
        return path
    try:
        actual = file_digest(path)
    except OSError as error:
        raise Damaged(f"{path}: cannot be read: {error.strerror or error}. {_way_out(path)}") from error
    if actual != recorded:
        raise Damaged(
            f"{path}: not the file that the run wrote (SHA-256 {actual[:_SHOWN]}…; {source} has {str(recorded)[:_SHOWN]}…). "
            f"{_way_out(path)}"
        )
    return path


def read_table(folder: Path, name: str, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """A Parquet file of a run, compared with its digest; `columns` as for `pandas.read_parquet`.

    Raises:
        UserError: there is no such file.
        Damaged: the file is not the one that the run wrote, is no Parquet file, or lacks a column.
    """
    with _readable(folder, name) as path:
        return pd.read_parquet(path, columns=None if columns is None else list(columns))


def read_arrow(folder: Path, name: str) -> pa.Table:
    """As `read_table`, in Arrow's own form."""
    with _readable(folder, name) as path:
        return pq.read_table(path)


@contextmanager
def _readable(folder: Path, name: str) -> Iterator[Path]:
    path = folder / name
    if not path.exists():
        raise UserError(f"{path}: no such file. {_way_out(path)}")
    checked(folder, name)
    try:
        yield path
    except (OSError, ValueError, KeyError) as error:  # pyarrow: a ValueError for whatever is no Parquet
        raise Damaged(f"{path}: damaged: {_first_line(error)}. {_way_out(path)}") from error


def _way_out(path: Path) -> str:
    if path.name == MANIFEST:
        return "Delete it and repeat the command, a run's with --resume: what its checkpoints hold is not trained again"
    if path.name == FOLD or "folds" in path.parts:
        return "Delete this fold's folder and go on with --resume"
    return "Restore it from a copy, or do the run again in another folder (--out)"


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
