"""Digests of a run's files: recorded when it finishes, and compared whenever a file is read again."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors import SafetensorError, safe_open

from agebench.errors import Damaged, UserError
from agebench.utils.io import file_digest, is_temporary

# Key of the digests in the manifest.json of a run and the fold.json of a fold.
DIGESTS = "files"
MANIFEST, FOLD = "manifest.json", "fold.json"
# Files that are read again after a run. Reports and plots are not; exported files have their own records.
_RECORDED = (
    *("config.toml", "metrics.json", "history.json", "validation.parquet", "checkpoints/best.safetensors"),
    *("predictions/*.parquet", "samples/*.parquet", "lists/*.csv"),
)
_MESSAGE_DIGITS = 12  # digits of a digest in messages


def kept_digests(folder: Path) -> dict[str, str]:
    """Compute the SHA-256 of every file of a run or fold that is read again.

    Args:
        folder: folder of a run or fold.

    Returns:
        Path relative to the folder -> SHA-256, hexadecimal.
    """
    files = sorted(
        {file for pattern in _RECORDED for file in folder.glob(pattern) if file.is_file() and not is_temporary(file)}
    )
    return {file.relative_to(folder).as_posix(): file_digest(file) for file in files}


def read_json_table(path: Path) -> dict[str, Any]:
    """Read a JSON object; empty if the file does not exist.

    Args:
        path: the file.

    Raises:
        Damaged: the file does not contain a JSON object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError, RecursionError) as error:  # ValueError: also for text that is not UTF-8
        raise Damaged(f"{path}: damaged: {error}. {_remedy(path)}") from error
    if not isinstance(content, dict):
        raise Damaged(f"{path}: damaged: a table is expected, not a {type(content).__name__}. {_remedy(path)}")
    return content


def checked(folder: Path, name: str) -> Path:
    """Compare a file with its recorded digest, if there is one, and return its path.

    Args:
        folder: folder of a run or fold.
        name: path of the file, relative to the folder.

    Raises:
        Damaged: the file is missing, or differs from the one that the run wrote.
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
        raise Damaged(f"{path}: cannot be read: {error.strerror or error}. {_remedy(path)}") from error
    if actual != recorded:
        raise Damaged(
            f"{path}: not the file that the run wrote "
            f"(SHA-256 {actual[:_MESSAGE_DIGITS]}…; {source} has {str(recorded)[:_MESSAGE_DIGITS]}…). "
            f"{_remedy(path)}"
        )
    return path


def checkpoint_metadata(path: Path) -> dict[str, Any]:
    """Return the metadata of a checkpoint. Its tensors are not read.

    Args:
        path: the file.

    Raises:
        Damaged: the file is missing or not a checkpoint.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = json.loads((file.metadata() or {}).get("agebench", "{}"))
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        raise damaged_checkpoint(path, error) from error
    if not isinstance(metadata, dict):
        raise damaged_checkpoint(path, f"its metadata are a {type(metadata).__name__}, not a table")
    return metadata


def damaged_checkpoint(path: Path, reason: object) -> Damaged:
    """Return the error for a checkpoint that cannot be used.

    Args:
        path: the file.
        reason: the cause, for the message.
    """
    return Damaged(
        f"{path}: not a readable checkpoint: {reason}. Restore it from a copy, or delete the folder {path.parent} and repeat "
        "the run"
    )


def read_table(folder: Path, name: str, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """Read a Parquet file of a run as a data frame, after a comparison with its digest.

    Args:
        folder: folder of a run or fold.
        name: path of the file, relative to the folder.
        columns: columns to read; None for all.

    Raises:
        UserError: the file does not exist.
        Damaged: the file differs from the one that the run wrote, is not a Parquet file, or lacks a column.
    """
    with _readable(folder, name) as path:
        return pd.read_parquet(path, columns=None if columns is None else list(columns))


def read_arrow(folder: Path, name: str) -> pa.Table:
    """Read a Parquet file of a run as an Arrow table, after a comparison with its digest.

    Args:
        folder: folder of a run or fold.
        name: path of the file, relative to the folder.

    Raises:
        UserError: the file does not exist.
        Damaged: the file differs from the one that the run wrote, or is not a Parquet file.
    """
    with _readable(folder, name) as path:
        return pq.read_table(path)


@contextmanager
def _readable(folder: Path, name: str) -> Iterator[Path]:
    path = folder / name
    if not path.exists():
        raise UserError(f"{path}: no such file. {_remedy(path)}")
    checked(folder, name)
    try:
        yield path
    except (OSError, ValueError, KeyError) as error:  # pyarrow raises a ValueError for other formats
        raise Damaged(f"{path}: damaged: {_first_line(error)}. {_remedy(path)}") from error


def _remedy(path: Path) -> str:
    if path.name == MANIFEST:
        return "Delete it and repeat the command, a run's with --resume: what its checkpoints hold is not trained again"
    if path.name == FOLD or "folds" in path.parts:
        return "Delete this fold's folder and continue with --resume"
    return "Restore it from a copy, or do the run again in another folder (--out)"


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
