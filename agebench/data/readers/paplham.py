"""Reader for the JSON lists of the CVPR 2024 benchmark (Paplhám and Franc): images, labels, folders, aligned boxes."""

import json
import math
from pathlib import Path
from typing import Any

import pandas as pd

from agebench.data.readers import Reader
from agebench.data.readers.base import is_image, to_samples, walk_files
from agebench.data.readers.vocabulary import normalize_labels
from agebench.data.samples import Rejected, Samples
from agebench.errors import UserError
from agebench.types import RejectReason

CORNERS = 4
# Column -> field of an entry.
_FIELDS = {
    "age": "age",
    "subject": "id_num",
    "gender": "gender",
    "folder": "folder",
    "alignment_source": "alignment_source",
}


class FacebaseReader(Reader):
    """Reader for a folder with images, at any depth, and one JSON list of their labels.

    Columns: subject (`id_num`), gender, `folder` (the unit of splits), `alignment_source`, and landmarks: the four corners of
    the aligned box (x1, y1 to x4, y4 in pixels; upper left, upper right, lower right, lower left of the upright face), which
    `faces = "boxes"` crops. A sample_id is the image's path in the list.

    Images are matched by the end of their path, independent of case, so the folders above may have other names.

    Args:
        root: the folder of the list and the images.
        groups: columns for subgroup metrics, from the card.
        list: name of the JSON file in the folder; empty for the only one.
        values: column -> value in the source -> value in agebench; see `normalize_labels`.
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
        """Read all entries; reject those that are malformed or whose image does not exist.

        Raises:
            UserError: the list does not exist or has another format, or no entry is usable.
        """
        assert self.root is not None
        files, _ = walk_files(self.root)
        file = self.root / self._find_list(files)
        images = _unique_path_ends([path for path in files if is_image(path)])
        rows: list[dict[str, object]] = []
        rejected: list[Rejected] = []
        for entry in _read_entries(file):
            name = str(entry["img_path"]).replace("\\", "/")
            path = images.get(name.lower()) or images.get(name.lower().rpartition("/")[2])
            corners = _parse_corners(entry.get("aligned_bbox"))
            if path is None:
                reason = "no image of this name, or several"
                rejected.append(Rejected(name, name, RejectReason.MISSING_FILE, reason))
            elif corners is None and entry.get("aligned_bbox") is not None:
                reason = "its aligned_bbox is not eight numbers"
                rejected.append(Rejected(name, path, RejectReason.BAD_LABEL_FILE, reason))
            else:
                labels = {column: _as_text(entry.get(field)) for column, field in _FIELDS.items()}
                rows.append({"sample_id": name, "path": path, **labels, "landmarks": corners})
        table = pd.DataFrame(rows, columns=["sample_id", "path", *_FIELDS, "landmarks"])
        landmarks = table.pop("landmarks").astype("object")
        table = normalize_labels(table, self.values, source=str(file)).assign(landmarks=landmarks)
        return to_samples(table, rejected, self.groups, source=str(file))

    def _find_list(self, files: list[str]) -> str:
        lists = [path for path in files if path.lower().endswith(".json")]
        matches = (
            [path for path in lists if path == self.list or path.endswith("/" + self.list)] if self.list else lists
        )
        if len(matches) != 1:
            description = f"list '{self.list}'" if self.list else "JSON list"
            raise UserError(
                f"{self.root}: {len(matches)} files are its {description} (there are: {', '.join(lists[:4]) or 'none'}); "
                "put the benchmark's JSON file beside the images, and name it on the card: options.list"
            )
        return matches[0]


def _read_entries(file: Path) -> list[dict[str, Any]]:
    """Read the entries of a list.

    Args:
        file: the JSON file.

    Raises:
        UserError: the file is not a JSON list of objects with `img_path` and `age`. The message names the first other entry.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{file}: not a readable JSON file: {error}") from error
    if not isinstance(content, list):
        raise UserError(f"{file}: holds no list of images")
    for i, entry in enumerate(content):
        if not isinstance(entry, dict) or not {"img_path", "age"} <= entry.keys():
            raise UserError(f"{file}: entry {i} has no img_path and age: it is not a list of the CVPR 2024 benchmark")
    return content


def _unique_path_ends(paths: list[str]) -> dict[str, str]:
    """Map every end of a path, in lower case, that belongs to one path only to that path."""
    path_by_end: dict[str, str | None] = {}
    for path in paths:
        parts = path.lower().split("/")
        for start in range(len(parts)):
            end = "/".join(parts[start:])
            path_by_end[end] = None if end in path_by_end else path
    return {end: path for end, path in path_by_end.items() if path is not None}


def _parse_corners(box: Any) -> list[float] | None:
    has_length = isinstance(box, list) and len(box) == 2 * CORNERS
    if not has_length or not all(isinstance(number, int | float) and math.isfinite(number) for number in box):
        return None
    return [float(number) for number in box]


def _as_text(value: Any) -> str | None:
    return None if value is None or isinstance(value, dict | list) else str(value)
