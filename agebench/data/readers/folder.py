"""A folder of images whose labels stand in their paths: a folder an age, or a pattern of the file's name."""

import re
from pathlib import Path
from typing import Any

import pandas as pd

from agebench.config.patterns import Matcher, bounded_matching, compile_pattern
from agebench.data.readers.base import list_images, top_folder
from agebench.data.readers.labelled import LabelledReader
from agebench.data.samples import Rejected, Samples
from agebench.types import RejectReason

__all__ = ["FolderReader", "compile_pattern"]

_NUMBER = r"-?\d+(?:\.\d+)?"


class FolderReader(LabelledReader):
    r"""Images whose paths say something; what they do not say may stand in `tables`.

    Args:
        root: the folder.
        groups: the card's groups; each must be in the pattern, a table or a list.
        pattern: how a path ends, e.g. `{age}_{gender}_{}.jpg` or `{age}/{gender}/{subject}-{}.jpg`. `{name}` is a label
            (age, gender, race, subject, split or any other), `{}` is anything, and either may say what it looks like as
            a regular expression: `{subject}_{:\d+}{gender:[MF]}{age:\d\d}.jpg`. No label reaches over a slash, and the
            case of letters does not count. Empty: the outermost folder whose name is a number is the age.
        options: `values`, `open_ages`, `tables` and `lists`, see `LabelledReader`.

    A sample_id is the path from the folder that holds all images.
    """

    def __init__(
        self,
        root: Path | None,
        groups: tuple[str, ...] = (),
        *,
        pattern: str = "",
        **options: Any,
    ) -> None:
        super().__init__(root, groups, **options)
        self.pattern = pattern

    def read(self) -> Samples:
        """All images whose path fits."""
        images, put_aside = list_images(self.root)
        skip = len(top_folder(images))
        # First as a number, so that {age} in a_b_25.jpg is 25 whatever stands before it; then as anything, to be put aside.
        needs = () if self.tables else ("age",)
        grammars = [compile_pattern(self.pattern, age=looks, needs=needs) for looks in (_NUMBER, "") if self.pattern]
        labels = []
        with bounded_matching("pattern") as match:
            for path in images:
                found = _by_pattern(grammars, path, match) if grammars else _by_folder(path)
                if found is None:
                    misfit = f"does not end like '{self.pattern}'" if grammars else "has no folder that is an age"
                    reason = f"its path '{path}' {misfit}"
                    put_aside.append(Rejected(path[skip:], path, RejectReason.NAME_PATTERN, reason))
                else:
                    labels.append({"sample_id": path[skip:], "path": path, **found})
        names = grammars[0].groupindex if grammars else ["age"]
        table = pd.DataFrame(labels, columns=["sample_id", "path", *names])
        return self.join_label_tables(table, put_aside, source=str(self.root))


def _by_pattern(grammars: list[re.Pattern[str]], path: str, match: Matcher) -> dict[str, str] | None:
    fitting = next(filter(None, (match(grammar, path) for grammar in grammars)), None)
    return fitting.groupdict() if fitting else None


def _by_folder(path: str) -> dict[str, str] | None:
    folders = path.split("/")[:-1]
    return next(({"age": folder} for folder in folders if re.fullmatch(_NUMBER, folder)), None)
