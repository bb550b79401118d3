"""Reader for the formats of the Hugging Face `datasets` library (tables, image folders), from the hub or from disk."""

import hashlib
import os
import re
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from agebench.config.toml_io import Settings
from agebench.data.readers.base import PathFault, check_paths
from agebench.data.readers.hf_download import HubSource, fetch_from_hub, hub_difference
from agebench.data.readers.hf_files import SPLITS, data_files, open_data
from agebench.data.readers.labelled import LabelledReader, RejectedRows
from agebench.data.readers.options import check_flag, check_number
from agebench.data.readers.table_io import STANDARD_COLUMNS, rename_columns
from agebench.data.readers.vocabulary import VOCABULARY
from agebench.data.samples import Rejected, Samples
from agebench.errors import AgebenchError, ImageRejectedError, UserError
from agebench.types import RejectReason
from agebench.utils.paths import cache_home

_ROW = re.compile(r"([^/]+)/(\d{8,})")


class HuggingFaceReader(LabelledReader):
    """Reader for Parquet or Arrow files, or an image folder.

    An image folder may have a `metadata.csv`, `.jsonl` or `.parquet`.

    Images are read one by one and by index, from memory-mapped Arrow files or from their own files. A sample_id is the
    image's path, or split and row: `train/00000012`.

    Args:
        root: a folder that `agebench data download` created, or one with such files; or one Parquet file.
        groups: columns for subgroup metrics, from the card; each must be in the table, a further table or a list.
        hub: id of the dataset on the hub, for `agebench data download`.
        config: configuration of the dataset; empty for the only one.
        revision: commit of the dataset; empty for the newest.
        streaming: whether `agebench data download` reads images one by one and reduces them to `side`.
        side: longer side of the stored images if `streaming`, pixels.
        splits: agebench's split -> the source's, e.g. `test = "validation"`; other splits are left out. Empty: splits are
            recognized by name, and a dataset with one split has no split column.
        columns: agebench's name -> the table's name, as for `TableReader`; `image` is the column of images, if there are
            several.
        urls: whether images may be URLs, which are then downloaded one by one.
        images: the folder that paths in the table start from.
        options: `values`, `open_ages`, `tables`, `lists` and `landmarks` of `LabelledReader`.
    """

    def __init__(
        self,
        root: Path | None,
        groups: tuple[str, ...] = (),
        *,
        hub: str = "",
        config: str = "",
        revision: str = "",
        streaming: bool = False,
        side: int = 512,
        splits: dict[str, str] | None = None,
        columns: dict[str, str | int] | None = None,
        urls: bool = False,
        images: str = "",
        **options: Any,
    ) -> None:
        file = root.resolve() if root is not None and root.is_file() else None
        super().__init__(file.parent if file else root, groups, **options)
        self.file = file.name if file else ""
        side = int(check_number("side", side, 1, 65_535))
        own_splits = tuple((splits or {}).values())
        self.source = HubSource(hub, config, revision, own_splits, check_flag("streaming", streaming), side)
        self.splits = splits or {}
        self.columns = columns or {}
        self.urls = check_flag("urls", urls)
        self.images = images
        unknown = set(self.splits) - set(VOCABULARY["split"].values())
        if unknown:
            raise UserError(f"options.splits: '{min(unknown)}' is none of train, val, test")

    @classmethod
    def download_source(cls, options: Settings) -> str:
        """Describe the dataset on the hub; empty if the card names none.

        Args:
            options: the card's `[options]`.
        """
        return f"hub dataset '{options['hub']}'" if options.get("hub") else ""

    @classmethod
    def source_difference(cls, root: Path, options: Settings) -> str:
        """Describe how the hub's dataset that a copy records differs from the card's; empty if it does not.

        Args:
            root: the copy.
            options: the card's `[options]`.
        """
        return hub_difference(root, cls(None, **options).source)

    @classmethod
    def download(cls, target: Path, options: Settings) -> None:
        """Download the card's revision through the `datasets` library.

        Args:
            target: the folder to create.
            options: the card's `[options]`.

        Raises:
            UserError: the dataset, revision, configuration or split does not exist.
            AgebenchError: the hub cannot be reached, a file is damaged, or the disk is full.
        """
        fetch_from_hub(target, cls(None, **options).source)

    def read(self) -> Samples:
        """Read all rows.

        Reject those without an image, or whose image is missing or outside the folder.

        Raises:
            UserError: a file, column or split is missing, a file is damaged, images are URLs and the card does not allow
                them, or no row is usable.
        """
        assert self.root is not None
        source = str(self.root)
        rejected: RejectedRows = []
        tables = []
        for split, data in self._data.items():
            rows, rejected_rows = self._read_split(
                split, data, f"{source} ({split})" if len(self._data) > 1 else source
            )
            tables.append(rows)
            rejected += rejected_rows
        own_ids = "sample_id" in self.columns
        return self.join_label_tables(pd.concat(tables, ignore_index=True), rejected, source=source, own_ids=own_ids)

    def image_bytes(self, path: str) -> bytes:
        """Read an encoded image from a row of the table, a file or a URL.

        Args:
            path: path of the image, from the samples' column `path`.

        Raises:
            ImageRejectedError: the URL cannot be downloaded.
        """
        if (match := _ROW.fullmatch(path)) and match[1] in self._data:
            value = self._images[match[1]][int(match[2])].column(0)[0].as_py()
            return bytes(value["bytes"] if isinstance(value, dict) else value)
        if _is_url(path):
            from agebench.data.storage.download import download

            folder = cache_home() / "urls" / hashlib.sha256(path.encode()).hexdigest()
            try:
                return download(path, folder).read_bytes()
            except AgebenchError as error:  # one unreachable URL among many must not end a run
                raise ImageRejectedError(str(error), RejectReason.UNREACHABLE_URL) from error
        return super().image_bytes(path)

    def version_token(self, path: str) -> str:
        """Return a text that changes with the data files, the card's column of images or the image's file.

        It is constant for a URL.
        """
        if _ROW.fullmatch(path):
            column = self.columns.get("image")
            return self._stamp if column is None else f"{self._stamp} {column}"
        return path if _is_url(path) else super().version_token(path)

    def _read_split(self, split: str, data: Any, source: str) -> tuple[pd.DataFrame, RejectedRows]:
        """Return a split's rows with path and labels, and those without a usable image."""
        assert self.root is not None
        image = self._image_column(data, source)
        names = [name for name in data.column_names if name != image]
        content = _labels_frame(data.select_columns(names)) if names else pd.DataFrame(index=range(len(data)))
        columns = {name: column for name, column in self.columns.items() if name != "image"}
        has_other_ages = self.tables or {"age_low", "age_high"} <= set(columns)
        required = tuple(name for name in ("age", *self.groups) if name not in self.lists and not has_other_ages)
        rows = rename_columns(content, {}, columns, (*STANDARD_COLUMNS, *self.groups), required, source=source)
        rows = rows.drop(columns="path", errors="ignore")
        paths, faults = self._image_paths(split, data.data.column(image), source)
        standard_split = self._standard_split(split)
        if "split" not in columns and (standard_split or "split" not in rows):
            rows["split"] = standard_split
        ids = rows["sample_id"].astype("str") if "sample_id" in columns else pd.Series(paths, index=rows.index)
        rows = rows.assign(sample_id=ids, path=paths)
        is_usable = pd.Series([fault is None for fault in faults], index=rows.index, dtype=bool)
        rejected = [
            Rejected(sample_id, path, *fault)
            for sample_id, path, fault in zip(ids, paths, faults, strict=True)
            if fault
        ]
        return rows[is_usable], rejected

    def _image_paths(self, split: str, column: Any, source: str) -> tuple[list[str], list[PathFault | None]]:
        """Return the path of each image, and why it cannot be used (else None), without reading images."""
        import pyarrow as pa
        import pyarrow.compute as pc

        assert self.root is not None
        keys = [f"{split}/{row:08d}" for row in range(len(column))]
        bytes_column, path_column = None, None
        if pa.types.is_struct(column.type):
            bytes_column, path_column = (pc.struct_field(column, field) for field in ("bytes", "path"))
        elif pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            path_column = column
        else:
            bytes_column = column
        has_bytes = bytes_column.is_valid().to_pylist() if bytes_column is not None else [False] * len(keys)
        written = [str(path or "") for path in path_column.to_pylist()] if path_column is not None else [""] * len(keys)
        rows_without_bytes = [row for row, is_present in enumerate(has_bytes) if not is_present]
        url_rows = [row for row in rows_without_bytes if _is_url(written[row])]
        if url_rows and not self.urls:
            raise UserError(
                f"{source}: {len(url_rows)} images are addresses, the first is {written[url_rows[0]]}; "
                "options.urls = true on the card allows to download them"
            )
        paths = keys
        faults: list[PathFault | None] = [None] * len(keys)
        for row in url_rows:
            paths[row] = written[row]
        file_rows = [row for row in rows_without_bytes if written[row] and not _is_url(written[row])]
        home = os.path.realpath(self.root)
        relative = [_relative_path(written[row], home, self.images) for row in file_rows]
        checked = check_paths(self.root, "", relative, [written[row] for row in file_rows])
        for row, fault, path in zip(file_rows, *checked, strict=True):
            paths[row], faults[row] = path, fault
        for row in rows_without_bytes:
            if not written[row]:
                faults[row] = PathFault(RejectReason.NO_IMAGE, "the table holds no image for it")
        return paths, faults

    def _image_column(self, data: Any, source: str) -> str:
        import datasets

        configured = self.columns.get("image")
        if configured is not None:
            if configured in data.column_names:
                return str(configured)
            raise UserError(
                f"{source}: no column '{configured}' for image; there are {', '.join(data.column_names)}. "
                'Name it on the card: options.columns = {image = "…"}'
            )
        features = data.features.items()
        candidates = [name for name, feature in features if isinstance(feature, datasets.Image)]
        candidates = candidates or [
            name for name, feature in features if isinstance(feature, dict) and {*feature} == {"bytes", "path"}
        ]
        candidates = candidates or [name for name in ("image", "img") if name in data.column_names]
        if len(candidates) != 1:
            problem = f"several columns of images ({', '.join(candidates)})" if candidates else "no column of images"
            raise UserError(
                f"{source}: {problem} among {', '.join(data.column_names)}; name it on the card: "
                'options.columns = {image = "…"}'
            )
        return str(candidates[0])

    def _standard_split(self, split: str) -> str | None:
        """Return agebench's name of a split of the source; None for a dataset without splits."""
        if self.splits:
            return next(standard for standard, source_split in self.splits.items() if source_split == split)
        return None if len(self._data) == 1 else VOCABULARY["split"][SPLITS[split]]

    @cached_property
    def _data(self) -> dict[str, Any]:
        """Split -> `datasets.Dataset`, memory-mapped; it is pickled as the paths of its files."""
        assert self.root is not None
        available = open_data(self.root, self._files, self._stamp)
        splits = self.splits.values() or available
        for split in splits:
            if split not in available:
                raise UserError(
                    f"{self.root}: no split '{split}', there are {', '.join(available)}; "
                    "options.splits on the card names them"
                )
            if not self.splits and len(available) > 1 and split not in SPLITS:
                raise UserError(
                    f"{self.root}: split '{split}' is none of train, val, test; name it on the card: "
                    f'options.splits = {{test = "{split}"}}'
                )
        return {split: available[split] for split in splits}

    @cached_property
    def _images(self) -> dict[str, Any]:
        """Split -> the column of images, as Arrow."""
        return {
            split: data.select_columns([self._image_column(data, str(self.root))]).with_format("arrow")
            for split, data in self._data.items()
        }

    @cached_property
    def _files(self) -> dict[str, list[str]]:
        assert self.root is not None
        return {"train": [self.file]} if self.file else data_files(self.root)

    @cached_property
    def _stamp(self) -> str:
        paths = [path for files in self._files.values() for path in files]
        state = [(path, super(HuggingFaceReader, self).version_token(path)) for path in sorted(paths)]
        return hashlib.sha256(repr(state).encode()).hexdigest()[:16]


def _labels_frame(data: Any) -> pd.DataFrame:
    """Return the labels as a data frame, with class names instead of class numbers."""
    import datasets

    content: pd.DataFrame = data.to_pandas()
    for name, feature in data.features.items():
        if isinstance(feature, datasets.ClassLabel):
            content[name] = content[name].map(dict(enumerate(feature.names)))
    return content


def _relative_path(path: str, home: str, images: str) -> str:
    """Return a path of the table relative to the dataset's folder; the image folder's builder gives absolute paths."""
    path = path.replace("\\", "/")
    if os.path.isabs(path):
        real = os.path.realpath(path)
        return os.path.relpath(real, home) if os.path.commonpath([home, real]) == home else path
    return os.path.join(images, path)


def _is_url(path: str) -> bool:
    return path.startswith(("http://", "https://"))
