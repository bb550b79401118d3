"""Tables of labels: CSV, TSV and other text, Parquet, MATLAB; one, or several whose names are labels themselves."""

import posixpath
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field

from agebench.config.patterns import bounded_matching
from agebench.data.faces.body_crops import COLUMNS as BODY
from agebench.data.faces.body_crops import FACE
from agebench.data.readers.base import top_folder, walk_files
from agebench.data.readers.patterns import PLACE, compile_pattern, format_template, to_text
from agebench.errors import UserError
from agebench.utils.table_cells import as_numbers, not_utf8

TABLES = (".csv", ".tsv", ".parquet", ".mat")
_LABELS = ("sample_id", "path", "age", "age_low", "age_high", "gender", "race", "subject", "split", "fold")
STANDARD_COLUMNS = (*_LABELS, "landmarks", *BODY, FACE)
# In a table's `attrs`: the names that several of its columns have.
REPEATED = "repeated columns"


class Table(BaseModel):
    """A table of labels, as a card describes it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    file: str = Field(description="its path in the folder; with {split} and the like, several tables")
    columns: dict[str, str | int] = Field(
        default_factory=dict,
        description="our name -> the table's, its number from 0, or a template: {folder}/{name}.jpg",
    )
    separator: str = Field(default="", description='"": a comma, in .tsv a tab; " ": any white space')
    header: bool = Field(default=True, description="false: the first row is data, and columns have numbers")
    images: str = Field(default="", description="the folder that paths count from, relative to the table's")
    struct: str = Field(default="", description="in a .mat: which variable holds the table")
    by: str = Field(default="name", description="what rows are joined by: path, name, stem, row or a label")


class ListFile(BaseModel):
    """A list of images, as a card describes it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    file: str = Field(description="its path in the folder")
    images: str = Field(default="", description="the folder that its lines count from; empty: any folder")


def find_label_tables(root: Path, table: Table) -> dict[str, dict[str, str]]:
    """The tables in `root` -> the labels that stand in their names.

    Raises:
        UserError: none is there.
    """
    files, _ = walk_files(root)
    if "{" not in table.file:
        for path in (table.file, top_folder(files) + table.file):
            if path in files:
                return {path: {}}
        raise UserError(f"{root}: no table '{table.file}' in it")
    grammar = compile_pattern(table.file, needs=(), option="table")
    with bounded_matching("tables.file") as match:
        found = {path: fitting.groupdict() for path in files if (fitting := match(grammar, path))}
    if not found:
        raise UserError(f"{root}: no table in it whose name is like '{table.file}'")
    return found


def read_labels(
    root: Path, found: dict[str, dict[str, str]], table: Table, wanted: tuple[str, ...], needed: tuple[str, ...] = ()
) -> pd.DataFrame:
    """The rows of all files of a table, in agebench's columns.

    Args:
        root: the dataset's folder.
        found: the files, from `find_tables`.
        table: what their columns mean.
        wanted: columns of ours that are taken where they are, beside those that `table.columns` names.
        needed: those that must be there.

    Returns:
        Those columns; `path` and `body_path` count from `root`, `given` is what the table says; `file` is the table's number,
        `row` the row's in it, and `rows` how many there are.

    Raises:
        UserError: no such column, or a damaged table.
    """
    parts = []
    for number, (inside, labels) in enumerate(found.items()):
        content = read_label_table(root / inside, table.separator, header=table.header, struct=table.struct)
        part = rename_columns(content, labels, table.columns, wanted, needed, source=str(root / inside))
        base = posixpath.dirname(inside) + "/" + table.images
        if "path" in part:
            given = to_text(part["path"]).fillna("")
            part = part.assign(given=given, path=[_joined(base, path) for path in given])
        if "body_path" in part:
            part = part.assign(body_path=[_joined(base, path) for path in to_text(part["body_path"]).fillna("")])
        parts.append(part.assign(file=number, row=range(len(part)), rows=len(part)))
    return pd.concat(parts, ignore_index=True)


def _joined(base: str, path: str) -> str:
    path = path.replace("\\", "/")
    return posixpath.normpath(posixpath.join("./" + base, path)) if path else ""


def rename_columns(
    content: pd.DataFrame,
    labels: dict[str, str],
    columns: dict[str, str | int],
    wanted: tuple[str, ...],
    needed: tuple[str, ...],
    *,
    source: str,
) -> pd.DataFrame:
    """A table's columns under our names; `labels` are those that stand in its name, for every row.

    Raises:
        UserError: a column of `columns` or `needed` is not there.
    """
    named = {str(name): content[name] for name in content.columns}
    named |= {name: pd.Series(value, index=content.index, dtype="str") for name, value in labels.items()}
    part: dict[str, Any] = {}
    for name in dict.fromkeys((*wanted, *needed, *columns, *labels)):
        column = str(columns.get(name, name))
        try:
            part[name] = format_template(column, named) if "{" in column else named[column]
        except KeyError as missing:
            if name in columns or name in needed:
                lacks = missing.args[0]
                raise UserError(
                    f"{source}: no column '{lacks}' for {name}; there are {', '.join(named)}. "
                    + (_separator_hint(content) or f'The card says which it is: options.columns = {{{name} = "…"}}')
                ) from missing
        twice = {column, *(place[1] for place in PLACE.finditer(column))} & {*content.attrs.get(REPEATED, ())}
        if twice:
            raise UserError(
                f"{source}: two columns are called '{min(twice)}'; rename one of them in the table, or name another "
                f'for {name} on the card: options.columns = {{{name} = "…"}}'
            )
    for bound in {"age_low", "age_high"} & set(part):
        part[bound] = as_numbers(part[bound])
    return pd.DataFrame(part, index=content.index)


def _separator_hint(content: pd.DataFrame) -> str:
    """The option to set where a table was read as one column because its fields are separated by something else."""
    if content.shape[1] > 1:
        return ""
    header = str(content.columns[0])
    separator = next((separator for separator in (";", "\t", "|", ",") if separator in header), "")
    name = {"\t": "\\t"}.get(separator, separator)
    return (
        f"Its fields seem to be separated by '{name}': options.separator = \"{name}\" on the card" if separator else ""
    )


def read_label_table(file: Path, separator: str = "", *, header: bool = True, struct: str = "") -> pd.DataFrame:
    """A CSV or other text as text, a Parquet or a MATLAB struct with its own types.

    Raises:
        UserError: no such file, another encoding than UTF-8, rows of unequal length, or a download that ended in a web page.

    Names of columns are stripped, as values are. A name that stands twice gets a number, as pandas does it; `attrs[REPEATED]`
    has those names.
    """
    try:
        if file.suffix.lower() == ".parquet":
            content = pd.read_parquet(file)
            return content.rename(columns=lambda name: str(name).strip())
        if file.suffix.lower() == ".mat":
            return _read_matlab(file, struct)
        _refuse_web_page(file)
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
    """The first row as the columns' names."""
    given = ["" if name != name else str(name).strip() for name in content.iloc[0]]
    seen: Counter[str] = Counter()
    names = []
    for name in given:
        names.append(f"{name}.{seen[name]}" if seen[name] else name)
        seen[name] += 1
    content = content.iloc[1:].reset_index(drop=True).set_axis(names, axis="columns")
    content.attrs[REPEATED] = [name for name, count in seen.items() if name and count > 1]
    return content


def _encoding_fault(file: Path) -> str:
    with file.open("rb") as content:
        return not_utf8(content) or "not UTF-8 text; save it as UTF-8"


def _read_matlab(file: Path, struct: str) -> pd.DataFrame:
    """A struct of columns, or an array of structs.

    Raises:
        ValueError: damaged, of version 7.3 (HDF5), or without such a struct.
    """
    from scipy.io import loadmat

    try:
        content = loadmat(file, simplify_cells=True)
    except NotImplementedError:
        raise ValueError("MATLAB version 7.3; save it with -v7") from None
    except Exception as error:  # its parser raises whatever the damage leads to
        raise ValueError(f"not a MATLAB file that can be read: {error}") from error
    variables = {name: value for name, value in content.items() if isinstance(value, dict | list) and name[0] != "_"}
    if struct not in variables and (struct or len(variables) != 1):
        raise ValueError(f"no struct '{struct}', there are {', '.join(variables)}; the card's options.struct names it")
    value = variables[struct] if struct else next(iter(variables.values()))
    if isinstance(value, list):
        return pd.DataFrame(value)
    columns = {name: np.atleast_1d(np.asarray(column, dtype=None)) for name, column in value.items()}
    rows = Counter(len(column) for column in columns.values()).most_common(1)[0][0]
    return pd.DataFrame({name: list(column) for name, column in columns.items() if len(column) == rows})


def read_list(file: Path) -> list[tuple[str, str]]:
    """The entries of a list file, one a line: the whole line, and its first field (up to white space, comma or semicolon).

    Raises:
        UserError: no such file, or not UTF-8 text.
    """
    try:
        _refuse_web_page(file)
        lines = [line.strip().replace("\\", "/") for line in file.read_text(encoding="utf-8-sig").splitlines()]
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: {_encoding_fault(file)}") from error
    except OSError as error:
        raise UserError(f"{file}: not a readable list: {error}") from error
    return [(line, re.split(r"[\s,;]", line, maxsplit=1)[0]) for line in lines if line]


def _refuse_web_page(file: Path) -> None:
    with file.open("rb") as content:
        start = content.read(2048)
        content.seek(max(0, file.stat().st_size - 2048))
        end = content.read()
    if b"\0" in start:  # UTF-16 without its mark is UTF-8 with zeros
        raise UserError(f"{file}: {_encoding_fault(file)}")
    for part in (start.lstrip().lower()[:64], end.lower()):
        if part.startswith((b"<!doctype", b"<html")) or b"</html>" in part or b"<!doctype html" in part:
            raise UserError(f"{file}: holds a web page: its download failed or broke off; download it again")
