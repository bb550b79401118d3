"""A table of labels (CSV, TSV, Parquet or MATLAB) beside a folder of images."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd

from agebench.config.toml_io import validate_model
from agebench.data.faces.body_crops import FACE, MIN_BODY, NO_FACE, read_boxes
from agebench.data.image_io import open_image
from agebench.data.readers.base import PathFault, check_paths, normalize_path, top_folder, walk_files
from agebench.data.readers.labelled import LabelledReader, RejectedRows
from agebench.data.readers.options import check_number
from agebench.data.readers.patterns import to_text
from agebench.data.readers.table_io import (
    STANDARD_COLUMNS,
    TABLES,
    Table,
    find_label_tables,
    read_label_table,
    read_labels,
)
from agebench.data.samples import PHOTOGRAPH, Rejected, Samples
from agebench.errors import ImageRejectedError, UserError
from agebench.types import RejectReason
from agebench.utils.table_cells import as_numbers, unknown_words

__all__ = ["TableReader", "read_label_table"]
# Prefix of the corners in a row's path if they are those of a body, because no face of this person is annotated.
_BODY = "body:"

# Column that `derive_columns` may add: a PathFault for a row that cannot be used, else None.
FAULT = "fault"


class TableReader(LabelledReader):
    """Reader for a table with one row per image.

    Args:
        root: the folder of table and images, or the table itself.
        groups: columns for subgroup metrics, from the card; each must be a column of the table.
        table: path of the table in the folder; empty for the only table there. With `{split}`, `{fold}` or another label in
            it, it stands for several tables whose names contain that label.
        columns: agebench's name -> the table's name, for columns with other names; a number (from 0) for a table without
            header; or a template of the table's columns, `{folder}/{name}.jpg`. `path` and `age` are required. `sample_id`
            (default: the path), `age_low`, `age_high`, `gender`, `race`, `subject`, `split` and `fold` are optional.
            `body_bbox` (left, top, right, bottom in pixels) and `body_path` are for models that use bodies: the box is in
            the image at `body_path`, if there is one, else in the image itself. `face_bbox` is the face in the image, for
            models with unaligned face boxes. A box of four times -1 means that there is none.
        separator: field separator; empty for a comma (`.tsv`: a tab), a space for any white space.
        header: whether the first row names the columns.
        struct: in a `.mat`, name of the variable that is the table.
        images: the folder that paths start from, relative to the table's; not needed for paths from the table's folder.
        box: four of the table's columns, left, top, right and bottom of the face in pixels, for photographs of several
            people: only this part of the image is read. A row with -1 four times is a person without a visible face; it is
            used if its `body_bbox` has at least 100 pixels per side.
        margin: enlargement of the box, as a share of its sides.
        options: `values`, `open_ages`, `tables`, `lists` and `landmarks` of `LabelledReader`.
    """

    required_columns: ClassVar[tuple[str, ...]] = ("path", "age")

    def __init__(
        self,
        root: Path | None,
        groups: tuple[str, ...] = (),
        *,
        table: str = "",
        columns: dict[str, str | int] | None = None,
        separator: str = "",
        header: bool = True,
        struct: str = "",
        images: str = "",
        box: Sequence[str] = (),
        margin: float = 0.5,
        **options: Any,
    ) -> None:
        file = root.resolve() if root is not None and root.is_file() else None
        super().__init__(file.parent if file else root, groups, **options)
        fields: dict[str, Any] = {"file": file.name if file else table, "columns": columns or {}, "images": images}
        fields |= {"separator": separator, "header": header, "struct": struct}
        self.table = validate_model(Table, fields, source="options")
        self.box = tuple(box)
        if len(self.box) not in (0, 4):
            raise UserError(f"options.box = {list(box)}: it needs four columns: left, top, right, bottom")
        self.margin = check_number("margin", margin, 0, 10)

    def read(self) -> Samples:
        """Read all rows; reject those whose image is missing, outside the folder or repeated.

        Raises:
            UserError: the table or a column is missing, the table is damaged, or no row is usable.
        """
        assert self.root is not None
        table, files = self._find_table()
        rows = self.derive_columns(self._rows(files, table))
        source = str(self.root / next(iter(files))) if len(files) == 1 else str(self.root)
        own_ids = "sample_id" in rows
        if not own_ids:
            written = rows["given"].str.replace("\\", "/")
            rows["sample_id"] = (
                [normalize_path(path) if path else "" for path in written] if len(files) == 1 else rows["path"]
            )
        rows["sample_id"] = to_text(rows["sample_id"])
        faults, paths = check_paths(self.root, "", rows["path"].tolist(), rows["given"].tolist())
        has_no_id = rows["sample_id"].isna() | rows["sample_id"].isin(list(unknown_words("sample_id")))
        if own_ids and has_no_id.any():
            row = int(rows["row"][has_no_id].iloc[0]) + 1
            raise UserError(f"{source}: row {row} has no sample_id; give every row one, or leave the column out")
        rows = rows.assign(path=paths)
        if FAULT in rows:
            faults = [fault or derived for fault, derived in zip(faults, rows.pop(FAULT), strict=True)]
        if self.box:
            rows, faults = self._add_boxes(rows, faults)
        rejected = [
            Rejected(name, path, *fault)
            for name, path, fault in zip(rows["sample_id"], paths, faults, strict=True)
            if fault
        ]
        is_usable = pd.Series([fault is None for fault in faults], index=rows.index, dtype=bool)
        return self.join_label_tables(rows[is_usable].reset_index(drop=True), rejected, source=source, own_ids=own_ids)

    def with_bodies(self, rows: pd.DataFrame, *, source: str) -> tuple[pd.DataFrame, RejectedRows]:
        """Parse bodies; with `box`, they are in the whole image, whose path ends in `#`."""
        rows, rejected = super().with_bodies(rows, source=source)
        if self.box and {"body_bbox", "body_path"} & set(rows):
            missing = pd.Series(pd.NA, index=rows.index, dtype="str")
            boxes = rows.get("body_bbox", missing)
            whole_images = rows["path"].str.rpartition("#")[0].where(boxes.notna())
            rows = rows.assign(body_path=rows.get("body_path", missing).fillna(whole_images) + "#")
        return rows, rejected

    def derive_columns(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Add columns that are computed from others.

        A hook for formats whose ages must be computed.

        Args:
            rows: the table in agebench's columns.

        Returns:
            The rows. A column `FAULT` contains a `PathFault` for rows that the format marks as unusable, else None.
        """
        return rows

    def image_bytes(self, path: str) -> bytes:
        """Read an encoded image.

        With `box`, it is the part of the face as PNG, or the whole image if the path names no part.

        Args:
            path: path of the image, from the samples' column `path`.

        Raises:
            OSError: the image cannot be read.
            ImageRejectedError: the image cannot be decoded, or the box lies outside it.
        """
        if not self.box:
            return super().image_bytes(path)
        file, _, corners = path.rpartition("#")
        if not corners:
            return super().image_bytes(file)
        left, top, right, bottom = (float(corner) for corner in corners.removeprefix(_BODY).split(","))
        margin = self.margin if self.shows_face(path) else 0.0
        margin_x, margin_y = (right - left) * margin / 2, (bottom - top) * margin / 2
        image = open_image(super().image_bytes(file))
        crop = (
            max(0, left - margin_x),
            max(0, top - margin_y),
            min(image.width, right + margin_x),
            min(image.height, bottom + margin_y),
        )
        if crop[2] - crop[0] < 1 or crop[3] - crop[1] < 1:
            raise ImageRejectedError(f"its box {corners} lies outside the image", RejectReason.BAD_FACE_BOX)
        content = io.BytesIO()
        image.crop(tuple(round(edge) for edge in crop)).save(content, "PNG", compress_level=1)  # type: ignore[arg-type]
        return content.getvalue()

    def whole_image(self, path: str) -> str:
        """Return the path of the whole image; with `box`, `path` names a part of it."""
        return path.rpartition("#")[0] + "#" if self.box else path

    def shows_face(self, path: str) -> bool:
        """Return whether the row shows a face.

        With `box`, it may be a person whose face is hidden.
        """
        return not (self.box and path.rpartition("#")[2].startswith(_BODY))

    def version_token(self, path: str) -> str:
        """Return a text that changes with the file or the box."""
        if not self.box:
            return super().version_token(path)
        return super().version_token(path.rpartition("#")[0]) + f" {self.margin}"

    def _rows(self, files: dict[str, dict[str, str]], table: Table) -> pd.DataFrame:
        assert self.root is not None
        has_other_ages = self.tables or {"age_low", "age_high"} <= set(table.columns)
        required = ("path",) if has_other_ages else (*self.required_columns, *self.groups)
        required = (*(name for name in required if name not in self.lists), *self.box)
        return read_labels(self.root, files, table, (*STANDARD_COLUMNS, *self.groups, *self.box), required)

    def _find_table(self) -> tuple[Table, dict[str, dict[str, str]]]:
        """Return the description of the table, and the labels in the name of each of its files."""
        assert self.root is not None
        files, _ = walk_files(self.root)
        table = self.table if self.table.file else self.table.model_copy(update={"file": self._only_table(files)})
        return table, find_label_tables(self.root, table, files)

    def _only_table(self, files: Sequence[str]) -> str:
        """Return the path of the only table among the files of the root.

        Raises:
            UserError: there is no table, or several.
        """
        assert self.root is not None
        label_files = {table.file for table in self.tables} | {
            entry.file for files in self.lists.values() for entry in files.values()
        }
        top = top_folder(files)
        tables = [path for path in files if path.lower().endswith(TABLES) and path.removeprefix(top) not in label_files]
        if len(tables) != 1:
            description = (
                f"{len(tables)} tables ({', '.join(tables[:3])})" if tables else f"no table ({', '.join(TABLES[:3])})"
            )
            raise UserError(f"{self.root}: {description}. Name the table on the card: options.table")
        return tables[0]

    def _add_boxes(
        self, rows: pd.DataFrame, faults: list[PathFault | None]
    ) -> tuple[pd.DataFrame, list[PathFault | None]]:
        """Append the box to each path, which makes the paths unique; rows without a box get a fault.

        Raises:
            UserError: the labels have landmarks, which refer to the whole image.
        """
        if "landmarks" in rows or self.landmark_files:
            raise UserError(
                f"{self.root}: landmarks refer to the whole photograph and cannot be combined with options.box. Remove one of them."
            )
        corners = rows[list(self.box)].apply(as_numbers)
        exact_boxes, corners = corners.astype("str").agg(" ".join, axis=1), corners.round(1)
        left, top, right, bottom = (corners[name] for name in self.box)
        has_box = (right > left) & (bottom > top)
        if rows["path"].duplicated().any():  # parts of one photograph must be in one split
            rows = rows.assign(**{PHOTOGRAPH: rows["path"]})
        suffix = "#" + corners.astype("str").agg(",".join, axis=1)
        missing = pd.Series([None] * len(rows), index=rows.index, dtype=object)
        bodies = read_boxes(rows["body_bbox"], source=str(self.root)) if "body_bbox" in rows else missing
        is_large = bodies.map(lambda box: box is not None and min(box[2] - box[0], box[3] - box[1]) >= MIN_BODY)
        is_body_only = (corners == -1).all(axis=1) & is_large.astype(bool)
        suffix = suffix.where(
            ~is_body_only, bodies.map(lambda box: f"#{_BODY}{','.join(f'{edge:g}' for edge in box or ())}")
        )
        no_box = PathFault(RejectReason.NO_FACE_BOX, NO_FACE)
        faults = [
            fault or (None if usable else no_box) for fault, usable in zip(faults, has_box | is_body_only, strict=True)
        ]
        rows = rows.assign(path=rows["path"] + suffix, sample_id=rows["sample_id"] + suffix)
        if FACE not in rows:
            rows = rows.assign(**{FACE: exact_boxes.where(has_box, "")})
        return rows.drop(columns=[*self.box]), faults
