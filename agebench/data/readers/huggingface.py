"""Tables and image folders in the formats of the Hugging Face `datasets` library: from the hub, or from disk."""

import hashlib
import os
import re
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from agebench.data.readers.base import PathFault, check_paths
from agebench.data.readers.hf_download import HubSource, fetch_from_hub
from agebench.data.readers.hf_files import SPLITS, data_files, open_data
from agebench.data.readers.labelled import LabelledReader, RejectedRows
from agebench.data.readers.table_io import STANDARD_COLUMNS, rename_columns
from agebench.data.readers.vocabulary import VOCABULARY
from agebench.data.samples import Rejected, Samples
from agebench.errors import AgebenchError, ImageRejectedError, UserError
from agebench.types import RejectReason
from agebench.utils.paths import cache_home

_ROW = re.compile(r"([^/]+)/(\d{8,})")


class HuggingFaceReader(LabelledReader):
    """A dataset as Parquet or Arrow files, or as an image folder (with or without `metadata.csv` or `.jsonl`).

    Images are read one by one and by index: from memory-mapped Arrow files, or from their own files.

    Args:
        root: a folder that `agebench data get` filled, or one with such files; or one Parquet file.
        groups: the card's groups; each must be a column, a table or a list.
        hub: the dataset's id on the hub, for `agebench data get`.
        config: its configuration, where it has several.
        revision: the commit that is meant.
        streaming: see `agebench.data.readers.hf_download.HubSource`.
        side: see `streaming`.
        splits: our split -> the source's, e.g. `test = "validation"`; other splits are left out. Empty: by their names, and a
            dataset of one split has none.
        columns: our name -> the table's, as for `csv`; `image` is the column of images, where it is not the only one.
        urls: whether images may be addresses, which are then downloaded one by one.
        images: the folder that paths in the table count from.
        options: `values`, `open_ages`, `tables` and `lists`, see `LabelledReader`.

    A sample_id is the image's path, or split and row: `train/00000012`.
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
        self.source = HubSource(hub, config, revision, tuple((splits or {}).values()), streaming, side)
        self.splits = splits or {}
        self.columns = columns or {}
        self.urls = urls
        self.images = images
        unknown = set(self.splits) - set(VOCABULARY["split"].values())
        if unknown:
            raise UserError(f"options.splits: '{min(unknown)}' is none of train, val, test")

    @classmethod
    def download_source(cls, options: dict[str, Any]) -> str:
        """The hub's dataset, if the card names one."""
        return f"hub dataset '{options['hub']}'" if options.get("hub") else ""

    @classmethod
    def download(cls, target: Path, options: dict[str, Any]) -> None:
        """Get the card's revision through the `datasets` library, see `agebench.data.readers.hf_download`."""
        fetch_from_hub(target, cls(None, **options).source)

    def read(self) -> Samples:
        """All rows; those without an image, or whose image is missing or lies outside the folder, are put aside.

        Raises:
            UserError: no such files, a damaged one, no such column or split, addresses that the card does not allow, or not
                one usable row.
        """
        assert self.root is not None
        source = str(self.root)
        put_aside: RejectedRows = []
        parts = []
        for split, data in self._data.items():
            rows, aside = self._rows(split, data, f"{source} ({split})" if len(self._data) > 1 else source)
            parts.append(rows)
            put_aside += aside
        own_ids = "sample_id" in self.columns
        return self.join_label_tables(pd.concat(parts, ignore_index=True), put_aside, source=source, own_ids=own_ids)

    def image_bytes(self, path: str) -> bytes:
        """The encoded image: a row of the table, a file, or what stands at an address.

        Raises:
            ImageRejectedError: nothing can be had from the address.
        """
        if (match := _ROW.fullmatch(path)) and match[1] in self._data:
            value = self._images[match[1]][int(match[2])].column(0)[0].as_py()
            return bytes(value["bytes"] if isinstance(value, dict) else value)
        if _is_url(path):
            from agebench.data.storage.download import download

            folder = cache_home() / "urls" / hashlib.sha256(path.encode()).hexdigest()
            try:
                return download(path, folder).read_bytes()
            except AgebenchError as error:  # one dead address among many ends no run
                raise ImageRejectedError(str(error), RejectReason.UNREACHABLE_URL) from error
        return super().image_bytes(path)

    def version_token(self, path: str) -> str:
        """Changes with the data files, or with the image's own file; never for an address."""
        if _ROW.fullmatch(path):
            return self._stamp
        return path if _is_url(path) else super().version_token(path)

    def _rows(self, split: str, data: Any, source: str) -> tuple[pd.DataFrame, RejectedRows]:
        """One split's rows with path and labels, and those without a usable image."""
        assert self.root is not None
        image = self._image_column(data, source)
        names = [name for name in data.column_names if name != image]
        content = _decoded(data.select_columns(names)) if names else pd.DataFrame(index=range(len(data)))
        columns = {name: column for name, column in self.columns.items() if name != "image"}
        elsewhere = self.tables or {"age_low", "age_high"} <= set(columns)
        needed = tuple(name for name in ("age", *self.groups) if name not in self.lists and not elsewhere)
        rows = rename_columns(content, {}, columns, (*STANDARD_COLUMNS, *self.groups), needed, source=source)
        rows = rows.drop(columns="path", errors="ignore")
        paths, faults = self._paths(split, data.data.column(image), source)
        ours = self._our_split(split)
        if "split" not in columns and (ours or "split" not in rows):
            rows["split"] = ours
        identity = rows["sample_id"].astype("str") if "sample_id" in columns else pd.Series(paths, index=rows.index)
        rows = rows.assign(sample_id=identity, path=paths)
        usable = pd.Series([fault is None for fault in faults], index=rows.index, dtype=bool)
        aside = [
            Rejected(name, path, *fault) for name, path, fault in zip(identity, paths, faults, strict=True) if fault
        ]
        return rows[usable], aside

    def _paths(self, split: str, column: Any, source: str) -> tuple[list[str], list[PathFault | None]]:
        """A path for each image, and why it cannot be used (else None); no image is read."""
        import pyarrow as pa
        import pyarrow.compute as pc

        assert self.root is not None
        keys = [f"{split}/{row:08d}" for row in range(len(column))]
        encoded, named = None, None
        if pa.types.is_struct(column.type):
            encoded, named = (pc.struct_field(column, field) for field in ("bytes", "path"))
        elif pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            named = column
        else:
            encoded = column
        inside = encoded.is_valid().to_pylist() if encoded is not None else [False] * len(keys)
        given = [str(path or "") for path in named.to_pylist()] if named is not None else [""] * len(keys)
        outside = [row for row, there in enumerate(inside) if not there]
        addresses = [row for row in outside if _is_url(given[row])]
        if addresses and not self.urls:
            raise UserError(
                f"{source}: {len(addresses)} images are addresses, the first is {given[addresses[0]]}; "
                "options.urls = true on the card allows to download them"
            )
        paths = keys
        faults: list[PathFault | None] = [None] * len(keys)
        for row in addresses:
            paths[row] = given[row]
        files = [row for row in outside if given[row] and not _is_url(given[row])]
        home = os.path.realpath(self.root)
        found = [_relative(given[row], home, self.images) for row in files]
        checked = check_paths(self.root, "", found, [given[row] for row in files])
        for row, fault, path in zip(files, *checked, strict=True):
            paths[row], faults[row] = path, fault
        for row in outside:
            if not given[row]:
                faults[row] = PathFault(RejectReason.NO_IMAGE, "the table holds no image for it")
        return paths, faults

    def _image_column(self, data: Any, source: str) -> str:
        import datasets

        chosen = self.columns.get("image")
        if chosen is not None:
            if chosen in data.column_names:
                return str(chosen)
            raise UserError(
                f"{source}: no column '{chosen}' for image; there are {', '.join(data.column_names)}. "
                'The card says which it is: options.columns = {image = "…"}'
            )
        features = data.features.items()
        found = [name for name, feature in features if isinstance(feature, datasets.Image)]
        found = found or [
            name for name, feature in features if isinstance(feature, dict) and {*feature} == {"bytes", "path"}
        ]
        found = found or [name for name in ("image", "img") if name in data.column_names]
        if len(found) != 1:
            several = f"several columns of images ({', '.join(found)})" if found else "no column of images"
            raise UserError(
                f"{source}: {several} among {', '.join(data.column_names)}; the card says which it is: "
                'options.columns = {image = "…"}'
            )
        return str(found[0])

    def _our_split(self, split: str) -> str | None:
        if self.splits:
            return next(ours for ours, theirs in self.splits.items() if theirs == split)
        return None if len(self._data) == 1 else VOCABULARY["split"][SPLITS[split]]

    @cached_property
    def _data(self) -> dict[str, Any]:
        """Split -> `datasets.Dataset`, memory-mapped: it pickles as the names of its files."""
        assert self.root is not None
        found = open_data(self.root, self._files, self._stamp)
        wanted = self.splits.values() or found
        for split in wanted:
            if split not in found:
                raise UserError(
                    f"{self.root}: no split '{split}', there are {', '.join(found)}; options.splits on the card names them"
                )
            if not self.splits and len(found) > 1 and split not in SPLITS:
                raise UserError(
                    f"{self.root}: split '{split}' is none of train, val, test; the card says what it is: "
                    f'options.splits = {{test = "{split}"}}'
                )
        return {split: found[split] for split in wanted}

    @cached_property
    def _images(self) -> dict[str, Any]:
        """Split -> the column of images alone, as Arrow."""
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
        paths = [path for part in self._files.values() for path in part]
        state = [(path, super(HuggingFaceReader, self).version_token(path)) for path in sorted(paths)]
        return hashlib.sha256(repr(state).encode()).hexdigest()[:16]


def _decoded(data: Any) -> pd.DataFrame:
    """The labels as pandas, class numbers as their names."""
    import datasets

    content: pd.DataFrame = data.to_pandas()
    for name, feature in data.features.items():
        if isinstance(feature, datasets.ClassLabel):
            content[name] = content[name].map(dict(enumerate(feature.names)))
    return content


def _relative(path: str, home: str, images: str) -> str:
    """A path in the table, counted from the dataset's folder; absolute ones as the image folder's builder gives them."""
    path = path.replace("\\", "/")
    if os.path.isabs(path):
        real = os.path.realpath(path)
        return os.path.relpath(real, home) if os.path.commonpath([home, real]) == home else path
    return os.path.join(images, path)


def _is_url(path: str) -> bool:
    return path.startswith(("http://", "https://"))
