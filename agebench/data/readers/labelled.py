"""What folder, csv and huggingface share: labels from further tables, official splits from lists, values translated."""

import posixpath
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd

from agebench.config.cards.base import validate_model
from agebench.data.faces.body_crops import FACE, MASKED, find_masks, read_boxes
from agebench.data.readers import Reader
from agebench.data.readers.base import check_paths, normalize_labels, to_samples, top_folder, walk_files
from agebench.data.readers.landmarks import landmark_files, parse_landmarks
from agebench.data.readers.patterns import to_text
from agebench.data.readers.table_io import STANDARD_COLUMNS, ListFile, Table, find_label_tables, read_labels, read_list
from agebench.data.samples import Rejected, Samples
from agebench.errors import UserError
from agebench.types import RejectReason
from agebench.utils.table_cells import unknown_words

# Where a table's row comes from: its file's number, its own, how many there are, and the path as it stands there.
_ORIGIN = ["file", "row", "rows", "given"]
RejectedRows = list[Rejected]


class LabelledReader(Reader):
    """A reader whose labels may stand in several places.

    Args:
        root: the dataset's folder.
        groups: the card's groups.
        values: see `agebench.data.readers.base.normalize_labels`.
        open_ages: the youngest and the oldest age that ranges with an open end reach to.
        tables: further tables of labels, each as `agebench.data.readers.table_io.Table`; they fill in what is unknown so far.
        lists: column -> value -> a file that lists the images which have it, e.g. `split.train = "train.txt"`, or with the
            folder that its lines count from, `split.train = { file = "train.txt", images = "photos" }`.
        landmarks: files of points, one an image, as a template of its path and labels: `points/{stem}.pts`.
    """

    def __init__(
        self,
        root: Path | None,
        groups: tuple[str, ...] = (),
        *,
        values: dict[str, dict[str, str]] | None = None,
        open_ages: Sequence[float] = (),
        tables: Sequence[dict[str, Any]] = (),
        lists: dict[str, dict[str, str | dict[str, str]]] | None = None,
        landmarks: str = "",
    ) -> None:
        super().__init__(root, groups)
        self.values = values or {}
        self.open_ages = tuple(open_ages)
        self.tables = [validate_model(Table, table, source="options.tables") for table in tables]
        self.lists = {
            column: {value: _list_file(file, column) for value, file in files.items()}
            for column, files in (lists or {}).items()
        }
        self.landmark_files = landmarks

    def join_label_tables(
        self, rows: pd.DataFrame, put_aside: RejectedRows, *, source: str, own_ids: bool = False
    ) -> Samples:
        """Samples from rows with `sample_id`, `path` and the labels known so far; `own_ids` as in `finish`.

        Raises:
            UserError: a table or list that is missing, damaged or fits no image; no age anywhere; or see `translate`.
        """
        for table in self.tables:
            rows, put_aside = self._joined(rows, put_aside, table)
        for column, files in self.lists.items():
            rows, put_aside = self._listed(rows, put_aside, column, files)
        if "age" not in rows and not {"age_low", "age_high"} <= set(rows):
            raise UserError(
                f'{source}: nothing in it is an age; the card says where it stands: options.columns = {{age = "…"}}'
            )
        rows = rows.drop(columns=_ORIGIN, errors="ignore")
        translated = normalize_labels(rows, self.values, open_ages=self.open_ages, source=source)
        if FACE in translated:
            translated = translated.assign(**{FACE: read_boxes(translated[FACE], source=source, name=FACE)})
        translated, faulty = self.with_bodies(translated, source=source)
        translated, misplaced = self.with_landmarks(translated)
        translated = self._with_masks(translated)
        aside = [*put_aside, *faulty, *misplaced]
        return to_samples(translated, aside, self.groups, source=source, own_ids=own_ids)

    def with_landmarks(self, rows: pd.DataFrame) -> tuple[pd.DataFrame, RejectedRows]:
        """`rows` with `landmarks` as lists of numbers, None where there are none; and those whose points cannot be used.

        Raises:
            UserError: the template of landmark files names a label that is not there, or fits no file.
        """
        if self.landmark_files:
            assert self.root is not None
            rows = rows.assign(landmarks=landmark_files(self.root, self.landmark_files, rows))
        if "landmarks" not in rows:
            return rows, []
        cells = [parse_landmarks(value) for value in rows["landmarks"]]
        bad = pd.Series([isinstance(cell, str) for cell in cells], index=rows.index, dtype=bool)
        aside = [
            Rejected(name, path, RejectReason.BAD_LANDMARKS, str(cell))
            for name, path, cell in zip(rows["sample_id"], rows["path"], cells, strict=True)
            if isinstance(cell, str)
        ]
        rows = rows.assign(landmarks=pd.Series(cells, index=rows.index, dtype="object"))
        return rows[~bad].reset_index(drop=True), aside

    def with_bodies(self, rows: pd.DataFrame, *, source: str) -> tuple[pd.DataFrame, RejectedRows]:
        """`rows` with checked `body_path` and read `body_bbox`, where there are such, and those whose body cannot be used.

        Raises:
            UserError: a box that is not four numbers.
        """
        if "body_bbox" in rows:
            rows = rows.assign(body_bbox=read_boxes(rows["body_bbox"], source=source))
        if "body_path" not in rows or not rows["body_path"].notna().any():
            return rows, []
        assert self.root is not None
        shown = rows["body_path"].notna()
        faults, found = check_paths(self.root, "", rows.loc[shown, "body_path"].tolist())
        rows = rows.assign(body_path=pd.Series(found, index=rows.index[shown], dtype="str"))
        fault_of = {row: fault for row, fault in zip(rows.index[shown], faults, strict=True) if fault}
        aside = [
            Rejected(rows["sample_id"][row], rows["path"][row], RejectReason.BODY_IMAGE, f"of its body: {fault.reason}")
            for row, fault in fault_of.items()
        ]
        return rows.drop(index=list(fault_of)).reset_index(drop=True), aside

    def _with_masks(self, rows: pd.DataFrame) -> pd.DataFrame:
        """`rows` with what is to be blackened in their bodies; rows without an age, which are put aside later, still count."""
        if "body_bbox" not in rows:
            return rows
        nothing = pd.Series([None] * len(rows), index=rows.index, dtype=object)
        own = [self.whole_image(path) for path in rows["path"]]
        elsewhere = rows["body_path"].fillna("") if "body_path" in rows else [""] * len(rows)
        where = [(face, body or face) for face, body in zip(own, elsewhere, strict=True)]
        masks = find_masks(rows.get(FACE, nothing).tolist(), rows["body_bbox"].tolist(), where)
        return rows.assign(**{MASKED: pd.Series(masks, index=rows.index, dtype=object)})

    def _joined(self, rows: pd.DataFrame, put_aside: RejectedRows, table: Table) -> tuple[pd.DataFrame, RejectedRows]:
        """`rows` with the labels of a further table; images of which it says two things are put aside.

        An unknown key joins nothing: two unknown people are not the same.
        """
        assert self.root is not None
        by = table.by
        of_image = by in ("path", "name", "stem")
        key = "path" if of_image else by
        needed = ("path",) if of_image else () if by == "row" else (by,)
        content = read_labels(
            self.root, find_label_tables(self.root, table), table, (*STANDARD_COLUMNS, *self.groups), needed
        )
        labels = [name for name in map(str, content) if name not in (*_ORIGIN, "path", "sample_id", by)]
        if by == "row":
            return self._beside(rows, content, labels, table), put_aside
        left = _key(rows[key], by) if of_image else _known(rows[by]) if by in rows else None
        right = _key(content[key], by) if of_image else _known(content[by])
        content, right = content[right.notna()], right.dropna()
        if left is None or not left.isin(right).any():
            first = f", the first image has '{left.iloc[0]}'" if left is not None and len(left) else ""
            raise UserError(
                f"{self.root}: table '{table.file}' fits no image: by {by}, its first row is "
                f"'{right.iloc[0] if len(right) else ''}'{first}; options.tables.by says what joins them"
            )
        content = content.assign(key=right)[["key", *labels]].drop_duplicates()
        twice = content["key"].duplicated(keep=False)
        doubtful = left.isin(content["key"][twice])
        put_aside = [
            *put_aside,
            *_rejected(
                rows[doubtful], RejectReason.CONFLICTING_LABELS, f"'{table.file}' says two different things of it"
            ),
        ]
        found = content[~twice].set_index("key").reindex(left).set_index(rows.index)
        return _filled(rows, found)[~doubtful].reset_index(drop=True), put_aside

    def _beside(self, rows: pd.DataFrame, content: pd.DataFrame, labels: list[str], table: Table) -> pd.DataFrame:
        """Row by row: the first files belong together, then the second, as their names sort."""
        if "file" not in rows:
            raise UserError(
                f"options.tables: by = 'row' joins '{table.file}' to the rows of another table; there is none"
            )
        numbers = ["file", "row"]
        expected, there = (dict(zip(part["file"], part["rows"], strict=True)) for part in (rows, content))
        for number, count in expected.items():
            if there.get(number, 0) != count:
                raise UserError(
                    f"{self.root}: '{table.file}' has {there.get(number, 0)} rows beside {count}: "
                    "joined by row, they must be as many"
                )
        found = content.set_index(numbers)[labels].reindex(pd.MultiIndex.from_frame(rows[numbers]))
        return _filled(rows, found.set_axis(rows.index))

    def _listed(
        self, rows: pd.DataFrame, put_aside: RejectedRows, column: str, files: dict[str, ListFile]
    ) -> tuple[pd.DataFrame, RejectedRows]:
        """`rows` with `column` from list files; of a split, images that no list names are put aside."""
        assert self.root is not None
        there = walk_files(self.root)[0]
        paths = dict.fromkeys([*rows["path"], *(rejected.path for rejected in put_aside)])  # rows may share an image
        known = _Names([*paths], top_folder(there))
        meanings: dict[str, str] = {}
        put_aside = list(put_aside)
        named_by: dict[int, str] = {}
        missing = []
        for meaning, entry in files.items():
            name = entry.file
            inside = next((path for path in (name, top_folder(there) + name) if path in there), None)
            if inside is None:
                raise UserError(f"{self.root}: no list '{name}' in it (options.lists.{column})")
            before = len(named_by)
            for line, field in read_list(self.root / inside):
                row = known.find(line, field, images=entry.images, source=str(self.root / inside))
                if row is None:
                    reason = f"named in '{name}', but there is no such image"
                    missing.append(Rejected(field, field, RejectReason.MISSING_FILE, reason))
                elif named_by.setdefault(row, name) != name:
                    raise UserError(
                        f"{self.root}: '{known.paths[row]}' stands in two lists of {column}: {named_by[row]} and {name}"
                    )
                else:
                    meanings[known.paths[row]] = meaning
            if len(named_by) == before:
                raise UserError(f"{self.root / inside}: not one of its lines is an image of the dataset")
        listed = rows["path"].map(meanings).astype("object")
        rows = rows.assign(**{column: listed})
        if column == "split":
            unlisted = listed.isna()
            names = ", ".join(entry.file for entry in files.values())
            reason = f"in none of the split's lists ({names})"
            put_aside += _rejected(rows[unlisted], RejectReason.NOT_LISTED, reason)
            rows = rows[~unlisted].reset_index(drop=True)
        return rows, [*put_aside, *missing]


class _Names:
    """Finds the image that a line of a list means: by its path, else by its name, with or without its ending."""

    def __init__(self, paths: Sequence[str], top: str) -> None:
        self.paths = list(paths)
        self._by_path = {path: row for row, path in enumerate(self.paths)}
        self._by_path |= {path.removeprefix(top): row for path, row in list(self._by_path.items())}
        self._by_name: dict[str, list[int]] = {}
        for row, path in enumerate(self.paths):
            name = PurePosixPath(path)
            for text in {name.name, name.stem}:
                self._by_name.setdefault(text, []).append(row)

    def find(self, line: str, field: str, *, images: str = "", source: str) -> int | None:
        """The image's row, None if there is none; with `images`, only those in this folder.

        Raises:
            UserError: it fits several images.
        """
        for entry in (line, field):
            entry = posixpath.join(images, entry.removeprefix("./"))
            if entry in self._by_path:
                return self._by_path[entry]
            rows = self._by_name.get(entry.rpartition("/")[2], [])
            endings = (f"/{entry}", *(f"/{entry}{PurePosixPath(self.paths[row]).suffix}" for row in rows))
            close = [row for row in rows if f"/{self.paths[row]}".endswith(endings)] or rows
            if len(close) == 1:
                return close[0]
            if close:
                raise UserError(
                    f"{source}: '{entry}' may be {self.paths[close[0]]} or {self.paths[close[1]]}; give the folder, too: in "
                    'the list, or for all of its lines on the card: { file = "…", images = "…" }'
                )
        return None


def _list_file(entry: str | dict[str, str], column: str) -> ListFile:
    described = {"file": entry} if isinstance(entry, str) else entry
    return validate_model(ListFile, described, source=f"options.lists.{column}")


def _rejected(rows: pd.DataFrame, code: RejectReason, reason: str) -> RejectedRows:
    return [Rejected(name, path, code, reason) for name, path in zip(rows["sample_id"], rows["path"], strict=True)]


def _known(labels: "pd.Series[Any]") -> "pd.Series[str]":
    text = to_text(labels)
    return text.mask(text.isin(list(unknown_words("subject"))))


def _key(paths: "pd.Series[str]", by: str) -> "pd.Series[str]":
    if by == "path":
        return paths
    names = paths.str.rpartition("/")[2]
    return names.str.replace(r"\.[^.]*$", "", regex=True) if by == "stem" else names


def _filled(rows: pd.DataFrame, found: pd.DataFrame) -> pd.DataFrame:
    """`rows` with the columns of `found` where they say nothing yet."""
    columns = {}
    for name in map(str, found):
        new = found[name]
        columns[name] = (
            rows[name].where(rows[name].notna() & (rows[name].astype("str") != ""), new) if name in rows else new
        )
    return rows.assign(**columns)
