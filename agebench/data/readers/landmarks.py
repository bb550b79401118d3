"""Annotated landmarks: numbers in a cell of a table, or one landmark file per image."""

import math
import os
import re
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pandas as pd

from agebench.data.readers.base import is_within, top_folder, walk_files
from agebench.data.readers.patterns import format_template
from agebench.errors import UserError
from agebench.utils.table_cells import UNKNOWN

# A `.pts` file, as FG-NET and the 300-W tools write it.
_PTS = re.compile(r"version:\s*1\s+n_points:\s*\d+\s*\{(?P<numbers>[^{}]*)\}\s*", re.IGNORECASE)
_MIN_POINTS = 3  # the eyes and the nose, which a card's landmark_points name
_MAX_BYTES = 1_000_000


def parse_landmarks(value: Any) -> list[float] | str | None:
    """Parse landmarks.

    Args:
        value: text with white space, commas, semicolons or brackets between the numbers, or a list of numbers or of pairs.

    Returns:
        [x0, y0, x1, y1, …], pixels; None for an unknown value; a sentence for landmarks that cannot be used.
    """
    if value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, str):
        if value.strip() in UNKNOWN:
            return None
        parts: list[Any] = [part for part in re.split(r"[\s,;()\[\]]+", value) if part]
    else:
        parts = np.ravel(np.asarray(value, dtype="object")).tolist()
        parts = [number for part in parts for number in (np.ravel(part).tolist() if np.ndim(part) else [part])]
    try:
        numbers = [float(part) for part in parts]
    except (TypeError, ValueError):
        numbers = []
    if len(numbers) < 2 * _MIN_POINTS or len(numbers) % 2 or not all(map(math.isfinite, numbers)):
        text = value if isinstance(value, str) else str(parts)
        return f"its landmarks '{text[:60]}' are not x and y of three points or more"
    return numbers


def fixed_landmarks(points: Any) -> list[float]:
    """Return the coordinates x0, y0, x1, y1, … of landmarks that are the same for every image.

    Args:
        points: x and y of each point, pixels.

    Raises:
        UserError: the value is no list of three points or more.
    """
    numbers = parse_landmarks(points)
    if not isinstance(numbers, list) or any(np.shape(point) != (2,) for point in points):
        raise UserError(
            f"options.landmarks = {points!r}: write a template of file names, or x and y of three points or more, "
            "e.g. [[76, 90], [148, 90], [112, 140]]"
        )
    return numbers


def check_point_means(means: Any) -> tuple[tuple[int, ...], ...]:
    """Return the lists of point indices whose means replace the annotated points.

    Args:
        means: the card's option: lists of indices from 0; empty for none.

    Raises:
        UserError: the value is no list of lists of whole numbers, or lists fewer than three points.
    """
    lists = tuple(tuple(indices) if isinstance(indices, list | tuple) else () for indices in means)
    valid = all(indices and all(isinstance(index, int) and index >= 0 for index in indices) for indices in lists)
    if lists and (not valid or len(lists) < _MIN_POINTS):
        raise UserError(
            f"options.landmark_means = {means!r}: write three lists of point numbers or more, counted from 0, e.g. "
            "[[36, 37, 38, 39, 40, 41], [42, 43, 44, 45, 46, 47], [33]]"
        )
    return lists


def average_points(landmarks: list[float] | str | None, means: tuple[tuple[int, ...], ...]) -> list[float] | str | None:
    """Replace annotated points by means of several of them.

    Args:
        landmarks: an output of `parse_landmarks`.
        means: for each new point, the indices of the points to average.

    Returns:
        The new points as x0, y0, x1, y1, …; None and sentences are returned as they are; a sentence if a point is missing.
    """
    if not isinstance(landmarks, list):
        return landmarks
    points = np.asarray(landmarks).reshape(-1, 2)
    highest = max(max(indices) for indices in means)
    if highest >= len(points):
        return f"it has {len(points)} landmarks, and options.landmark_means asks for number {highest}, counted from 0"
    averages: list[float] = np.stack([points[list(indices)].mean(axis=0) for indices in means]).ravel().tolist()
    return averages


def landmark_files(root: Path, template: str, rows: pd.DataFrame) -> "pd.Series[Any]":
    """Read the landmark file of each image.

    Args:
        root: the dataset's folder.
        template: path of a landmark file in the folder, or in the one that contains all files, with `{stem}`, `{name}` and
            `{folder}` of the image's path, or labels.
        rows: `path`, and the labels.

    Returns:
        The numbers of each file as text; None for an image without a landmark file.

    Raises:
        UserError: the template names a missing label, or no image has a landmark file.
    """
    paths = [PurePosixPath(path) for path in rows["path"]]
    columns = {str(column): rows[column] for column in rows}
    columns["stem"] = pd.Series([path.stem for path in paths], index=rows.index, dtype="str")
    columns["name"] = pd.Series([path.name for path in paths], index=rows.index, dtype="str")
    columns["folder"] = pd.Series([str(path.parent) for path in paths], index=rows.index, dtype="str")
    try:
        files = format_template(template, columns)
    except KeyError as missing:
        raise UserError(
            f"options.landmarks = '{template}': no label {missing}; there are {', '.join(columns)}"
        ) from missing
    home = os.path.realpath(root)
    top = top_folder(walk_files(root)[0])
    texts = [_read_numbers(home, file, top) if isinstance(file, str) else None for file in files]
    if len(texts) and not any(texts):
        raise UserError(f"{root}: options.landmarks = '{template}' fits no file, the first would be '{files.iloc[0]}'")
    return pd.Series(texts, index=rows.index, dtype="object")


def _read_numbers(home: str, file: str, top: str) -> str | None:
    path = os.path.join(home, file)
    if not os.path.isfile(path):
        path = os.path.join(home, top + file)
    if not os.path.isfile(path) or not is_within(home, path):
        return None
    try:
        if os.path.getsize(path) > _MAX_BYTES:
            return "a file of more than 1 MB"
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        return f"a file that cannot be read: {error}"
    match = _PTS.fullmatch(text)
    return match["numbers"] if match else text
