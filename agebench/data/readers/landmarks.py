"""Annotated landmarks: numbers in a cell of a table, or one landmark file per image."""

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


def landmark_files(root: Path, template: str, rows: pd.DataFrame) -> "pd.Series[Any]":
    """Read the landmark file of each image.

    Args:
        root: the dataset's folder.
        template: path of a landmark file in the folder, with `{stem}`, `{name}` and `{folder}` of the image's path, or labels.
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
    texts = [_read_numbers(home, file) if isinstance(file, str) else None for file in files]
    if len(texts) and not any(texts):
        raise UserError(f"{root}: options.landmarks = '{template}' fits no file, the first would be '{files.iloc[0]}'")
    return pd.Series(texts, index=rows.index, dtype="object")


def _read_numbers(home: str, file: str) -> str | None:
    path = os.path.join(home, file)
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
