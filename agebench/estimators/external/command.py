"""Run a command that maps image paths to ages: it reads one CSV file and writes another."""

import csv
import math
import os
import shlex
import signal
import subprocess
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from agebench.config.cards.external import ExternalCard
from agebench.config.cards.package import PACKAGE_FOLDER
from agebench.estimators.base import AgeEstimates
from agebench.estimators.external.io_spec import ExternalModelError
from agebench.estimators.packages import package_environment, require_package


def run_command_model(card: ExternalCard, pixels: np.ndarray, rows: np.ndarray) -> AgeEstimates:
    """Write the faces as PNG files, run the command once, and read its CSV file.

    The command gets a CSV file with the column `path`, and writes one with the columns `path`, `age` and optionally `std`,
    in any order. {input} and {output} in its command line are replaced by the two files.

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
        with (folder / "faces.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([["path"], *([path] for path in paths)])
        _run(card, folder / "faces.csv", folder / "ages.csv")
        return _read(card, folder / "ages.csv", paths)


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


def _read(card: ExternalCard, file: Path, paths: list[str]) -> AgeEstimates:
    estimates: dict[str, tuple[float, float | None]] = {}
    try:
        with file.open(newline="", encoding="utf-8") as handle:
            table = csv.DictReader(handle)
            missing = {"path", "age"} - set(table.fieldnames or [])
            if missing:
                raise ExternalModelError(
                    f"model '{card.name}': its CSV has no column {' and no '.join(sorted(missing))}; there are: "
                    f"{', '.join(table.fieldnames or ['none'])}"
                )
            for row in table:
                std = row.get("std")
                estimates[row["path"]] = (
                    _number(card, row, "age"),
                    _number(card, row, "std") if std not in (None, "") else None,
                )
    except FileNotFoundError:
        raise ExternalModelError(f"model '{card.name}': the command ended and wrote no {{output}}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise ExternalModelError(f"model '{card.name}': what it wrote is no CSV: {error}") from error
    missing_paths = [path for path in paths if path not in estimates]
    if missing_paths:
        raise ExternalModelError(
            f"model '{card.name}' answers for {len(paths) - len(missing_paths)} of {len(paths)} images, the first without an "
            f"answer is {Path(missing_paths[0]).name}; it must write one row an image, with the path as it was given"
        )
    ages = np.array([estimates[path][0] for path in paths])
    stds = [estimates[path][1] for path in paths]
    std = np.array([value for value in stds if value is not None])
    return AgeEstimates(
        card.output.offset + card.output.scale * ages,
        std * abs(card.output.scale) if len(std) == len(stds) else None,
    )


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
