"""Cells of text tables: unknown values, numbers with a decimal comma, and encodings other than UTF-8."""

import codecs
from collections.abc import Iterable
from typing import IO, Any

import pandas as pd

# Text that programs write for an unknown value: pandas, NumPy, JSON, Python, databases, spreadsheets.
UNKNOWN = frozenset({"", "nan", "NaN", "NAN", "<NA>", "NaT", "null", "NULL", "None", "N/A", "n/a", "#N/A", "#NA"})
# R's word for unknown is also a region (North America) and an ethnicity (Native American). It counts as a value except in
# columns that cannot have this value: gender, official split, subject and sample_id.
UNKNOWN_WORD_OF_R = "NA"
NEVER_NA = frozenset({"gender", "split", "subject", "sample_id"})
_BLOCK = 1 << 20


def unknown_words(column: str) -> frozenset[str]:
    """Return the words for an unknown value in a column.

    Args:
        column: agebench's name of the column.
    """
    return UNKNOWN | {UNKNOWN_WORD_OF_R} if column in NEVER_NA else UNKNOWN


def as_numbers(column: "pd.Series[Any]") -> "pd.Series[float]":
    """Convert a column to float64, NaN for other text and for True and False; `23,5` is 23.5."""
    if pd.api.types.is_bool_dtype(column):
        return pd.Series(float("nan"), index=column.index, name=column.name, dtype="float64")
    if pd.api.types.is_numeric_dtype(column):
        return column.astype("float64")
    numbers = pd.to_numeric(column, errors="coerce").astype("float64")
    if column.dtype == object:  # Truth values beside unknown ones; pandas takes them for 1 and 0.
        numbers = numbers.mask(column.map(pd.api.types.is_bool).astype(bool))
    if not numbers.isna().any():
        return numbers
    text = column.astype("str").str.strip()
    has_comma = numbers.isna() & text.str.fullmatch(r"[+-]?\d+,\d+").fillna(False).astype(bool)
    if has_comma.any():
        numbers = numbers.mask(has_comma, pd.to_numeric(text.where(has_comma).str.replace(",", "."), errors="coerce"))
    return numbers.astype("float64")


def not_utf8(content: IO[bytes]) -> str:
    """Describe why bytes are not UTF-8 text, and the solution; empty for UTF-8.

    Args:
        content: a binary file.
    """
    solution = "save it as UTF-8"
    decoder, line = codecs.getincrementaldecoder("utf-8")(), 1
    for block_index, block in enumerate(_blocks(content)):
        if not block_index and block.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            return f"not UTF-8 text but UTF-16; {solution}"
        if b"\0" in block:
            return f"not UTF-8 text: it contains NUL bytes, as UTF-16 and binary files do; {solution}"
        try:
            line += decoder.decode(block).count("\n")
        except UnicodeDecodeError as error:
            line += error.object[: error.start].count(b"\n")
            return f"not UTF-8 text ({error.reason} in line {line}); {solution}"
    try:
        decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        return f"not UTF-8 text ({error.reason} in line {line}); {solution}"
    return ""


def _blocks(content: IO[bytes]) -> Iterable[bytes]:
    while block := content.read(_BLOCK):
        yield block
