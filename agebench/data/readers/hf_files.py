"""The data files of the `datasets` library's formats: which there are, and opening them as memory-mapped Arrow."""

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
    """Split -> its data files in a folder: Arrow where there are any, else Parquet, else images and their metadata.

    Raises:
        UserError: there are none.
    """
    files, _ = walk_files(root)
    own = [path for path in files if path.endswith(".arrow") and not path.rpartition("/")[2].startswith("cache-")]
    own = own or [path for path in files if path.lower().endswith(".parquet") and not path.endswith(_METADATA)]
    folder = not own
    own = own or [path for path in files if is_image(path) or path.endswith(_METADATA)]
    if not own:
        raise UserError(f"{root}: no Parquet or Arrow file in it, and no image")
    fetched = read_source(root) is not None
    top = top_folder(own)
    found: dict[str, list[str]] = {}
    for path in own:
        parts = path.removeprefix(top).split("/")
        if fetched:
            split = parts[0] if len(parts) > 1 else top.strip("/").rpartition("/")[2]
        else:
            split = _split_in(parts[:1] if folder and len(parts) > 1 else [] if folder else parts)
        found.setdefault(split, []).append(path)
    shared = [path for path in own if folder and path.removeprefix(top) in _METADATA]  # speaks of every split's images
    return {split: list(dict.fromkeys([*paths, *shared])) for split, paths in found.items() if {*paths} - {*shared}}


def open_data(root: Path, files: dict[str, list[str]], stamp: str) -> dict[str, Any]:
    """Split -> `datasets.Dataset` over its files; `stamp` changes when one of them does.

    Raises:
        UserError: a file is damaged or cut short.
    """
    load = _loader(root, sorted(path for paths in files.values() for path in paths), stamp)
    return {split: load(split, [str(root / path) for path in paths]) for split, paths in files.items()}


def _loader(root: Path, files: list[str], stamp: str) -> Callable[[str, list[str]], Any]:
    """How files of this kind become a Dataset."""
    datasets = import_datasets()

    def build(kind: str) -> Callable[[str, list[str]], Any]:
        def load(split: str, paths: list[str]) -> Any:
            try:
                cache = str(cache_home() / "huggingface")
                return datasets.load_dataset(kind, data_files={split: paths}, split=split, cache_dir=cache)
            except Exception as error:  # pyarrow's, the library's own, and whatever damage leads to
                reason = str(error.__cause__ or error).strip().splitlines()[:1]
                raise UserError(f"{root}: its {kind} files cannot be read: {' '.join(reason)}") from error

        return load

    def parquet(split: str, paths: list[str]) -> Any:
        # The library's cache goes by absolute names: without a note, a dataset would be built again where it is moved to.
        note = cache_home() / "huggingface" / f"{stamp}-{split}.json"
        known = json.loads(note.read_text(encoding="utf-8")) if note.is_file() else []
        if known and all(os.path.isfile(file) for file in known):
            return map_arrow(split, known)
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


def _split_in(parts: list[str]) -> str:
    """The split that a path speaks of, as `data/train-00000-of-00002.parquet` does; else `train`."""
    words = [word for part in parts for word in re.split(r"[^a-z]+", part.lower())]
    return next((word for word in words if word in SPLITS), "train")
