"""Predictions and labels from files that anyone made: CSV or Parquet, columns by name, joined on sample_id."""

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
from numpy.typing import NDArray

from agebench.errors import UserError
from agebench.metrics.prediction_format import check_predictions, format_cell, ids_unique
from agebench.utils.table_cells import UNKNOWN, UNKNOWN_WORD_OF_R, as_numbers, not_utf8, unknown_words
from agebench.utils.text import did_you_mean

MismatchKind = Literal["missing", "extra", "duplicates"]
Match = Literal["id", "name", "stem"]
MATCHES: tuple[Match, ...] = ("id", "name", "stem")
FilePair = tuple[Path, Path | None]  # predictions, and their labels where these are in a file of their own
_TEXT = ("sample_id", "subject")
# Where predictions and labels are in separate files, these columns are renamed in the one file only: `--col age_pred=age`
# leaves the labels their age. Other columns are renamed wherever they are.
PREDICTED = ("age_pred", "age_std", "p")
_LABELLED = frozenset({"age", "age_low", "age_high", "label_std"})
# What `agebench predict` writes beside an estimate: where the face is, and its interval. No labels that people are grouped by.
_FACE_COLUMNS = ("face", "x0", "y0", "x1", "y1", "low", "high")
_AGES = (0.0, 120.0)
_ABSURD = 1e6  # years; squares of what is far beyond are no numbers any more
# In columns of numbers all of them are missing values; text is looked at again, because NA may be a region there.
_NULLS = sorted(UNKNOWN | {UNKNOWN_WORD_OF_R})


@dataclass(frozen=True)
class JoinedPredictions:
    """Predictions beside their labels, and what did not match.

    Attributes:
        table: as `check_predictions` gives it.
        missing: labels without a prediction, which are left out: failures to process.
        extra: predictions without a label, left out.
        duplicates: further rows of an id that occurred before, left out.
        unanswered: the labels of `missing`; None where there are none.
    """

    table: pd.DataFrame
    missing: int = 0
    extra: int = 0
    duplicates: int = 0
    unanswered: pd.DataFrame | None = None


def column_map(pairs: Sequence[str]) -> dict[str, str]:
    """`['age_pred=estimate']` -> {'age_pred': 'estimate'}: our name to the file's.

    Raises:
        UserError: not of the form NAME=COLUMN, or two columns for one name.
    """
    columns: dict[str, str] = {}
    for pair in pairs:
        ours, equals, theirs = pair.partition("=")
        if not (ours and equals and theirs):
            raise UserError(f"--col {pair}: write it as NAME=COLUMN, e.g. --col age_pred=estimate")
        if columns.setdefault(ours, theirs) != theirs:
            raise UserError(f"--col {pair}: '{ours}' is already read from '{columns[ours]}'; name one column for it")
    return columns


# A table of predictions has few columns; each of them costs time, even where nothing uses it.
MAX_COLUMNS = 2_000


def read_table(path: Path, columns: Mapping[str, str] | None = None) -> pd.DataFrame:
    """Read a CSV (.csv, .tsv, .txt; also .gz) or Parquet file.

    Arrow reads the file in blocks and hands its memory over: a large file is in memory once. Text that stands for an unknown
    value is NA; the word NA itself only where no value is called so, see `agebench.utils.table_cells`.

    Args:
        path: the file.
        columns: our name of a column -> the file's. A file's own column of our name is not read then.

    Raises:
        UserError: no such file, not a table, an empty one, or one without a column of `columns`.
    """
    columns = columns or {}
    _check_columns(columns, [(path, None)])
    return _with_our_names(_read_content(path, columns), path, columns)


def _read_content(path: Path, columns: Mapping[str, str], *, names_only: bool = False) -> pa.Table:
    """Read a file; its columns have its own names.

    Args:
        path: the file.
        columns: our names -> the file's, of the columns that are text.
        names_only: whether the rows may be left out.
    """
    if path.is_dir():
        raise UserError(f"{path}: a folder; give a table in it, of a run folder one of its predictions/*.parquet")
    if not path.exists():
        raise UserError(f"{path}: no such file")
    if not path.is_file():  # A pipe could be read once only; types, encoding and digest take a reading each.
        raise UserError(f"{path}: not a regular file but a pipe or device; write its content to a file and give that")
    kind = "Parquet" if path.suffix.lower() in (".parquet", ".pq") else "CSV"
    try:
        if kind == "CSV":
            content = _read_csv(path, columns, names_only=names_only)
        else:
            content = pa.parquet.read_schema(path).empty_table() if names_only else pa.parquet.read_table(path)
    except (pa.ArrowException, OSError) as error:
        if kind == "CSV":
            _refuse_encoding(path)
        raise UserError(f"{path}: not a readable {kind} file: {str(error).splitlines()[0]}") from error
    if kind == "CSV" and any(_is_binary(field.type) for field in content.schema):
        _refuse_encoding(path)
    if content.num_columns > MAX_COLUMNS:
        raise UserError(
            f"{path}: {content.num_columns:,} columns; at most {MAX_COLUMNS:,} are read: keep the predictions, labels and groups"
        )
    return content.rename_columns([name.strip() for name in content.column_names])


def _columns_of(pair: FilePair, columns: Mapping[str, str]) -> list[tuple[Path, dict[str, str]]]:
    """Return the files of a pair, each with the columns of `columns` that are renamed in it."""
    predictions, labels = pair
    if labels is None:
        return [(predictions, dict(columns))]
    return [
        (predictions, {ours: theirs for ours, theirs in columns.items() if ours not in _LABELLED}),
        (labels, {ours: theirs for ours, theirs in columns.items() if ours not in PREDICTED}),
    ]


def _check_columns(columns: Mapping[str, str], pairs: Sequence[FilePair]) -> None:
    """Raise a UserError if `--col` names a column that none of the files has.

    Args:
        columns: our names -> the files'.
        pairs: the files; each is opened only if those before it lack a column.
    """
    files = [file for pair in pairs for file in _columns_of(pair, columns)]
    names: dict[Path, list[str]] = {}
    for ours, theirs in columns.items():
        paths = list(dict.fromkeys(path for path, of_file in files if ours in of_file))
        for path in paths:
            if path not in names:
                names[path] = _read_content(path, columns, names_only=True).column_names
            if theirs in names[path]:
                break
        else:
            where = " or ".join(map(str, paths))
            existing = dict.fromkeys(name for path in paths for name in names[path])
            raise UserError(f"--col {ours}={theirs}: no column '{theirs}' in {where}{did_you_mean(theirs, existing)}")


def _with_our_names(content: pa.Table, path: Path, columns: Mapping[str, str]) -> pd.DataFrame:
    """Convert a file's content to a table whose columns have our names.

    Args:
        content: the file's columns by its own names.
        path: the file, for messages.
        columns: our names -> those of the files of a command. If the file has the latter, its column of our name is left
            out; otherwise it keeps it, because files may call the same differently.
    """
    columns = {ours: theirs for ours, theirs in columns.items() if theirs in content.column_names}
    places, names = [], []
    for place, name in enumerate(content.column_names):
        named = [ours for ours, theirs in columns.items() if theirs == name]
        for ours in named or ([] if name in columns else [name]):
            if ours in names:
                raise UserError(
                    f"{path}: the column '{name}' occurs twice; name another with --col {ours}=COLUMN or drop one"
                )
            places.append(place)
            names.append(ours)
    content = content.select(places).rename_columns(names)
    table: pd.DataFrame = content.to_pandas(split_blocks=True, self_destruct=True)
    for column in table:
        table[column] = _without_unknown(table[column], unknown_words(str(column)))
    return table


def _is_binary(kind: pa.DataType) -> bool:
    """Return whether Arrow took a column's text for bytes, as it does where the text is not UTF-8."""
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _refuse_encoding(path: Path) -> None:
    """Raise a UserError that names the line where a file is not UTF-8 text; nothing where it is."""
    with pa.input_stream(str(path)) as stream:
        fault = not_utf8(stream)
    if fault:
        raise UserError(f"{path}: {fault}")


def _without_unknown(column: "pd.Series[Any]", words: frozenset[str]) -> "pd.Series[Any]":
    """A column of text whose words for an unknown value are NA; any other column as it is."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        named = [value for value in column.cat.categories if isinstance(value, str) and value.strip() in words]
        return column.cat.remove_categories(named) if named else column
    if pd.api.types.is_string_dtype(column.dtype) or column.dtype == object:
        is_unknown = column.isin(list(words))
        return column.mask(is_unknown) if is_unknown.any() else column
    return column


def _read_csv(path: Path, columns: Mapping[str, str], *, names_only: bool = False) -> pa.Table:
    with pa.input_stream(str(path)) as stream:  # Decompresses by the name's ending.
        start = stream.read(65536)
    if b"\0" in start:
        _refuse_encoding(path)
    try:
        start.partition(b"\n")[0].decode("utf-8-sig")
    except UnicodeDecodeError:
        _refuse_encoding(path)
    head = start.decode("utf-8-sig", errors="replace").split("\n", 1)[0]
    parse = pa.csv.ParseOptions(delimiter=max(",;\t", key=head.count))
    # Ids that look like numbers stay as they are written: '066525' is not 66525.
    text = {name: pa.string() for ours in _TEXT for name in (ours, columns.get(ours, ours))}

    def convert(types: Mapping[str, pa.DataType]) -> pa.csv.ConvertOptions:
        return pa.csv.ConvertOptions(
            column_types={**types, **text},
            strings_can_be_null=False,
            null_values=_NULLS,
            # Text of few values, as groups have, becomes numbers that point to it.
            auto_dict_encode=True,
            auto_dict_max_cardinality=50,
        )

    try:
        # To guess a type from all rows, Arrow keeps all text beside the values. So the first block determines the types…
        with pa.csv.open_csv(path, parse_options=parse, convert_options=convert({})) as stream:
            if names_only:
                return stream.schema.empty_table()
            known = {field.name: field.type for field in stream.schema if not pa.types.is_null(field.type)}
        return pa.csv.read_csv(path, parse_options=parse, convert_options=convert(known))
    except pa.ArrowInvalid:  # … and all rows do where they do not fit.
        return pa.csv.read_csv(path, parse_options=parse, convert_options=convert({}))


def read_predictions(
    predictions: Path,
    labels: Path | None = None,
    *,
    columns: Mapping[str, str] | None = None,
    allow: Collection[MismatchKind] = (),
    match: Match = "id",
    others: Sequence[FilePair] = (),
) -> JoinedPredictions:
    """Predictions, with the labels of a second file where there is one, joined on sample_id.

    Args:
        predictions: sample_id, age_pred and, without `labels`, age; optional age_std, p, group columns, subject.
        labels: sample_id, age and other known labels; its columns win over those of `predictions`, and its `age_pred`,
            `age_std` and `p` are not used.
        columns: our names -> the files'; with `labels`, `age_pred`, `age_std` and `p` in the predictions only, and ages
            in the labels only. A file without such a column keeps its own of our name.
        match: join `labels` by the whole id, by a file's name in it (`img0.jpg` of `faces/img0.jpg`), or by that without its
            ending.
        allow: faults that are counted and left out instead of refused.
        others: further files that `columns` is for; one file with a column of `columns` is enough.

    Raises:
        UserError: see `read_table`; a column is missing, ids do not match or occur twice, values are no ages, or `match`
            is given without `labels`.
    """
    columns = columns or {}
    if labels is None and match != "id":
        raise UserError(
            f"{predictions}: --match {match} joins predictions to labels, and none are joined here; give --labels FILE, or "
            "leave out --match"
        )
    _check_columns(columns, [(predictions, labels), *others])
    if labels is None:
        table = _with_our_names(_read_content(predictions, columns), predictions, columns)
    else:
        table, truth = _read_both(predictions, labels, columns)
    if set(_FACE_COLUMNS) <= set(table):
        empty = ["age_std"] if "age_std" in table and table["age_std"].isna().all() else []  # a head that gives none
        table = table.drop(columns=[*_FACE_COLUMNS, *empty, "error"], errors="ignore")
    if labels is None:
        _require(table, ("sample_id", "age", "age_pred"), predictions, "labels in a file of their own: --labels FILE")
        table, duplicates = _unique(table, predictions, allow)
        lost = table[table["age_pred"].isna()]
        table, n_empty = _answered(table, allow)
        return JoinedPredictions(
            validate_file(table, predictions, ids_distinct=True),
            missing=n_empty,
            duplicates=duplicates,
            unanswered=_unanswered(lost) if n_empty else None,
        )
    _require(table, ("sample_id", "age_pred"), predictions, "")
    _require(truth, ("sample_id", "age"), labels, "")
    table, twice = _unique(table, predictions, allow)
    table, _ = _answered(table, allow)  # their labels find no prediction, and are counted so
    truth, twice_labelled = _unique(truth, labels, allow)
    keys = [_match_keys(part["sample_id"], match, path) for part, path in ((table, predictions), (truth, labels))]
    places = pd.Index(keys[0]).get_indexer(pd.Index(keys[1]))
    missing, found = int((places < 0).sum()), int((places >= 0).sum())
    extra = len(table) - found
    if not found:
        raise UserError(
            f"{predictions} and {labels} have no sample_id in common: "
            f"'{table['sample_id'].iloc[0]}' there, '{truth['sample_id'].iloc[0]}' here{_way_out(table, truth, match)}"
        )
    _refuse(
        "missing", missing, f"{missing} of the {len(truth)} labelled images have no prediction in {predictions}", allow
    )
    _refuse("extra", extra, f"{extra} of the {len(table)} predictions have no label in {labels}", allow)
    own = [column for column in table if column not in truth]
    joined = truth[places >= 0].reset_index(drop=True)
    joined = pd.concat([joined, table[own].iloc[places[places >= 0]].reset_index(drop=True)], axis=1)
    unanswered = _unanswered(truth[places < 0]) if missing else None
    return JoinedPredictions(
        validate_file(joined, predictions, ids_distinct=True), missing, extra, twice + twice_labelled, unanswered
    )


def _read_both(predictions: Path, labels: Path, columns: Mapping[str, str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Read predictions and their labels, without the columns of the labels that must not win."""
    (_, of_predictions), (_, of_labels) = _columns_of((predictions, labels), columns)
    predicted, labelled = _read_content(predictions, of_predictions), _read_content(labels, of_labels)
    table = _with_our_names(predicted, predictions, of_predictions)
    truth = _with_our_names(labelled, labels, of_labels)
    # The labels win where both files have a column. They must not where only the predictions have the column that is named,
    # nor with estimates, which may be another system's there.
    named = [
        ours
        for ours, theirs in of_predictions.items()
        if ours != "sample_id" and theirs in predicted.column_names and theirs not in labelled.column_names
    ]
    return table, truth.drop(columns=[*PREDICTED, *named], errors="ignore")


def _unanswered(table: pd.DataFrame) -> pd.DataFrame:
    """Return the labels of images without a prediction, without the columns of predictions; impossible ages are NaN."""
    labels = table.assign(sample_id=table["sample_id"].astype("str")).reset_index(drop=True)
    for column in ("age", "age_low", "age_high"):
        if column in labels:
            years = as_numbers(labels[column])
            labels[column] = years.where(years.between(*_AGES))
    return labels.drop(columns=[column for column in PREDICTED if column in labels])


def _answered(table: pd.DataFrame, allow: Collection[MismatchKind]) -> tuple[pd.DataFrame, int]:
    """Return, where missing predictions are allowed, `table` without the rows without an estimate, and how many these are."""
    empty = table["age_pred"].isna()
    if "missing" not in allow or not empty.any() or empty.all():
        return table, 0
    return table[~empty].reset_index(drop=True), int(empty.sum())


def _match_keys(ids: "pd.Series[str]", match: Match, path: Path) -> "pd.Series[str]":
    """The key by which rows are joined.

    Raises:
        UserError: two ids of a file have the same name.
    """
    if match == "id":
        return ids
    keys = ids.str.replace("\\", "/").str.rpartition("/")[2]
    if match == "stem":
        keys = keys.str.replace(r"(?<=.)\.[A-Za-z0-9]{1,5}$", "", regex=True)
    twice = keys.duplicated(keep=False)
    if twice.any():
        first, second = ids[keys == keys[twice].iloc[0]].iloc[:2]
        raise UserError(
            f"{path}: --match {match}: '{first}' and '{second}' have the same {match}; the ids cannot be matched so"
        )
    return keys


def _way_out(table: pd.DataFrame, truth: pd.DataFrame, match: Match) -> str:
    """The other way to match that joins most rows, as the end of a message."""
    joined: dict[Match, int] = {}
    for other in MATCHES:
        with suppress(UserError):
            keys = [_match_keys(part["sample_id"], other, Path()) for part in (table, truth)]
            joined[other] = int(keys[1].isin(keys[0]).sum())
    best = max(joined, key=lambda other: joined[other], default=match)
    if joined.get(best):
        return f". --match {best} joins {joined[best]} of {len(truth)} labels, by the file's {best}"
    return ". Name the column of ids that both files have with --col sample_id=COLUMN"


def validate_file(table: pd.DataFrame, source: Path, *, ids_distinct: bool = False) -> pd.DataFrame:
    """`check_predictions`, and what can only be wrong in a file of unknown origin.

    Args:
        table: predictions with their labels.
        source: the file, for messages.
        ids_distinct: whether the ids have been compared already.

    Raises:
        UserError: an age that none can have, a range upside down, text where numbers belong, or no lists where lists do.
    """
    table = check_predictions(table, source=str(source), ids_distinct=ids_distinct)
    for column in ("age_low", "age_high", "label_std"):
        if column in table:
            table[column] = _numbers(table, column, source)
    for column in ("age", "age_low", "age_high"):
        if column in table:
            outside = (table[column] < _AGES[0]) | (table[column] > _AGES[1])
            _refuse_row(table, outside, source, column, "outside [0, 120] years")
    if {"age_low", "age_high"} <= set(table.columns):
        _refuse_row(table, table["age_low"] > table["age_high"], source, "age_low", "above age_high")
    for column in ("age_std", "label_std"):
        if column in table:
            _refuse_row(table, table[column] < 0, source, column, "below 0")
    for column in ("age_pred", "age_std", "label_std"):
        if column in table:
            _refuse_row(table, table[column].abs() > _ABSURD, source, column, "which is no number of years")
    _lists(table, str(source))
    for name in table["subject"].dropna().head(1) if "subject" in table else ():
        if not pd.api.types.is_hashable(name):
            raise UserError(f"{source}: the column subject holds lists or structs; it takes one name a person")
    return table


def _lists(table: pd.DataFrame, source: str) -> "list[NDArray[Any]]":
    """The column `p`, an array a row; [] where there is none.

    Raises:
        UserError: it holds something else than lists of numbers.
    """
    rows = [np.asarray([] if row is None else row) for row in table.get("p", ())]
    for name, row in zip(table["sample_id"], rows, strict=False):
        if row.ndim != 1 or (row.size and row.dtype.kind not in "fiu"):
            raise UserError(
                f"{source}: column p of '{name}' is not a list of numbers, one probability an age; such lists are in "
                "Parquet files. Give the column another name, or leave it out"
            )
    return rows


def probabilities(table: pd.DataFrame, source: str = "predictions") -> NDArray[np.float64] | None:
    """The column `p` as (n, A), each row summing to 1; None where there is none.

    Raises:
        UserError: no lists of numbers, rows of different lengths, negative entries, or sums that are not 1.
    """
    if "p" not in table:
        return None
    rows = _lists(table, source)
    lengths = {len(row) for row in rows}
    if len(lengths) != 1 or 0 in lengths:
        raise UserError(
            f"{source}: the lists in column p have different lengths: {', '.join(map(str, sorted(lengths)))}"
        )
    values = np.stack(rows).astype(np.float64)
    sums = values.sum(axis=1)
    # Half precision has three digits; a hundred of them may be 2 % off together.
    bad = (values < 0).any(axis=1) | ~(np.abs(sums - 1) < 0.05)
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        what = f"column p of '{table['sample_id'].iloc[row]}' sums to {sums[row]:.3g} or has a negative entry"
        raise UserError(f"{source}: {what}; probabilities are 0 or more and sum to 1")
    normalised: NDArray[np.float64] = values / sums[:, None]
    return normalised


# Names that files of others have for our columns, for messages: a column is never renamed unasked.
_OTHER_NAMES = {
    "sample_id": ("name", "id", "file", "filename", "file_name", "image", "image_id", "img", "path"),
    "age": ("true_age", "label", "y_true", "real_age", "age_true", "target"),
    "age_pred": (
        "prediction",
        "predicted_age",
        "pred",
        "estimate",
        "y_pred",
        "pred_age",
        "estimated_age",
        "age_estimate",
    ),
}


def _require(table: pd.DataFrame, names: Sequence[str], path: Path, way_out: str) -> None:
    missing = [name for name in names if name not in table]
    if missing:
        likely = [name for name in table if str(name).lower().replace(" ", "_") in _OTHER_NAMES.get(missing[0], ())]
        hint = f"name it with --col {missing[0]}={likely[0] if likely else 'COLUMN'}"
        raise UserError(
            f"{path}: no column {', '.join(missing)}; there are: {', '.join(map(str, table.columns))}; "
            + (f"{hint}, or give {way_out}" if way_out else hint)
        )
    if not len(table):
        raise UserError(f"{path}: no rows")


def _unique(table: pd.DataFrame, path: Path, allow: Collection[MismatchKind]) -> tuple[pd.DataFrame, int]:
    """Return the first row of each id, of predictions the first with an estimate, and how many others there are."""
    unnamed = table["sample_id"].isna()
    if unnamed.any():
        raise UserError(f"{path}: row {int(np.flatnonzero(unnamed)[0]) + 1} has no sample_id")
    table["sample_id"] = table["sample_id"].astype("str")
    count = 0
    if not ids_unique(table["sample_id"]):
        ids = table["sample_id"]
        if "age_pred" in table:
            ids = ids.iloc[np.argsort(table["age_pred"].isna().to_numpy(), kind="stable")]
        twice = ids.duplicated().reindex(table.index)
        count = int(twice.sum())
        first = table.loc[twice, "sample_id"].iloc[0]
        _refuse("duplicates", count, f"{path}: {count} rows repeat an id, the first is '{first}'", allow)
        table = table[~twice]
    return table, count


def _refuse(fault: MismatchKind, count: int, sentence: str, allow: Collection[MismatchKind]) -> None:
    if count and fault not in allow:
        raise UserError(f"{sentence}; --allow {fault} leaves them out and counts them")


def _numbers(table: pd.DataFrame, column: str, source: Path) -> "pd.Series[float]":
    numbers = as_numbers(table[column])
    _refuse_row(
        table, (numbers.isna() & table[column].notna()) | np.isinf(numbers), source, column, "not a finite number"
    )
    return numbers


def _refuse_row(table: pd.DataFrame, bad: "pd.Series[bool]", source: Path, column: str, what: str) -> None:
    if bad.any():
        row = table[bad].iloc[0]
        raise UserError(f"{source}: {column} of '{row['sample_id']}' is {format_cell(row[column])}, {what}")
