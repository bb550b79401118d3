"""Answers as rows of a file: CSV, JSON or Parquet, written as they come, there whole or not at all."""

import csv
import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import pyarrow as pa
import pyarrow.parquet as pq

from agebench.errors import UserError
from agebench.inference.predictor import FacePrediction
from agebench.utils.io import atomic_write, csv_cell

Row = dict[str, Any]
Write = Callable[[Sequence[Row]], None]

_TYPES = {"input": pa.string(), "frame": pa.int64(), "face": pa.int32(), "decision": pa.string(), "error": pa.string()}
_ROW_GROUP = 10_000
SUFFIXES = (".csv", ".json", ".parquet")


def output_columns(*, video: bool, gate: bool) -> list[str]:
    """The columns, in order; `frame` and `time` where there are videos, `decision` where there is a gate."""
    place = ["frame", "time"] if video else []
    decision = ["decision"] if gate else []
    return ["input", *place, "face", "x0", "y0", "x1", "y1", "age", "age_std", "low", "high", *decision, "error"]


def to_row(face: FacePrediction, challenge: float | None, frame: int | None = None, time: float | None = None) -> Row:
    """One face as a row; None where a number is missing. Years have two decimals, pixels one."""
    left, top, right, bottom = (round(end, 1) for end in face.box) if face.box else (None,) * 4
    made: Row = {"input": printable_path(face.input), "frame": frame, "time": None if time is None else round(time, 3)}
    made |= {"face": face.face, "x0": left, "y0": top, "x1": right, "y1": bottom}
    for name in ("age", "age_std", "low", "high"):
        value = getattr(face, name)
        made[name] = round(value, 2) if math.isfinite(value) else None
    return made | {"decision": gate_decision(face, challenge), "error": face.error}


def gate_decision(face: FacePrediction, challenge: float | None) -> str | None:
    """`over` only where the estimate is at least the challenge age, else `check`; None without one of them."""
    if challenge is None or not math.isfinite(face.age):
        return None
    return "over" if face.age >= challenge else "check"


def printable_path(name: str) -> str:
    """A path as text that any file can hold: bytes that are no UTF-8, and NUL, are written out."""
    return name.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")


def check_suffix(path: Path) -> None:
    """Refuse an ending that stands for no format, before any work is done.

    Raises:
        UserError: such an ending.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise UserError(f"--out {path}: the ending decides the format: {', '.join(SUFFIXES)}")


@contextmanager
def open_writer(path: Path, names: Sequence[str], about: Mapping[str, Any]) -> Iterator[Write]:
    """A function that writes rows to `path`, which is there when the block ends well.

    Args:
        path: .csv, .json or .parquet.
        names: the columns.
        about: what JSON and Parquet files say beside the rows.

    Raises:
        UserError: another ending.
        AgebenchError: the file cannot be written.
    """
    check_suffix(path)
    with atomic_write(path) as temporary:
        if path.suffix.lower() == ".parquet":
            with _parquet(temporary, names, about) as write:
                yield write
            return
        with (
            temporary.open("w", encoding="utf-8", newline="") as file,
            text_output(file, names, about if path.suffix.lower() == ".json" else None) as write,
        ):
            yield write


@contextmanager
def text_output(file: TextIO, names: Sequence[str], about: Mapping[str, Any] | None) -> Iterator[Write]:
    """Rows as text: JSON with what is `about` them, CSV where that is None. An error before the first row leaves no text."""
    if about is None:
        table = csv.writer(file, lineterminator="\n")
        begun = False

        def write(rows: Sequence[Row]) -> None:
            nonlocal begun
            if not begun:
                table.writerow(names)
                begun = True
            table.writerows([csv_cell(row[name]) for name in names] for row in rows)
            if file is sys.stdout:
                file.flush()  # who reads along sees each picture's faces when they are found

        yield write
        write([])
        return
    head = json.dumps(dict(about) | {"faces": []}, indent=2, allow_nan=False)
    before = beginning = head[: head.rindex("[]")] + "["

    def write_json(rows: Sequence[Row]) -> None:
        nonlocal before
        for row in rows:
            file.write(f"{before}\n    {json.dumps({name: row[name] for name in names}, allow_nan=False)}")
            before = ","

    yield write_json
    file.write((beginning if before == beginning else "") + "\n  ]\n}\n")


@contextmanager
def _parquet(path: Path, names: Sequence[str], about: Mapping[str, Any]) -> Iterator[Write]:
    schema = pa.schema(
        [(name, _TYPES.get(name, pa.float64())) for name in names], metadata={"agebench": json.dumps(dict(about))}
    )
    waiting: list[Row] = []
    with pq.ParquetWriter(path, schema) as file:

        def flush() -> None:
            file.write_table(pa.Table.from_pylist([{name: row[name] for name in names} for row in waiting], schema))
            waiting.clear()

        def write(rows: Sequence[Row]) -> None:
            waiting.extend(rows)
            if len(waiting) >= _ROW_GROUP:
                flush()

        yield write
        flush()
