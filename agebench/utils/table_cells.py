"""What the text of a table's cells means: unknown values, numbers with a decimal comma, and encodings other than UTF-8."""

import codecs
from collections.abc import Iterable
from typing import IO, Any

import pandas as pd

# Text that programs write for an unknown value: pandas, NumPy, JSON, Python, databases, spreadsheets.
UNKNOWN = frozenset({"", "nan", "NaN", "NAN", "<NA>", "NaT", "null", "NULL", "None", "N/A", "n/a", "#N/A", "#NA"})
# R's word for unknown is also a region's (North America) and an ethnicity's (Native American). So it is a value, but where
# no value can be called so: a gender, an official split, a person, an image's id.
UNKNOWN_WORD_OF_R = "NA"
NEVER_NA = frozenset({"gender", "split", "subject", "sample_id"})
_BLOCK = 1 << 20


def unknown_words(column: str) -> frozenset[str]:
    """Return the words that stand for an unknown value in the column `column` (by its name in agebench)."""
    return UNKNOWN | {UNKNOWN_WORD_OF_R} if column in NEVER_NA else UNKNOWN


def as_numbers(column: "pd.Series[Any]") -> "pd.Series[float]":
    """Return float64 numbers, NaN for anything else; `23,5` is 23.5."""
    if pd.api.types.is_numeric_dtype(column):
        return column.astype("float64")
    numbers = pd.to_numeric(column, errors="coerce").astype("float64")
    if not numbers.isna().any():
        return numbers
    text = column.astype("str").str.strip()
    comma = numbers.isna() & text.str.fullmatch(r"[+-]?\d+,\d+").fillna(False).astype(bool)
    if comma.any():
        numbers = numbers.mask(comma, pd.to_numeric(text.where(comma).str.replace(",", "."), errors="coerce"))
    return numbers.astype("float64")


def not_utf8(content: IO[bytes]) -> str:
    """Say why the bytes are not UTF-8 text and what to do; empty for UTF-8."""
    way_out = "save it as UTF-8"
    decoder, line = codecs.getincrementaldecoder("utf-8")(), 1
    for number, block in enumerate(_blocks(content)):
        if not number and block.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            return f"not UTF-8 text but UTF-16; {way_out}"
        if b"\0" in block:
            return f"not UTF-8 text: it contains NUL bytes, as UTF-16 and binary files do; {way_out}"
        try:
            line += decoder.decode(block).count("\n")
        except UnicodeDecodeError as error:
            line += error.object[: error.start].count(b"\n")
            return f"not UTF-8 text ({error.reason} in line {line}); {way_out}"
    try:
        decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        return f"not UTF-8 text ({error.reason} in line {line}); {way_out}"
    return ""


def _blocks(content: IO[bytes]) -> Iterable[bytes]:
    while block := content.read(_BLOCK):
        yield block
