"""Reader for images with labels in their paths: one folder per age, or a pattern of the file name."""

import re
from pathlib import Path
from typing import Any

import pandas as pd

from agebench.config.patterns import Matcher, bounded_matching, compile_pattern
from agebench.data.readers.base import list_images, top_folder
from agebench.data.readers.labelled import LabelledReader
from agebench.data.samples import Rejected, Samples
from agebench.errors import UserError
from agebench.types import RejectReason

__all__ = ["FolderReader", "compile_pattern"]

_NUMBER = r"-?\d+(?:\.\d+)?"


class FolderReader(LabelledReader):
    r"""Reader for images with labels in their paths; further labels may be in `tables`.

    A sample_id is the path from the folder that contains all images or, with `images`, from the one that contains this folder.

    Args:
        root: the folder.
        groups: columns for subgroup metrics, from the card; each must be in the pattern, a table or a list.
        pattern: form of the end of a path, e.g. `{age}_{gender}_{}.jpg` or `{age}/{gender}/{subject}-{}.jpg`. `{name}` is a
            label (age, gender, race, subject, split or any other) and `{}` any text; both may have a regular expression:
            `{subject}_{:\d+}{gender:[MF]}{age:\d\d}.jpg`. A label contains no slash, and case is ignored. Empty: the
            outermost folder whose name is a number is the age.
        images: the end of the path of the folder that contains the images; images elsewhere are ignored. Empty: all images.
        options: `values`, `open_ages`, `tables`, `lists` and `landmarks` of `LabelledReader`.
    """

    def __init__(
        self,
        root: Path | None,
        groups: tuple[str, ...] = (),
        *,
        pattern: str = "",
        images: str = "",
        **options: Any,
    ) -> None:
        super().__init__(root, groups, **options)
        self.pattern = pattern
        self.images = images.strip("/")

    def read(self) -> Samples:
        """Read all images; reject those whose path does not match."""
        images, rejected = list_images(self.root)
        prefix_length = len(top_folder(images))
        if self.images:
            images = self._select(images)
            # Names must not depend on which other folders a copy of the dataset has.
            parents = {path.rpartition("/")[0].removesuffix(self.images) for path in images}
            prefix_length = len(parents.pop()) if len(parents) == 1 else prefix_length
        # First with a numeric age, so that {age} in a_b_25.jpg is 25; then with any text, to reject the image for its age.
        needs = () if self.tables else ("age",)
        grammars = [compile_pattern(self.pattern, age=age, needs=needs) for age in (_NUMBER, "") if self.pattern]
        rows = []
        with bounded_matching("pattern") as match:
            for path in images:
                labels = _labels_from_pattern(grammars, path, match) if grammars else _age_from_folder(path)
                if labels is None:
                    mismatch = f"does not end like '{self.pattern}'" if grammars else "has no folder that is an age"
                    reason = f"its path '{path}' {mismatch}"
                    rejected.append(Rejected(path[prefix_length:], path, RejectReason.NAME_PATTERN, reason))
                else:
                    rows.append({"sample_id": path[prefix_length:], "path": path, **labels})
        names = grammars[0].groupindex if grammars else ["age"]
        table = pd.DataFrame(rows, columns=["sample_id", "path", *names])
        return self.join_label_tables(table, rejected, source=str(self.root))

    def _select(self, images: list[str]) -> list[str]:
        """Return the images in the folder `images`, which may be below another folder.

        Raises:
            UserError: there are none.
        """
        selected = [path for path in images if f"/{path}".rpartition("/")[0].endswith(f"/{self.images}")]
        if not selected:
            raise UserError(
                f"{self.root}: no image in a folder '{self.images}' (options.images); the first is {images[0]}"
            )
        return selected


def _labels_from_pattern(grammars: list[re.Pattern[str]], path: str, match: Matcher) -> dict[str, str] | None:
    matched = next(filter(None, (match(grammar, path) for grammar in grammars)), None)
    return matched.groupdict() if matched else None


def _age_from_folder(path: str) -> dict[str, str] | None:
    folders = path.split("/")[:-1]
    return next(({"age": folder} for folder in folders if re.fullmatch(_NUMBER, folder)), None)
