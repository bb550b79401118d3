"""Run a command that maps image paths to ages: it reads one CSV file and writes another."""

import csv
import math
import os
import shlex
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from agebench.config.cards.external import ExternalCard
from agebench.config.cards.package import PACKAGE_FOLDER
from agebench.estimators.base import AgeEstimates
from agebench.estimators.external.decoding import parse_gender
from agebench.estimators.external.io_spec import ExternalModelError
from agebench.estimators.external.photos import DetectedFaces, Photo
from agebench.estimators.packages import package_environment, require_package

# Columns of a box, pixels of the photograph.
SIDES = ("left", "top", "right", "bottom")


def run_command_model(card: ExternalCard, pixels: np.ndarray, rows: np.ndarray) -> AgeEstimates:
    """Write the faces as PNG files, run the command once, and read its CSV file.

    The command gets a CSV file with the column `path`, and writes one with the columns `path`, `age` and optionally `std`, and
    `gender` if the card reads it, in any order. {input} and {output} in its command line are replaced by the two files.

    Args:
        card: the model's card.
        pixels: (M, S, S, 3) uint8 RGB.
        rows: (N,) the rows of `pixels` to estimate.

    Raises:
        ExternalModelError: the command failed, timed out, or left out a face.
    """
    with tempfile.TemporaryDirectory(prefix="agebench-") as name:
        folder = Path(name)
        paths = [str(folder / "faces" / f"{number:06}.png") for number in range(len(rows))]
        (folder / "faces").mkdir()
        for path, row in zip(paths, rows, strict=True):
            Image.fromarray(pixels[row]).save(path, compress_level=1)
        _write_table(folder / "faces.csv", [["path"], *([path] for path in paths)])
        _run(card, folder / "faces.csv", folder / "ages.csv")
        return _estimates(card, _read(card, folder / "ages.csv"), paths)


def run_photo_command(card: ExternalCard, photos: Sequence[Photo]) -> list[DetectedFaces]:
    """Write photographs, run the command once, and read the faces that it detects.

    The command gets a CSV file with the columns `path`, `left`, `top`, `right`, `bottom` and `points` (x0 y0 x1 y1 …), which are
    empty where they are not annotated. It writes one row per face that it detects, with `path`, `age`, and `gender` if the card
    reads it; several rows of one photograph need `left`, `top`, `right` and `bottom`.

    Args:
        card: the model's card.
        photos: the photographs.

    Raises:
        ExternalModelError: the command failed, timed out, or wrote what is no age.
    """
    with tempfile.TemporaryDirectory(prefix="agebench-") as name:
        folder = Path(name)
        (folder / "photos").mkdir()
        table = [["path", *SIDES, "points"]]
        for number, photo in enumerate(photos):
            path = folder / "photos" / f"{number:06}{photo.suffix}"
            path.write_bytes(photo.file)
            box = [""] * 4 if photo.box is None else [f"{side:g}" for side in photo.box]
            points = "" if photo.points is None else " ".join(f"{value:g}" for value in photo.points.ravel())
            table.append([str(path), *box, points])
        _write_table(folder / "photos.csv", table)
        _run(card, folder / "photos.csv", folder / "ages.csv")
        rows: dict[str, list[dict[str, str]]] = {}
        for row in _read(card, folder / "ages.csv"):
            if row["age"].strip():  # a photograph without an age is one without a face
                rows.setdefault(row["path"], []).append(row)
        return [_detected_faces(card, rows.get(path, [])) for path, *_ in table[1:]]


def _detected_faces(card: ExternalCard, rows: Sequence[dict[str, str]]) -> DetectedFaces:
    has_boxes = all((row.get(side) or "").strip() for row in rows for side in SIDES)
    return DetectedFaces(
        np.array([_number(card, row, "age") for row in rows]),
        np.array([[_number(card, row, side) for side in SIDES] for row in rows if has_boxes]).reshape(-1, 4),
        _genders(card, rows),
    )


def _write_table(path: Path, rows: Sequence[Sequence[str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)


def _run(card: ExternalCard, source: Path, target: Path) -> None:
    values = {"{input}": str(source), "{output}": str(target), PACKAGE_FOLDER: str(require_package(card) or "")}
    words = shlex.split(card.source)
    for placeholder, value in values.items():
        words = [word.replace(placeholder, value) for word in words]
    with tempfile.TemporaryFile() as log:
        try:
            process = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **package_environment(card)},
                start_new_session=True,
            )
        except OSError as error:
            raise ExternalModelError(
                f"model '{card.name}': {words[0]} cannot be started: {error.strerror or error}"
            ) from error
        try:
            code = process.wait(card.timeout)
        except subprocess.TimeoutExpired:
            raise ExternalModelError(
                f"model '{card.name}': {words[0]} did not end within {card.timeout:g} s; mend it, or raise `timeout` on its card"
            ) from None
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)  # with its children
                process.wait()
        if code:
            log.seek(max(0, log.seek(0, os.SEEK_END) - 2000))
            last = next(
                (line for line in reversed(log.read().decode(errors="replace").splitlines()) if line.strip()), ""
            )
            raise ExternalModelError(
                f"model '{card.name}': {words[0]} ended with exit code {code}: {last.strip() or 'it said nothing'}"
            )


def _read(card: ExternalCard, file: Path) -> list[dict[str, str]]:
    """Return the rows of the command's CSV file; absent cells are empty."""
    required = {"path", "age"} | ({"gender"} if card.output.gender else set())
    try:
        with file.open(newline="", encoding="utf-8") as handle:
            table = csv.DictReader(handle)
            missing = required - set(table.fieldnames or [])
            if missing:
                raise ExternalModelError(
                    f"model '{card.name}': its CSV has no column {' and no '.join(sorted(missing))}; there are: "
                    f"{', '.join(table.fieldnames or ['none'])}"
                )
            return [{key: value or "" for key, value in row.items() if key} for row in table]
    except FileNotFoundError:
        raise ExternalModelError(f"model '{card.name}': the command ended and wrote no {{output}}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise ExternalModelError(f"model '{card.name}': what it wrote is no CSV: {error}") from error


def _estimates(card: ExternalCard, table: Sequence[dict[str, str]], paths: list[str]) -> AgeEstimates:
    by_path = {row["path"]: row for row in table}
    missing_paths = [path for path in paths if path not in by_path]
    if missing_paths:
        raise ExternalModelError(
            f"model '{card.name}' answers for {len(paths) - len(missing_paths)} of {len(paths)} images, the first without an "
            f"answer is {Path(missing_paths[0]).name}; it must write one row an image, with the path as it was given"
        )
    rows = [by_path[path] for path in paths]
    has_std = all(row.get("std") for row in rows)
    std = np.array([_number(card, row, "std") for row in rows]) if has_std else None
    gender = card.output.gender
    return AgeEstimates(
        card.output.offset + card.output.scale * np.array([_number(card, row, "age") for row in rows]),
        None if std is None else std * abs(card.output.scale),
        tasks={} if gender is None else {"gender": parse_gender(_genders(card, rows), len(rows), gender, card.name)},
    )


def _genders(card: ExternalCard, rows: Sequence[dict[str, str]]) -> np.ndarray:
    """Return (F, C): 1 for the class that the column `gender` names; (F, 0) if the card reads no gender."""
    if card.output.gender is None:
        return np.zeros((len(rows), 0))
    classes = card.output.gender.classes
    unknown = next((row for row in rows if row["gender"] not in classes), None)
    if unknown is not None:
        raise ExternalModelError(
            f"model '{card.name}': gender of {Path(unknown['path']).name} is {unknown['gender']!r}; the card's classes are "
            f"{', '.join(classes)}"
        )
    return np.array([[float(row["gender"] == name) for name in classes] for row in rows]).reshape(-1, len(classes))


def _number(card: ExternalCard, row: dict[str, str], column: str) -> float:
    try:
        value = float(row[column])
    except (TypeError, ValueError):
        value = math.nan
    if not math.isfinite(value):
        raise ExternalModelError(
            f"model '{card.name}': {column} of {Path(str(row['path'])).name} is {row[column]!r}, not a finite number"
        )
    return value
