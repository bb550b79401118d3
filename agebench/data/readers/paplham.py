"""The JSON lists of the CVPR 2024 benchmark (Paplhám and Franc): images, labels, folders and aligned boxes."""

import json
import math
from pathlib import Path
from typing import Any

import pandas as pd

from agebench.data.readers import Reader
from agebench.data.readers.base import is_image, normalize_labels, to_samples, walk_files
from agebench.data.samples import Rejected, Samples
from agebench.errors import UserError
from agebench.types import RejectReason

CORNERS = 4


class FacebaseReader(Reader):
    """Images somewhere in a folder, and one JSON list in it that says what they are.

    Columns: subject (`id_num`), gender, `folder` (what splits are made of), `alignment_source`, and landmarks: the four
    corners of the aligned box (x1, y1 to x4, y4 in pixels; upper left, upper right, lower right, lower left of the upright
    face), which `faces = "boxes"` cuts out. A sample_id is the image's path in the list.

    An image of the list is found by the end of its path, upper and lower case alike: folders above it may be called otherwise.

    Args:
        root: the folder of the list and the images.
        groups: see `Reader`.
        list: the JSON file's name in the folder; empty: the only one there.
        values: see `agebench.data.readers.base.normalize_labels`.
    """

    def __init__(
        self,
        root: Path | None,
        groups: tuple[str, ...] = (),
        *,
        list: str = "",
        values: dict[str, dict[str, str]] | None = None,
    ) -> None:
        super().__init__(root, groups)
        self.list = list
        self.values = values or {}

    def read(self) -> Samples:
        """All entries; those whose image is not there, or that are no good entry, are put aside.

        Raises:
            UserError: no such list, one in another format, or not one usable entry.
        """
        assert self.root is not None
        files, _ = walk_files(self.root)
        file = self.root / self._find(files)
        entries = read_entries(file)
        images = _by_end([path for path in files if is_image(path)])
        rows = []
        put_aside: list[Rejected] = []
        for entry in entries:
            named = str(entry["img_path"]).replace("\\", "/")
            path = images.get(named.lower()) or images.get(named.lower().rpartition("/")[2])
            corners = _corners(entry.get("aligned_bbox"))
            if path is None:
                reason = "no image of this name, or several"
                put_aside.append(Rejected(named, named, RejectReason.MISSING_FILE, reason))
            elif corners is None and entry.get("aligned_bbox") is not None:
                reason = "its aligned_bbox is not eight numbers"
                put_aside.append(Rejected(named, path, RejectReason.BAD_LABEL_FILE, reason))
            else:
                rows.append((named, path, corners, entry))
        table = pd.DataFrame(
            {
                "sample_id": [row[0] for row in rows],
                "path": [row[1] for row in rows],
                "age": [_text(row[3].get("age")) for row in rows],
                "subject": [_text(row[3].get("id_num")) for row in rows],
                "gender": [_text(row[3].get("gender")) for row in rows],
                "folder": [_text(row[3].get("folder")) for row in rows],
                "alignment_source": [_text(row[3].get("alignment_source")) for row in rows],
            }
        )
        table = normalize_labels(table, self.values, source=str(file))
        table["landmarks"] = pd.Series([row[2] for row in rows], dtype="object")
        return to_samples(table, put_aside, self.groups, source=str(file))

    def _find(self, files: list[str]) -> str:
        found = [path for path in files if path.lower().endswith(".json")]
        named = [path for path in found if path == self.list or path.endswith("/" + self.list)] if self.list else found
        if len(named) != 1:
            wanted = f"list '{self.list}'" if self.list else "JSON list"
            raise UserError(
                f"{self.root}: {len(named)} files are its {wanted} (there are: {', '.join(found[:4]) or 'none'}); put the "
                "benchmark's JSON file beside the images, and name it on the card: options.list"
            )
        return named[0]


def read_entries(file: Path) -> list[dict[str, Any]]:
    """The entries of a list.

    Raises:
        UserError: not a JSON list of tables with `img_path` and `age`; the message says which entry is not.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{file}: not a readable JSON file: {error}") from error
    if not isinstance(content, list):
        raise UserError(f"{file}: holds no list of images")
    for number, entry in enumerate(content):
        if not isinstance(entry, dict) or not {"img_path", "age"} <= entry.keys():
            raise UserError(
                f"{file}: entry {number} has no img_path and age: it is not a list of the CVPR 2024 benchmark"
            )
    return content


def _by_end(paths: list[str]) -> dict[str, str]:
    """Every end of a path, in small letters, that only one path has -> that path."""
    found: dict[str, str | None] = {}
    for path in paths:
        parts = path.lower().split("/")
        for start in range(len(parts)):
            end = "/".join(parts[start:])
            found[end] = None if end in found else path
    return {end: path for end, path in found.items() if path is not None}


def _corners(box: Any) -> list[float] | None:
    good = isinstance(box, list) and len(box) == 2 * CORNERS
    if not good or not all(isinstance(number, int | float) and math.isfinite(number) for number in box):
        return None
    return [float(number) for number in box]


def _text(value: Any) -> str | None:
    return None if value is None or isinstance(value, dict | list) else str(value)
