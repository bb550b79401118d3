"""A table of labels (CSV, TSV or Parquet) beside a folder of images."""

import os
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from agebench.data.bodies import COLUMNS as BODY
from agebench.data.bodies import read_boxes
from agebench.data.readers import Reader
from agebench.data.readers.common import finish, is_within, top_folder, translate, walk_files
from agebench.data.samples import Samples
from agebench.errors import UserError

TABLES = (".csv", ".tsv", ".parquet")
KNOWN = ("sample_id", "path", "age", "age_low", "age_high", "gender", "race", "subject", "split", *BODY)


class CSVReader(Reader):
    """One row an image: its path, its age, and whatever else is known.

    Args:
        root: the folder of table and images, or the table itself.
        groups: the card's groups; each must be a column.
        table: the table's name in the folder; empty: the only table there.
        columns: our name -> the table's name, for columns that are called differently. `path` and `age` must exist;
            `sample_id` (else the path), `age_low`, `age_high`, `gender`, `race`, `subject` and `split` are used where
            they exist; likewise `body_bbox` (left, top, right, bottom in pixels) and `body_path`, for models that see
            bodies: the box counts in that picture where there is one, else in the image itself.
        separator: empty: a comma, in `.tsv` a tab.
        images: the folder that paths count from, relative to the table's; paths with folders of their own need none.
        values: see `agebench.data.readers.common.translate`.
    """

    def __init__(
        self,
        root: Path | None,
        groups: tuple[str, ...] = (),
        *,
        table: str = "",
        columns: dict[str, str] | None = None,
        separator: str = "",
        images: str = "",
        values: dict[str, dict[str, str]] | None = None,
    ) -> None:
        named = root if root is not None and root.is_file() else None
        super().__init__(root.parent if named and root else root, groups)
        self.table = named.name if named else table
        self.columns = columns or {}
        self.separator = separator
        self.images = images
        self.values = values or {}

    def read(self) -> Samples:
        """All rows; those whose image is missing, lies outside the folder or stood before are put aside.

        Raises:
            UserError: no such table or column, a damaged table, or not one usable row.
        """
        assert self.root is not None
        inside = self.find_table()
        file = self.root / inside
        rows = translate(self._labels(file), self.values, source=str(file))
        base = str(PurePosixPath(inside).parent / self.images)
        reasons, paths = check_paths(self.root, base, rows["path"].astype("str").tolist())
        rows = rows.assign(path=paths)
        if "body_bbox" in rows:
            rows["body_bbox"] = read_boxes(rows["body_bbox"], source=str(file))
        if "body_path" in rows:
            shown = rows["body_path"].notna()
            faults, found = check_paths(self.root, base, rows.loc[shown, "body_path"].tolist())
            rows.loc[shown, "body_path"] = found
            at = zip(np.flatnonzero(shown).tolist(), faults, strict=True)
            body_reasons = {place: f"of its body: {fault}" for place, fault in at if fault}
            reasons = [reason or body_reasons.get(place, "") for place, reason in enumerate(reasons)]
        bad = pd.Series(reasons, index=rows.index) != ""
        put_aside = [
            (name, path, reason) for name, path, reason in zip(rows["sample_id"], paths, reasons, strict=True) if reason
        ]
        return finish(rows[~bad], put_aside, self.groups, source=str(file))

    def find_table(self) -> str:
        """The table's path in the root.

        Raises:
            UserError: it is not there, or the folder holds none or several and the card names none.
        """
        assert self.root is not None
        files, _ = walk_files(self.root)
        if self.table:
            for path in (self.table, top_folder(files) + self.table):
                if path in files:
                    return path
            raise UserError(f"{self.root}: no table '{self.table}' in it")
        tables = [path for path in files if path.lower().endswith(TABLES)]
        if len(tables) != 1:
            found = f"{len(tables)} tables ({', '.join(tables[:3])})" if tables else f"no table ({', '.join(TABLES)})"
            raise UserError(f"{self.root}: {found}; the card's options.table names the right one")
        return tables[0]

    def _labels(self, file: Path) -> pd.DataFrame:
        content = read_table(file, self.separator)
        wanted = {name: self.columns.get(name, name) for name in dict.fromkeys((*KNOWN, *self.groups, *self.columns))}
        needed = {"path", "age", *self.columns, *self.groups}
        for name, column in wanted.items():
            if name in needed and column not in content:
                raise UserError(
                    f"{file}: no column '{column}' for {name}; there are {', '.join(map(str, content.columns))}. "
                    f'The card says which it is: options.columns = {{{name} = "…"}}'
                )
        labels = pd.DataFrame({name: content[column] for name, column in wanted.items() if column in content})
        for bound in labels.columns.intersection(["age_low", "age_high"]):
            labels[bound] = pd.to_numeric(labels[bound], errors="coerce")
        if "sample_id" not in labels:
            labels["sample_id"] = labels["path"].astype("str").str.replace("\\", "/")
        return labels.assign(sample_id=labels["sample_id"].astype("str"))


def read_table(file: Path, separator: str = "") -> pd.DataFrame:
    """A CSV or TSV as text, or a Parquet with its own types.

    Raises:
        UserError: no such file, another encoding than UTF-8, rows of unequal length, or a download that ended in a web page.
    """
    try:
        if file.suffix.lower() == ".parquet":
            return pd.read_parquet(file)
        _refuse_web_page(file)
        separator = separator or ("\t" if file.suffix.lower() == ".tsv" else ",")
        content = pd.read_csv(file, sep=separator, dtype="str", keep_default_na=False, encoding="utf-8-sig")
        if not isinstance(content.index, pd.RangeIndex):  # pandas takes the first fields for the rows' names
            raise ValueError("its rows have more fields than its header")
        return content
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8") from error
    except (OSError, ValueError) as error:  # pandas' and pyarrow's errors are ValueErrors
        raise UserError(f"{file}: not a readable table: {str(error).strip().splitlines()[0]}") from error


def check_paths(root: Path, base: str, paths: list[str]) -> tuple[list[str], list[str]]:
    """For each path, counted from the folder `base` in `root`: why it cannot be used (or ""), and the path from `root`."""
    home = os.path.realpath(root)
    within: dict[str, bool] = {}  # folders, so that links are looked for once a folder and not once a file
    reasons, found = [], []
    for path in paths:
        text = path.replace("\\", "/")
        relative = os.path.normpath(os.path.join(base, text)).replace(os.sep, "/")
        full = os.path.join(home, relative)
        folder = os.path.dirname(full)
        reason = ""
        if not text or os.path.isabs(relative) or relative.startswith("../"):
            reason = f"its path '{path}' leads out of the dataset's folder"
        elif not os.path.isfile(full):
            reason = f"no file '{relative}'"
        else:
            if folder not in within:
                within[folder] = is_within(home, folder)
            if not within[folder] or (os.path.islink(full) and not is_within(home, full)):
                reason = f"its path '{path}' is a link that leads out of the dataset's folder"
        reasons.append(reason)
        found.append(relative if not reason else text)
    return reasons, found


def _refuse_web_page(file: Path) -> None:
    with file.open("rb") as content:
        start = content.read(2048)
        content.seek(max(0, file.stat().st_size - 2048))
        end = content.read()
    for part in (start.lstrip().lower()[:64], end.lower()):
        if part.startswith((b"<!doctype", b"<html")) or b"</html>" in part or b"<!doctype html" in part:
            raise UserError(f"{file}: holds a web page: its download failed or broke off; download it again")
