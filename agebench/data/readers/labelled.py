"""Base of the readers folder, csv and huggingface: labels from further tables and lists, and their translation."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from agebench.config.toml_io import Settings, validate_model
from agebench.data.faces.body_crops import FACE, MASKED, find_masks, read_boxes
from agebench.data.readers import Reader
from agebench.data.readers.base import check_paths, to_samples, top_folder, walk_files
from agebench.data.readers.image_index import ImageIndex, find_listed_image, find_table_images, image_key
from agebench.data.readers.landmarks import (
    average_points,
    check_point_means,
    fixed_landmarks,
    landmark_files,
    parse_landmarks,
)
from agebench.data.readers.options import check_open_ages
from agebench.data.readers.patterns import to_text
from agebench.data.readers.table_io import STANDARD_COLUMNS, ListFile, Table, find_label_tables, read_labels, read_list
from agebench.data.readers.vocabulary import find_unknown, normalize_labels
from agebench.data.samples import Rejected, Samples
from agebench.errors import UserError
from agebench.types import RejectReason
from agebench.utils.table_cells import unknown_words

# Origin of a table's row: number of the file, number of the row, number of rows in the file, path as written there.
_ORIGIN = ["file", "row", "rows", "given"]
RejectedRows = list[Rejected]


class LabelledReader(Reader):
    """A reader whose labels may be in several tables and lists.

    Args:
        root: the dataset's folder.
        groups: columns for subgroup metrics, from the card.
        values: column -> value in the source -> value in agebench; see `normalize_labels`.
        open_ages: youngest and oldest age, in years, of ranges with an open end.
        tables: further tables of labels, each with the fields of `agebench.data.readers.table_io.Table`; they fill in
            unknown labels.
        lists: column -> value -> a file that lists the images with this value, e.g. `split.train = "train.txt"`, or with the
            folder that its lines start from, `split.train = { file = "train.txt", images = "photos" }`.
        landmarks: landmark files, one per image, as a template of its path and labels: `points/{stem}.pts`; or, for images
            that their owners aligned, the x and y of each point, pixels, the same for every image.
        landmark_means: lists of point indices, from 0; the mean of each list replaces the annotated points, e.g. the six
            points around an eye become its center.
    """

    def __init__(
        self,
        root: Path | None,
        groups: tuple[str, ...] = (),
        *,
        values: dict[str, dict[str, str]] | None = None,
        open_ages: Sequence[float] = (),
        tables: Sequence[Settings] = (),
        lists: dict[str, dict[str, str | dict[str, str]]] | None = None,
        landmarks: str | Sequence[Sequence[float]] = "",
        landmark_means: Sequence[Sequence[int]] = (),
    ) -> None:
        super().__init__(root, groups)
        self.values = values or {}
        self.open_ages = check_open_ages(open_ages)
        self.tables = [validate_model(Table, table, source="options.tables") for table in tables]
        self.lists = {
            column: {value: _list_file(file, column) for value, file in files.items()}
            for column, files in (lists or {}).items()
        }
        self.landmark_files = landmarks if isinstance(landmarks, str) else ""
        self._fixed_landmarks = None if isinstance(landmarks, str) else fixed_landmarks(landmarks)
        self._landmark_means = check_point_means(landmark_means)

    def join_label_tables(
        self, rows: pd.DataFrame, rejected: RejectedRows, *, source: str, own_ids: bool = False
    ) -> Samples:
        """Complete, translate and convert the rows of a reader to Samples.

        The labels of further tables and lists are added first.

        Args:
            rows: `sample_id`, `path` and the labels of the reader itself.
            rejected: rows that the reader rejected.
            source: name of the dataset's folder or file in error messages.
            own_ids: whether the source names its rows, so that several of them may show one image.

        Raises:
            UserError: a table or list is missing, damaged or matches no image; no column is an age; a label cannot be
                translated; or no row is usable.
        """
        rejected = list(rejected)
        for table in self.tables:
            rows, added = self._join_table(rows, [row.path for row in rejected], table)
            rejected += added
        for column, files in self.lists.items():
            rows, added = self._join_lists(rows, [row.path for row in rejected], column, files)
            rejected += added
        if "age" not in rows and not {"age_low", "age_high"} <= set(rows):
            raise UserError(
                f'{source}: no column is an age. Name the column of ages on the card: options.columns = {{age = "…"}}'
            )
        rows = normalize_labels(
            rows.drop(columns=_ORIGIN, errors="ignore"), self.values, open_ages=self.open_ages, source=source
        )
        if FACE in rows:
            rows = rows.assign(**{FACE: read_boxes(rows[FACE], source=source, name=FACE)})
        rows, without_body = self.with_bodies(rows, source=source)
        rows, without_landmarks = self.with_landmarks(rows)
        rejected += [*without_body, *without_landmarks]
        return to_samples(self._with_masks(rows), rejected, self.groups, source=source, own_ids=own_ids)

    def with_landmarks(self, rows: pd.DataFrame) -> tuple[pd.DataFrame, RejectedRows]:
        """Parse landmarks to lists of numbers, None for an image without landmarks.

        Args:
            rows: labels with `sample_id` and `path`.

        Returns:
            The usable rows, and those whose landmarks cannot be used.

        Raises:
            UserError: the template of landmark files names a missing label, or matches no file.
        """
        if self.landmark_files:
            assert self.root is not None
            rows = rows.assign(landmarks=landmark_files(self.root, self.landmark_files, rows))
        if self._fixed_landmarks is not None:
            cells: list[list[float] | str | None] = [self._fixed_landmarks] * len(rows)
        elif "landmarks" in rows:
            cells = [parse_landmarks(value) for value in rows["landmarks"]]
        else:
            return rows, []
        if self._landmark_means:
            cells = [average_points(cell, self._landmark_means) for cell in cells]
        is_bad = pd.Series([isinstance(cell, str) for cell in cells], index=rows.index, dtype=bool)
        rejected = [
            Rejected(name, path, RejectReason.BAD_LANDMARKS, str(cell))
            for name, path, cell in zip(rows["sample_id"], rows["path"], cells, strict=True)
            if isinstance(cell, str)
        ]
        rows = rows.assign(landmarks=pd.Series(cells, index=rows.index, dtype="object"))
        return rows[~is_bad].reset_index(drop=True), rejected

    def with_bodies(self, rows: pd.DataFrame, *, source: str) -> tuple[pd.DataFrame, RejectedRows]:
        """Parse `body_bbox` and check `body_path`, if the labels have them.

        Args:
            rows: labels with `sample_id` and `path`.
            source: name of the table in error messages.

        Returns:
            The usable rows, and those whose body cannot be used.

        Raises:
            UserError: a box is not four numbers.
        """
        if "body_bbox" in rows:
            rows = rows.assign(body_bbox=read_boxes(rows["body_bbox"], source=source))
        if "body_path" not in rows or not rows["body_path"].notna().any():
            return rows, []
        assert self.root is not None
        has_body = rows["body_path"].notna()
        faults, paths = check_paths(self.root, "", rows.loc[has_body, "body_path"].tolist())
        rows = rows.assign(body_path=pd.Series(paths, index=rows.index[has_body], dtype="str"))
        fault_by_row = {row: fault for row, fault in zip(rows.index[has_body], faults, strict=True) if fault}
        rejected = [
            Rejected(rows["sample_id"][row], rows["path"][row], RejectReason.BODY_IMAGE, f"of its body: {fault.reason}")
            for row, fault in fault_by_row.items()
        ]
        return rows.drop(index=list(fault_by_row)).reset_index(drop=True), rejected

    def _with_masks(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Add the regions to blacken in bodies. Rows without an age, which are rejected later, still count as people."""
        if "body_bbox" not in rows:
            return rows
        missing = pd.Series([None] * len(rows), index=rows.index, dtype=object)
        face_images = [self.whole_image(path) for path in rows["path"]]
        body_images = rows["body_path"].fillna("") if "body_path" in rows else [""] * len(rows)
        images = [(face, body or face) for face, body in zip(face_images, body_images, strict=True)]
        masks = find_masks(rows.get(FACE, missing).tolist(), rows["body_bbox"].tolist(), images)
        return rows.assign(**{MASKED: pd.Series(masks, index=rows.index, dtype=object)})

    def _join_table(
        self, rows: pd.DataFrame, rejected_paths: list[str], table: Table
    ) -> tuple[pd.DataFrame, RejectedRows]:
        """Add the labels of a further table; reject images for which it has two different rows.

        Unknown keys do not match: two unknown people are not the same person.
        """
        assert self.root is not None
        by = table.by
        is_image_key = by in ("path", "name", "stem")
        key_column = "path" if is_image_key else by
        required = ("path",) if is_image_key else () if by == "row" else (by,)
        files = find_label_tables(self.root, table)
        content = read_labels(self.root, files, table, (*STANDARD_COLUMNS, *self.groups), required)
        labels = [name for name in map(str, content) if name not in (*_ORIGIN, "path", "sample_id", by)]
        if by == "row":
            return self._join_by_row(rows, content, labels, table), []
        row_keys = image_key(rows[key_column], by) if is_image_key else _known_text(rows[by]) if by in rows else None
        table_keys = image_key(content[key_column], by) if is_image_key else _known_text(content[by])
        content, table_keys = content[table_keys.notna()], table_keys.dropna()
        first_key = table_keys.iloc[0] if len(table_keys) else ""
        first = f", the first image has '{row_keys.iloc[0]}'" if row_keys is not None and len(row_keys) else ""
        if by in ("name", "stem"):
            row_keys = rows["path"]
            top = top_folder([*files, *row_keys])
            source = f"{self.root}: table '{table.file}'"
            images = find_table_images(row_keys, rejected_paths, top, content, table, source=source)
            table_keys = content["path"].map(images)
        if row_keys is None or not row_keys.isin(table_keys).any():
            raise UserError(
                f"{self.root}: table '{table.file}' fits no image: by {by}, its first row is '{first_key}'{first}. "
                "Set options.tables.by to the common column."
            )
        content = content.assign(key=table_keys).dropna(subset="key")[["key", *labels]].drop_duplicates()
        is_repeated = content["key"].duplicated(keep=False)
        is_ambiguous = row_keys.isin(content["key"][is_repeated])
        reason = f"'{table.file}' has rows with different labels for it"
        rejected = _reject_rows(rows[is_ambiguous], RejectReason.CONFLICTING_LABELS, reason)
        joined = content[~is_repeated].set_index("key").reindex(row_keys).set_index(rows.index)
        return _fill_unknown(rows, joined, self.values)[~is_ambiguous].reset_index(drop=True), rejected

    def _join_by_row(self, rows: pd.DataFrame, content: pd.DataFrame, labels: list[str], table: Table) -> pd.DataFrame:
        """Join row by row: the first files of both tables, then the second ones, in the order of their names."""
        if "file" not in rows:
            raise UserError(
                f"options.tables: by = 'row' joins '{table.file}' to the rows of another table; there is none"
            )
        row_key = ["file", "row"]
        expected, actual = (dict(zip(part["file"], part["rows"], strict=True)) for part in (rows, content))
        for file, count in expected.items():
            if actual.get(file, 0) != count:
                raise UserError(
                    f"{self.root}: '{table.file}' has {actual.get(file, 0)} rows beside {count}. "
                    "Tables that are joined by row must have the same number of rows."
                )
        joined = content.set_index(row_key)[labels].reindex(pd.MultiIndex.from_frame(rows[row_key]))
        return _fill_unknown(rows, joined.set_axis(rows.index), self.values)

    def _join_lists(
        self, rows: pd.DataFrame, rejected_paths: list[str], column: str, lists: dict[str, ListFile]
    ) -> tuple[pd.DataFrame, RejectedRows]:
        """Add a column from list files; reject listed images that do not exist and, for a split, images in no list."""
        assert self.root is not None
        files = walk_files(self.root)[0]
        index = ImageIndex(
            [*dict.fromkeys([*rows["path"], *rejected_paths])], top_folder(files)
        )  # rows may share images
        value_by_path: dict[str, str] = {}
        list_by_row: dict[int, str] = {}
        rejected: RejectedRows = []
        for value, entry in lists.items():
            name = entry.file
            path = next((path for path in (name, top_folder(files) + name) if path in files), None)
            if path is None:
                raise UserError(f"{self.root}: no list '{name}' in it (options.lists.{column})")
            n_listed = len(list_by_row)
            for line, first_field in read_list(self.root / path):
                row = find_listed_image(index, (line, first_field), entry.images, source=str(self.root / path))
                if row is None:
                    reason = f"named in '{name}', but there is no such image"
                    rejected.append(Rejected(first_field, first_field, RejectReason.MISSING_FILE, reason))
                elif list_by_row.setdefault(row, name) != name:
                    raise UserError(
                        f"{self.root}: '{index.paths[row]}' is in two lists of {column}: {list_by_row[row]} and {name}"
                    )
                else:
                    value_by_path[index.paths[row]] = value
            if len(list_by_row) == n_listed:
                raise UserError(f"{self.root / path}: not one of its lines is an image of the dataset")
        values = rows["path"].map(value_by_path).astype("object")
        rows = rows.assign(**{column: values})
        if column == "split":
            is_unlisted = values.isna()
            names = ", ".join(entry.file for entry in lists.values())
            reason = f"in none of the split's lists ({names})"
            unlisted = _reject_rows(rows[is_unlisted], RejectReason.NOT_LISTED, reason)
            return rows[~is_unlisted].reset_index(drop=True), [*unlisted, *rejected]
        return rows, rejected


def _list_file(entry: str | dict[str, str], column: str) -> ListFile:
    fields = {"file": entry} if isinstance(entry, str) else entry
    return validate_model(ListFile, fields, source=f"options.lists.{column}")


def _reject_rows(rows: pd.DataFrame, code: RejectReason, reason: str) -> RejectedRows:
    return [Rejected(name, path, code, reason) for name, path in zip(rows["sample_id"], rows["path"], strict=True)]


def _known_text(labels: "pd.Series[Any]") -> "pd.Series[str]":
    text = to_text(labels)
    return text.mask(text.isin(list(unknown_words("subject"))))


def _fill_unknown(rows: pd.DataFrame, labels: pd.DataFrame, values: dict[str, dict[str, str]]) -> pd.DataFrame:
    """Add labels to rows whose own labels are unknown, also by a word or by the card's `values`."""
    columns = {}
    for name in map(str, labels):
        columns[name] = labels[name]
        if name in rows:
            is_unknown = find_unknown(rows[name], name, values.get(name, {}))
            columns[name] = rows[name].where(~is_unknown, labels[name])
    return rows.assign(**columns)
