"""A table of labels (CSV, TSV, Parquet or MATLAB) beside a folder of images."""

import io
import posixpath
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd

from agebench.config.cards.base import validate_model
from agebench.data.faces.body_crops import FACE, MIN_BODY, NO_FACE, read_boxes
from agebench.data.image_io import open_image
from agebench.data.readers.base import PathFault, check_paths, top_folder, walk_files
from agebench.data.readers.labelled import LabelledReader, RejectedRows
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
from agebench.errors import UserError
from agebench.types import RejectReason
from agebench.utils.table_cells import as_numbers, unknown_words

__all__ = ["TableReader", "read_label_table"]
# Before the corners in a row's path, where they are a body's: no face of this person is annotated.
_BODY = "body:"

# A column of `derived`: why the row cannot be used, a PathFault.
FAULT = "fault"


class TableReader(LabelledReader):
    """One row an image: its path, its age, and whatever else is known.

    Args:
        root: the folder of table and images, or the table itself.
        groups: the card's groups; each must be a column.
        table: the table's name in the folder; empty: the only table there. With `{split}`, `{fold}` or another label in
            it, several tables, whose names say that label.
        columns: our name -> the table's name, for columns that are called differently; a number (from 0) in a table
            without header; or a template of the table's columns, `{folder}/{name}.jpg`. `path` and `age` must exist;
            `sample_id` (else the path), `age_low`, `age_high`, `gender`, `race`, `subject`, `split` and `fold` are used where
            they exist; likewise `body_bbox` (left, top, right, bottom in pixels) and `body_path`, for models that see
            bodies: the box counts in that picture where there is one, else in the image itself; and `face_bbox`, the face in
            the image, for models whose faces are unaligned boxes. A box of four times -1 says that there is none.
        separator: empty: a comma, in `.tsv` a tab; a space: any white space.
        header: whether the first row names the columns.
        struct: in a `.mat`, which variable is the table.
        images: the folder that paths count from, relative to the table's; paths with folders of their own need none.
        box: four of the table's columns, left, top, right and bottom of the face in pixels, for photographs of several
            people: only this part of the image is read. A row with -1 four times is a person
            without a face, and is used where its `body_bbox` has at least 100 pixels a side.
        margin: how much more than the box, as a share of its sides.
        options: `values`, `open_ages`, `tables` and `lists`, see `LabelledReader`.
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
        named = root.resolve() if root is not None and root.is_file() else None
        super().__init__(named.parent if named else root, groups, **options)
        described: dict[str, Any] = {"file": named.name if named else table, "columns": columns or {}, "images": images}
        described |= {"separator": separator, "header": header, "struct": struct}
        self.table = validate_model(Table, described, source="options")
        self.box = tuple(box)
        if len(self.box) not in (0, 4):
            raise UserError(f"options.box = {list(box)}: it needs four columns: left, top, right, bottom")
        self.margin = margin

    def read(self) -> Samples:
        """All rows; those whose image is missing, lies outside the folder or stood before are put aside.

        Raises:
            UserError: no such table or column, a damaged table, or not one usable row.
        """
        assert self.root is not None
        table = self.table if self.table.file else self.table.model_copy(update={"file": self._only_table()})
        files = find_label_tables(self.root, table)
        rows = self.derive_columns(self._rows(files, table))
        source = str(self.root / next(iter(files))) if len(files) == 1 else str(self.root)
        own_ids = "sample_id" in rows
        if not own_ids:
            plain = [posixpath.normpath(given) if given else "" for given in rows["given"].str.replace("\\", "/")]
            rows["sample_id"] = plain if len(files) == 1 else rows["path"]
        rows["sample_id"] = to_text(rows["sample_id"])
        faults, paths = check_paths(self.root, "", rows["path"].tolist(), rows["given"].tolist())
        unnamed = rows["sample_id"].isna() | rows["sample_id"].isin(list(unknown_words("sample_id")))
        if own_ids and unnamed.any():
            row = int(rows["row"][unnamed].iloc[0]) + 1
            raise UserError(f"{source}: row {row} has no sample_id; give every row one, or leave the column out")
        rows = rows.assign(path=paths)
        if FAULT in rows:
            faults = [fault or own for fault, own in zip(faults, rows.pop(FAULT), strict=True)]
        if self.box:
            rows, faults = self._boxed(rows, faults)
        put_aside = [
            Rejected(name, path, *fault)
            for name, path, fault in zip(rows["sample_id"], paths, faults, strict=True)
            if fault
        ]
        usable = pd.Series([fault is None for fault in faults], index=rows.index, dtype=bool)
        return self.join_label_tables(rows[usable].reset_index(drop=True), put_aside, source=source, own_ids=own_ids)

    def with_bodies(self, rows: pd.DataFrame, *, source: str) -> tuple[pd.DataFrame, RejectedRows]:
        """With `box`, bodies are sought in the whole picture, whose path ends in `#`."""
        rows, aside = super().with_bodies(rows, source=source)
        if self.box and {"body_bbox", "body_path"} & set(rows):
            nothing = pd.Series(pd.NA, index=rows.index, dtype="str")
            boxes = rows.get("body_bbox", nothing)
            whole = rows["path"].str.rpartition("#")[0].where(boxes.notna())
            rows = rows.assign(body_path=rows.get("body_path", nothing).fillna(whole) + "#")
        return rows, aside

    def derive_columns(self, rows: pd.DataFrame) -> pd.DataFrame:
        """`rows` with what follows from other columns; for formats whose ages must be computed.

        A column `FAULT` holds a `PathFault` for rows that the format itself says cannot be used, else None.
        """
        return rows

    def image_bytes(self, path: str) -> bytes:
        """The encoded image; with `box`, the part of it that is the face, as PNG, and all of it where no part is named."""
        if not self.box:
            return super().image_bytes(path)
        file, _, corners = path.rpartition("#")
        if not corners:
            return super().image_bytes(file)
        left, top, right, bottom = (float(corner) for corner in corners.removeprefix(_BODY).split(","))
        margin = self.margin if self.shows_face(path) else 0.0
        across, down = (right - left) * margin / 2, (bottom - top) * margin / 2
        image = open_image(super().image_bytes(file))
        part = (
            max(0, left - across),
            max(0, top - down),
            min(image.width, right + across),
            min(image.height, bottom + down),
        )
        if part[2] - part[0] < 1 or part[3] - part[1] < 1:
            raise OSError(f"its box {corners} lies outside the image")
        content = io.BytesIO()
        image.crop(tuple(round(side) for side in part)).save(content, "PNG", compress_level=1)  # type: ignore[arg-type]
        return content.getvalue()

    def whole_image(self, path: str) -> str:
        """The path of the whole image; with `box`, paths name a part of it."""
        return path.rpartition("#")[0] + "#" if self.box else path

    def shows_face(self, path: str) -> bool:
        """With `box`, a row may be a person whose face is not seen."""
        return not (self.box and path.rpartition("#")[2].startswith(_BODY))

    def version_token(self, path: str) -> str:
        """Changes when the file or the box does."""
        return (
            super().version_token(path.rpartition("#")[0]) + f" {self.margin}"
            if self.box
            else super().version_token(path)
        )

    def _rows(self, files: dict[str, dict[str, str]], table: Table) -> pd.DataFrame:
        assert self.root is not None
        elsewhere = self.tables or {"age_low", "age_high"} <= set(table.columns)
        needed = ("path",) if elsewhere else (*self.required_columns, *self.groups)
        known = tuple(name for name in needed if name not in self.lists)
        return read_labels(self.root, files, table, (*STANDARD_COLUMNS, *self.groups, *self.box), (*known, *self.box))

    def _only_table(self) -> str:
        """The only table in the root.

        Raises:
            UserError: there is none, or several.
        """
        assert self.root is not None
        further = {table.file for table in self.tables} | {
            entry.file for files in self.lists.values() for entry in files.values()
        }
        files, _ = walk_files(self.root)
        top = top_folder(files)
        tables = [path for path in files if path.lower().endswith(TABLES) and path.removeprefix(top) not in further]
        if len(tables) != 1:
            found = (
                f"{len(tables)} tables ({', '.join(tables[:3])})" if tables else f"no table ({', '.join(TABLES[:3])})"
            )
            raise UserError(f"{self.root}: {found}; the card's options.table names the right one")
        return tables[0]

    def _boxed(self, rows: pd.DataFrame, faults: list[PathFault | None]) -> tuple[pd.DataFrame, list[PathFault | None]]:
        """`rows` whose paths say the box, and are unique by it; those without one get a fault.

        Raises:
            UserError: there are landmarks, too, which count in the whole image.
        """
        if "landmarks" in rows or self.landmark_files:
            raise UserError(
                f"{self.root}: landmarks count in the whole photograph and cannot be used with options.box; leave one of them out"
            )
        corners = rows[list(self.box)].apply(as_numbers)
        exact, corners = corners.astype("str").agg(" ".join, axis=1), corners.round(1)
        left, top, right, bottom = (corners[name] for name in self.box)
        good = (right > left) & (bottom > top)
        if rows["path"].duplicated().any():  # parts of one photograph stay on one side of every split
            rows = rows.assign(**{PHOTOGRAPH: rows["path"]})
        suffix = "#" + corners.astype("str").agg(",".join, axis=1)
        nobody = pd.Series([None] * len(rows), index=rows.index, dtype=object)
        bodies = read_boxes(rows["body_bbox"], source=str(self.root)) if "body_bbox" in rows else nobody
        large = bodies.map(lambda box: box is not None and min(box[2] - box[0], box[3] - box[1]) >= MIN_BODY)
        faceless = (corners == -1).all(axis=1) & large.astype(bool)
        suffix = suffix.where(
            ~faceless, bodies.map(lambda box: f"#{_BODY}{','.join(f'{side:g}' for side in box or ())}")
        )
        usable = good | faceless
        boxless = PathFault(RejectReason.NO_FACE_BOX, NO_FACE)
        faults = [fault or (None if fine else boxless) for fault, fine in zip(faults, usable, strict=True)]
        rows = rows.assign(path=rows["path"] + suffix, sample_id=rows["sample_id"] + suffix)
        if FACE not in rows:
            rows = rows.assign(**{FACE: exact.where(good, "")})
        return rows.drop(columns=[*self.box]), faults
