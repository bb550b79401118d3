"""Landmarks of a dataset's own: numbers in a cell of its table, or a file of points for each image."""

import math
import os
import re
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pandas as pd

from agebench.data.readers.base import is_within
from agebench.data.readers.patterns import format_template
from agebench.errors import UserError
from agebench.utils.table_cells import UNKNOWN

# The head of a `.pts` file, as FG-NET and the 300-W tools write it.
_PTS = re.compile(r"version:\s*1\s+n_points:\s*\d+\s*\{(?P<numbers>[^{}]*)\}\s*", re.IGNORECASE)
_FEWEST = 3  # an eye, the other eye, the nose: what a card's landmark_points names
_MOST_BYTES = 1_000_000


def parse_landmarks(value: Any) -> list[float] | str | None:
    """Return x0, y0, x1, y1, … in pixels; None for an unknown value; a sentence where they cannot be used.

    Args:
        value: text with white space, commas, semicolons or brackets between the numbers, or a list of numbers or of pairs.
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
    if len(numbers) < 2 * _FEWEST or len(numbers) % 2 or not all(map(math.isfinite, numbers)):
        text = value if isinstance(value, str) else str(parts)
        return f"its landmarks '{text[:60]}' are not x and y of three points or more"
    return numbers


def landmark_files(root: Path, template: str, rows: pd.DataFrame) -> "pd.Series[Any]":
    """Return the numbers of each image's file of points as text; None where the image has no such file.

    Args:
        root: the dataset's folder.
        template: the file's path in it, with `{stem}`, `{name}`, `{folder}` of the image's path, or labels.
        rows: `path`, and the labels.

    Raises:
        UserError: a place of the template is no label, or no image has such a file.
    """
    paths = [PurePosixPath(path) for path in rows["path"]]
    places = {str(column): rows[column] for column in rows}
    places["stem"] = pd.Series([path.stem for path in paths], index=rows.index, dtype="str")
    places["name"] = pd.Series([path.name for path in paths], index=rows.index, dtype="str")
    places["folder"] = pd.Series([str(path.parent) for path in paths], index=rows.index, dtype="str")
    try:
        files = format_template(template, places)
    except KeyError as missing:
        raise UserError(
            f"options.landmarks = '{template}': no label {missing}; there are {', '.join(places)}"
        ) from missing
    home = os.path.realpath(root)
    texts = [_numbers(home, file) if isinstance(file, str) else None for file in files]
    if len(texts) and not any(texts):
        raise UserError(f"{root}: options.landmarks = '{template}' fits no file, the first would be '{files.iloc[0]}'")
    return pd.Series(texts, index=rows.index, dtype="object")


def _numbers(home: str, file: str) -> str | None:
    path = os.path.join(home, file)
    if not os.path.isfile(path) or not is_within(home, path):
        return None
    try:
        if os.path.getsize(path) > _MOST_BYTES:
            return "a file of more than 1 MB"
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        return f"a file that cannot be read: {error}"
    match = _PTS.fullmatch(text)
    return match["numbers"] if match else text
