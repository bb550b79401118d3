"""Reader for FG-NET: `001A02.JPG` is person 001 at age 2, with 68 points in `001a02.pts` (Panis et al., 2016)."""

import re
from pathlib import Path

import pandas as pd

from agebench.data.readers import Reader
from agebench.data.readers.base import list_images, to_samples, walk_files
from agebench.data.samples import Rejected, Samples
from agebench.types import RejectReason

POINTS = 68
_STEM = re.compile(r"(?P<subject>\d+)A(?P<age>[^a-z]+|.+?)(?P<letter>(?<=\d)[a-z])?", re.IGNORECASE)
_PTS = re.compile(r"version:\s*1\s+n_points:\s*(?P<count>\d+)\s*\{(?P<numbers>[^{}]*)\}\s*")


class FGNetReader(Reader):
    """Reader for photographs and landmark files, in folders of any name.

    Upper and lower case are equal.

    Columns: subject, landmarks (68 points in FG-NET's order, a flat list of 136 floats; None for an image without a landmark
    file). The source annotates neither gender nor race. A sample_id has the form `001A43a`.
    """

    def read(self) -> Samples:
        """Read all images.

        Reject those whose name has another form or whose landmark file is damaged.
        """
        images, rejected = list_images(self.root)
        assert self.root is not None
        landmark_files = {
            Path(path).stem.lower(): path for path in walk_files(self.root)[0] if path.lower().endswith(".pts")
        }
        rows = []
        for path in images:
            stem = Path(path).stem
            match = _STEM.fullmatch(stem)
            if match is None:
                reason = f"its name '{stem}' is not person, A, age"
                rejected.append(Rejected(stem, path, RejectReason.NAME_PATTERN, reason))
                continue
            subject, age, letter = match.groups()
            landmark_file = landmark_files.get(stem.lower())
            try:
                landmarks = read_points(self.root / landmark_file) if landmark_file else None
            except ValueError as error:
                rejected.append(Rejected(stem, path, RejectReason.BAD_LABEL_FILE, str(error)))
                continue
            rows.append((f"{subject}A{age}{(letter or '').lower()}", path, age, subject, landmarks))
        table = pd.DataFrame(rows, columns=["sample_id", "path", "age", "subject", "landmarks"])
        return to_samples(table, rejected, self.groups, source=str(self.root))


def read_points(path: Path, count: int = POINTS) -> list[float]:
    """Read the points of a `.pts` file.

    Args:
        path: the file.
        count: expected number of points.

    Returns:
        [x0, y0, x1, y1, …], pixels.

    Raises:
        ValueError: the file is not in this format, or has another number of points. The message names the file.
    """
    try:
        match = _PTS.fullmatch(path.read_text(encoding="ascii"))
        if match is None:
            raise ValueError("not version 1 of the format")
        numbers = [float(number) for number in match["numbers"].split()]
        if not int(match["count"]) == count == len(numbers) / 2:
            raise ValueError(f"{len(numbers) / 2:g} points where {match['count']} are announced and {count} wanted")
    except (ValueError, OSError) as error:
        raise ValueError(f"its points {path.name} cannot be used: {error}") from error
    return numbers
