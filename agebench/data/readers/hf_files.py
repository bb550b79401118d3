"""Data files in the formats of the `datasets` library: listed, and opened as memory-mapped Arrow."""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agebench.data.readers.base import is_image, top_folder, walk_files
from agebench.data.readers.hf_download import import_datasets, read_source
from agebench.data.readers.vocabulary import VOCABULARY
from agebench.errors import UserError
from agebench.utils.io import write_json
from agebench.utils.paths import cache_home

_METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
SPLITS = {**{name: name for name in VOCABULARY["split"]}, "dev": "validation", "testing": "test"}


def data_files(root: Path) -> dict[str, list[str]]:
    """List the data files of a folder by split.

    These are Arrow files, else Parquet files, else images and their metadata.

    Args:
        root: the dataset's folder.

    Raises:
        UserError: the folder contains no such file.
    """
    files, _ = walk_files(root)
    data = [path for path in files if path.endswith(".arrow") and not path.rpartition("/")[2].startswith("cache-")]
    data = data or [path for path in files if path.lower().endswith(".parquet") and not path.endswith(_METADATA)]
    is_image_folder = not data
    data = data or [path for path in files if is_image(path) or path.endswith(_METADATA)]
    if not data:
        raise UserError(f"{root}: no Parquet or Arrow file in it, and no image")
    is_from_hub = read_source(root) is not None
    top = top_folder(data)
    files_by_split: dict[str, list[str]] = {}
    for path in data:
        parts = path.removeprefix(top).split("/")
        if is_from_hub:
            split = parts[0] if len(parts) > 1 else top.strip("/").rpartition("/")[2]
        else:
            # In an image folder only the top folder names a split.
            split = _split_in_path(parts[: min(1, len(parts) - 1)] if is_image_folder else parts)
        files_by_split.setdefault(split, []).append(path)
    # Metadata for the images of all splits.
    shared = [path for path in data if is_image_folder and path.removeprefix(top) in _METADATA]
    return {
        split: list(dict.fromkeys([*paths, *shared])) for split, paths in files_by_split.items() if {*paths} - {*shared}
    }


def open_data(root: Path, files: dict[str, list[str]], stamp: str) -> dict[str, Any]:
    """Open the data files of each split.

    Args:
        root: the dataset's folder.
        files: split -> paths of its files in the folder.
        stamp: a text that changes with the files.

    Returns:
        Split -> `datasets.Dataset`, memory-mapped.

    Raises:
        UserError: a file is damaged or truncated.
    """
    load = _loader(root, sorted(path for paths in files.values() for path in paths), stamp)
    return {split: load(split, [str(root / path) for path in paths]) for split, paths in files.items()}


def _loader(root: Path, files: list[str], stamp: str) -> Callable[[str, list[str]], Any]:
    """Return the function that opens files of this format as a Dataset."""
    datasets = import_datasets()

    def build(kind: str) -> Callable[[str, list[str]], Any]:
        def load(split: str, paths: list[str]) -> Any:
            try:
                cache = str(cache_home() / "huggingface")
                return datasets.load_dataset(kind, data_files={split: paths}, split=split, cache_dir=cache)
            except Exception as error:  # pyarrow and the library raise many types on damaged data
                reason = str(error.__cause__ or error).strip().splitlines()[:1]
                raise UserError(f"{root}: its {kind} files cannot be read: {' '.join(reason)}") from error

        return load

    def parquet(split: str, paths: list[str]) -> Any:
        # The library's cache depends on absolute paths. This note of its files avoids a rebuild after the dataset is moved.
        note = cache_home() / "huggingface" / f"{stamp}-{split}.json"
        cached = json.loads(note.read_text(encoding="utf-8")) if note.is_file() else []
        if cached and all(os.path.isfile(file) for file in cached):
            return map_arrow(split, cached)
        data = build("parquet")(split, paths)
        write_json(note, [file["filename"] for file in data.cache_files])
        return data

    def map_arrow(split: str, paths: list[str]) -> Any:
        try:
            return datasets.concatenate_datasets([datasets.Dataset.from_file(path) for path in paths])
        except Exception:
            return build("arrow")(split, paths)

    if files[0].endswith(".arrow"):
        return map_arrow
    if not files[0].lower().endswith(".parquet"):
        return build("imagefolder")
    for file in files:
        _check_parquet(root / file)
    return parquet


def _check_parquet(file: Path) -> None:
    import pyarrow.parquet as pq

    try:
        pq.ParquetFile(file).close()
    except (OSError, ValueError) as error:
        raise UserError(
            f"{file}: not a whole Parquet file ({str(error).strip().splitlines()[0]}); get it again"
        ) from error


def _split_in_path(parts: list[str]) -> str:
    """Return the split that a path names, as in `data/train-00000-of-00002.parquet`; `train` if it names none."""
    words = [word for part in parts for word in re.split(r"[^a-z]+", part.lower())]
    return next((word for word in words if word in SPLITS), "train")
