"""Write predictions as rows of a CSV, JSON or Parquet file, incrementally and atomically."""

import csv
import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, TextIO

import pyarrow as pa
import pyarrow.parquet as pq

from agebench.errors import UserError
from agebench.inference.predictor import FacePrediction
from agebench.metrics.schema import CalibratedInterval, GateGuarantee
from agebench.utils.io import atomic_write, csv_cell

Row = dict[str, Any]
Write = Callable[[Sequence[Row]], None]

_TYPES = {"input": pa.string(), "frame": pa.int64(), "face": pa.int32(), "decision": pa.string(), "error": pa.string()}
_ROW_GROUP = 10_000
SUFFIXES = (".csv", ".json", ".parquet")


@dataclass(frozen=True)
class PredictionSettings:
    """The settings of a prediction, as JSON and Parquet files state them.

    Attributes:
        model: the model, as the user named it.
        interval: the interval of the estimates; None: none.
        gate: the age gate; None: none.
    """

    model: str
    interval: CalibratedInterval | None
    gate: GateGuarantee | None

    def to_json(self) -> Row:
        """Return the settings as plain values."""
        guarantees = {"interval": self.interval, "gate": self.gate}
        return {"model": self.model} | {key: value and value.to_json() for key, value in guarantees.items()}


def output_columns(*, video: bool, gate: bool) -> list[str]:
    """Return the columns in order.

    Args:
        video: whether there are videos, with the columns `frame` and `time`.
        gate: whether there is a gate, with the column `decision`.
    """
    position = ["frame", "time"] if video else []
    decision = ["decision"] if gate else []
    return ["input", *position, "face", "x0", "y0", "x1", "y1", "age", "age_std", "low", "high", *decision, "error"]


def to_row(face: FacePrediction, challenge: float | None, frame: int | None = None, time: float | None = None) -> Row:
    """Return one face as a row. Years have two decimals, pixels one; a missing number is None.

    Args:
        face: the prediction.
        challenge: challenge age, years; None: no gate.
        frame: number of the frame; None for an image.
        time: time of the frame, seconds; None for an image.
    """
    left, top, right, bottom = (round(end, 1) for end in face.box) if face.box else (None,) * 4
    row: Row = {"input": printable_path(face.input), "frame": frame, "time": None if time is None else round(time, 3)}
    row |= {"face": face.face, "x0": left, "y0": top, "x1": right, "y1": bottom}
    for name in ("age", "age_std", "low", "high"):
        value = getattr(face, name)
        row[name] = round(value, 2) if math.isfinite(value) else None
    return row | {"decision": gate_decision(face, challenge), "error": face.error}


def gate_decision(face: FacePrediction, challenge: float | None) -> str | None:
    """Return `over` if the estimate is at least the challenge age, else `check`; None if one of them is missing.

    Args:
        face: the prediction.
        challenge: challenge age, years; None: no gate.
    """
    if challenge is None or not math.isfinite(face.age):
        return None
    return "over" if face.age >= challenge else "check"


def printable_path(name: str) -> str:
    """Return a path as valid text: bytes that are not UTF-8, and NUL, are escaped.

    Args:
        name: the path.
    """
    return name.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")


def check_suffix(path: Path) -> None:
    """Check that a suffix selects a format.

    Args:
        path: the file to write.

    Raises:
        UserError: it does not.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise UserError(f"--out {path}: the suffix selects the format: {', '.join(SUFFIXES)}")


@contextmanager
def open_writer(path: Path, names: Sequence[str], about: PredictionSettings) -> Iterator[Write]:
    """Open a file for rows; it appears when the block ends without an error.

    Args:
        path: the file, .csv, .json or .parquet.
        names: the columns.
        about: how the ages were predicted, for JSON and Parquet files.

    Yields:
        The function that writes rows.

    Raises:
        UserError: the suffix selects no format.
        AgebenchError: the file cannot be written.
    """
    check_suffix(path)
    with atomic_write(path) as temporary:
        if path.suffix.lower() == ".parquet":
            with parquet_output(temporary, names, about) as write:
                yield write
            return
        with (
            temporary.open("w", encoding="utf-8", newline="") as file,
            text_output(file, names, about if path.suffix.lower() == ".json" else None) as write,
        ):
            yield write


@contextmanager
def text_output(file: TextIO, names: Sequence[str], about: PredictionSettings | None) -> Iterator[Write]:
    """Write rows as text; an error before the first row leaves no text.

    Args:
        file: the open file.
        names: the columns.
        about: how the ages were predicted, for JSON; None: CSV.

    Yields:
        The function that writes rows.
    """
    if about is None:
        table = csv.writer(file, lineterminator="\n")
        has_header = False

        def write(rows: Sequence[Row]) -> None:
            nonlocal has_header
            if not has_header:
                table.writerow(names)
                has_header = True
            table.writerows([csv_cell(row[name]) for name in names] for row in rows)
            if file is sys.stdout:
                file.flush()  # a reader sees the faces of each image at once

        yield write
        write([])
        return
    head = json.dumps(about.to_json() | {"faces": []}, indent=2, allow_nan=False)
    separator = opening = head[: head.rindex("[]")] + "["

    def write_json(rows: Sequence[Row]) -> None:
        nonlocal separator
        for row in rows:
            file.write(f"{separator}\n    {json.dumps({name: row[name] for name in names}, allow_nan=False)}")
            separator = ","

    yield write_json
    file.write((opening if separator == opening else "") + "\n  ]\n}\n")


@contextmanager
def parquet_output(
    path: Path, names: Sequence[str], about: PredictionSettings, notes: Mapping[bytes, bytes] = MappingProxyType({})
) -> Iterator[Write]:
    """Write rows to a Parquet file.

    Args:
        path: the file; it is replaced, and incomplete until the block ends.
        names: the columns.
        about: how the ages were predicted.
        notes: further metadata of the file.

    Yields:
        The function that writes rows.
    """
    schema = pa.schema(
        [(name, _TYPES.get(name, pa.float64())) for name in names],
        metadata={b"agebench": json.dumps(about.to_json()).encode(), **notes},
    )
    pending: list[Row] = []
    with pq.ParquetWriter(path, schema) as file:

        def flush() -> None:
            file.write_table(pa.Table.from_pylist([{name: row[name] for name in names} for row in pending], schema))
            pending.clear()

        def write(rows: Sequence[Row]) -> None:
            pending.extend(rows)
            if len(pending) >= _ROW_GROUP:
                flush()

        yield write
        if pending:
            flush()
