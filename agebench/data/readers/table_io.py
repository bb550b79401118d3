"""Label tables (CSV, TSV and other text, Parquet, MATLAB) and image lists, and their description on a card."""

import posixpath
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field

from agebench.config.patterns import bounded_matching
from agebench.data.faces.body_crops import COLUMNS as BODY
from agebench.data.faces.body_crops import FACE
from agebench.data.readers.base import is_normalized, normalize_path, top_folder, walk_files
from agebench.data.readers.patterns import PLACE, compile_pattern, format_template, to_text
from agebench.errors import UserError
from agebench.utils.table_cells import as_numbers, not_utf8

TABLES = (".csv", ".tsv", ".parquet", ".mat")
_LABELS = ("sample_id", "path", "age", "age_low", "age_high", "gender", "race", "subject", "split", "fold")
STANDARD_COLUMNS = (*_LABELS, "landmarks", *BODY, FACE)
# Key in a table's `attrs` of the names that several of its columns have.
REPEATED = "repeated columns"


class Table(BaseModel):
    """Description of a label table on a card."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    file: str = Field(description="path in the folder; with {split} or another label, several tables")
    columns: dict[str, str | int] = Field(
        default_factory=dict,
        description="agebench's name -> the table's name, a number from 0, or a template: {folder}/{name}.jpg",
    )
    separator: str = Field(default="", description='"": a comma, in .tsv a tab; " ": any white space')
    header: bool = Field(default=True, description="false: the first row is data, and columns have numbers")
    images: str = Field(default="", description="the folder that paths start from, relative to the table's")
    struct: str = Field(default="", description="in a .mat: name of the variable that is the table")
    by: str = Field(default="name", description="key that joins rows: path, name, stem, row or a label")


class ListFile(BaseModel):
    """Description of an image list on a card."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    file: str = Field(description="path in the folder")
    images: str = Field(default="", description="the folder that its lines start from; empty: any folder")


def find_label_tables(root: Path, table: Table, files: Sequence[str] | None = None) -> dict[str, dict[str, str]]:
    """Find the files of a label table.

    Args:
        root: the dataset's folder.
        table: description of the table.
        files: the files in the folder, from `walk_files`; None to list them.

    Returns:
        Path of each file -> the labels in its name.

    Raises:
        UserError: there is no such file.
    """
    files = walk_files(root)[0] if files is None else files
    if "{" not in table.file:
        path = table.file if table.file in files else top_folder(files) + table.file
        if path in files:
            return {path: {}}
        raise UserError(f"{root}: no table '{table.file}' in it")
    grammar = compile_pattern(table.file, needs=(), option="table")
    with bounded_matching("tables.file") as match:
        labels_by_path = {path: matched.groupdict() for path in files if (matched := match(grammar, path))}
    if not labels_by_path:
        raise UserError(f"{root}: no table in it whose name is like '{table.file}'")
    return labels_by_path


def read_labels(
    root: Path,
    files: dict[str, dict[str, str]],
    table: Table,
    optional: tuple[str, ...],
    required: tuple[str, ...] = (),
) -> pd.DataFrame:
    """Read the rows of all files of a label table, in agebench's columns.

    Args:
        root: the dataset's folder.
        files: path of each file -> the labels in its name, from `find_label_tables`.
        table: description of the table.
        optional: agebench's columns that are read if they exist, in addition to those in `table.columns`.
        required: agebench's columns that must exist.

    Returns:
        These columns. `path` and `body_path` are relative to `root`; `given` is the path as written in the table; `file` is
        the number of the file, `row` that of the row in it, and `rows` the number of its rows.

    Raises:
        UserError: a column is missing, or a file is damaged.
    """
    tables = []
    for file_index, (path, labels) in enumerate(files.items()):
        content = read_label_table(root / path, table.separator, header=table.header, struct=table.struct)
        rows = rename_columns(content, labels, table.columns, optional, required, source=str(root / path))
        base = posixpath.dirname(path) + "/" + table.images
        if "path" in rows:
            written = to_text(rows["path"]).fillna("")
            rows = rows.assign(given=written, path=_join_paths(base, written.tolist()))
        if "body_path" in rows:
            body_paths = to_text(rows["body_path"]).fillna("")
            rows = rows.assign(body_path=_join_paths(base, body_paths.tolist()))
        tables.append(rows.assign(file=file_index, row=range(len(rows)), rows=len(rows)))
    return pd.concat(tables, ignore_index=True)


def _join_paths(base: str, paths: Sequence[str]) -> list[str]:
    """Return paths from a table, relative to its dataset's folder; empty ones stay empty."""
    folder = posixpath.normpath("./" + base)
    prefix = "" if folder == "." else folder + "/"
    return [prefix + path if is_normalized(path) else _join_path(base, path) for path in paths]


def _join_path(base: str, path: str) -> str:
    path = path.replace("\\", "/")
    return normalize_path(posixpath.join("./" + base, path)) if path else ""


def rename_columns(
    content: pd.DataFrame,
    labels: dict[str, str],
    columns: dict[str, str | int],
    optional: tuple[str, ...],
    required: tuple[str, ...],
    *,
    source: str,
) -> pd.DataFrame:
    """Rename a table's columns to agebench's names.

    Args:
        content: the table.
        labels: labels in the table's name, which apply to every row.
        columns: agebench's name -> the table's name, its number or a template.
        optional: agebench's columns that are taken if they exist.
        required: agebench's columns that must exist.
        source: name of the table in error messages.

    Raises:
        UserError: a column of `columns` or `required` is missing, or its name is not unique in the table.
    """
    sources = {str(name): content[name] for name in content.columns}
    sources |= {name: pd.Series(value, index=content.index, dtype="str") for name, value in labels.items()}
    renamed: dict[str, Any] = {}
    for name in dict.fromkeys((*optional, *required, *columns, *labels)):
        column = str(columns.get(name, name))
        try:
            renamed[name] = format_template(column, sources) if "{" in column else sources[column]
        except KeyError as missing:
            if name in columns or name in required:
                hint = _separator_hint(content) or f'Name it on the card: options.columns = {{{name} = "…"}}'
                raise UserError(
                    f"{source}: no column '{missing.args[0]}' for {name}; there are {', '.join(sources)}. {hint}"
                ) from missing
        used_columns = {column, *(placeholder[1] for placeholder in PLACE.finditer(column))}
        repeated = used_columns & {*content.attrs.get(REPEATED, ())}
        if repeated:
            raise UserError(
                f"{source}: two columns are called '{min(repeated)}'; rename one of them in the table, or name another "
                f'for {name} on the card: options.columns = {{{name} = "…"}}'
            )
    for bound in {"age_low", "age_high"} & set(renamed):
        renamed[bound] = as_numbers(renamed[bound])
    return pd.DataFrame(renamed, index=content.index)


def _separator_hint(content: pd.DataFrame) -> str:
    """Suggest `options.separator` for a table that was read as one column; empty for other tables."""
    if content.shape[1] > 1:
        return ""
    header = str(content.columns[0])
    separator = next((separator for separator in (";", "\t", "|", ",") if separator in header), "")
    name = {"\t": "\\t"}.get(separator, separator)
    return (
        f"Its fields seem to be separated by '{name}': options.separator = \"{name}\" on the card" if separator else ""
    )


def read_label_table(file: Path, separator: str = "", *, header: bool = True, struct: str = "") -> pd.DataFrame:
    """Read a label table.

    CSV and other text is read as text, Parquet and MATLAB structs with their own types.

    Args:
        file: the file.
        separator: field separator; empty for a comma (`.tsv`: a tab), a space for any white space.
        header: whether the first row names the columns.
        struct: in a `.mat`, name of the variable that is the table; empty for the only one.

    Returns:
        The table with stripped column names. A repeated name gets a number, as in pandas; `attrs[REPEATED]` lists such names.

    Raises:
        UserError: the file does not exist, is not UTF-8, has rows of unequal length, or is a web page from a failed download.
    """
    try:
        if file.suffix.lower() == ".parquet":
            content = pd.read_parquet(file)
            return content.rename(columns=lambda name: str(name).strip())
        if file.suffix.lower() == ".mat":
            return _read_matlab(file, struct)
        _reject_web_page(file)
        separator = separator or ("\t" if file.suffix.lower() == ".tsv" else ",")
        content = pd.read_csv(
            file,
            sep=r"\s+" if separator == " " else separator,
            dtype="str",
            keep_default_na=False,
            encoding="utf-8-sig",
            header=None,
        )
        return _with_header(content) if header else content
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: {_encoding_fault(file)}") from error
    except (OSError, ValueError) as error:  # pandas' and pyarrow's errors are ValueErrors
        raise UserError(f"{file}: not a readable table: {str(error).strip().splitlines()[0]}") from error


def _with_header(content: pd.DataFrame) -> pd.DataFrame:
    """Use the first row as column names."""
    raw_names = ["" if name != name else str(name).strip() for name in content.iloc[0]]
    counts: Counter[str] = Counter()
    names = []
    for name in raw_names:
        names.append(f"{name}.{counts[name]}" if counts[name] else name)
        counts[name] += 1
    content = content.iloc[1:].reset_index(drop=True).set_axis(names, axis="columns")
    content.attrs[REPEATED] = [name for name, count in counts.items() if name and count > 1]
    return content


def _encoding_fault(file: Path) -> str:
    with file.open("rb") as content:
        return not_utf8(content) or "not UTF-8 text; save it as UTF-8"


def _read_matlab(file: Path, struct: str) -> pd.DataFrame:
    """Read a struct of columns, or an array of structs.

    Raises:
        ValueError: the file is damaged, has version 7.3 (HDF5), or contains no such struct.
    """
    from scipy.io import loadmat

    try:
        content = loadmat(file, simplify_cells=True)
    except NotImplementedError:
        raise ValueError("MATLAB version 7.3; save it with -v7") from None
    except Exception as error:  # the parser raises many types on damaged data
        raise ValueError(f"not a MATLAB file that can be read: {error}") from error
    variables = {name: value for name, value in content.items() if isinstance(value, dict | list) and name[0] != "_"}
    if struct not in variables and (struct or len(variables) != 1):
        raise ValueError(f"no struct '{struct}', there are {', '.join(variables)}; the card's options.struct names it")
    value = variables[struct] if struct else next(iter(variables.values()))
    if isinstance(value, list):
        return pd.DataFrame(value)
    columns = {name: np.atleast_1d(np.asarray(column, dtype=None)) for name, column in value.items()}
    n_rows = Counter(len(column) for column in columns.values()).most_common(1)[0][0]
    return pd.DataFrame({name: list(column) for name, column in columns.items() if len(column) == n_rows})


def read_list(file: Path) -> list[tuple[str, str]]:
    """Read an image list.

    Args:
        file: a text file with one image per line.

    Returns:
        For each line, the whole line and its first field (up to white space, a comma or a semicolon).

    Raises:
        UserError: the file does not exist or is not UTF-8.
    """
    try:
        _reject_web_page(file)
        lines = [line.strip().replace("\\", "/") for line in file.read_text(encoding="utf-8-sig").splitlines()]
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: {_encoding_fault(file)}") from error
    except OSError as error:
        raise UserError(f"{file}: not a readable list: {error}") from error
    return [(line, re.split(r"[\s,;]", line, maxsplit=1)[0]) for line in lines if line]


def _reject_web_page(file: Path) -> None:
    """Raise a UserError for a file that is a web page or UTF-16 text."""
    with file.open("rb") as content:
        start = content.read(2048)
        content.seek(max(0, file.stat().st_size - 2048))
        end = content.read()
    if b"\0" in start:  # UTF-16 without its mark is UTF-8 with zeros
        raise UserError(f"{file}: {_encoding_fault(file)}")
    for text in (start.lstrip().lower()[:64], end.lower()):
        if text.startswith((b"<!doctype", b"<html")) or b"</html>" in text or b"<!doctype html" in text:
            raise UserError(f"{file}: holds a web page: its download failed or broke off; download it again")
