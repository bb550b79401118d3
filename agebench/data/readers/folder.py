"""A folder of images whose ages stand in their paths: a folder an age, or a pattern of the file's name."""

import re
from pathlib import Path

import pandas as pd

from agebench.data.readers import Reader
from agebench.data.readers.common import finish, list_images, top_folder, translate
from agebench.data.samples import Samples
from agebench.errors import UserError

_NUMBER = r"-?\d+(?:\.\d+)?"
# {age}, {} or {subject:\d+}; the expression may hold counts such as \d{4}.
_PLACE = re.compile(r"\{(\w*)(?::((?:[^{}]|\{\d+(?:,\d*)?\})+))?\}")


class FolderReader(Reader):
    r"""Images without a table.

    Args:
        root: the folder.
        groups: the card's groups; each must be in the pattern.
        pattern: how a path ends, e.g. `{age}_{gender}_{}.jpg` or `{age}/{gender}/{subject}-{}.jpg`. `{name}` is a label
            (age, gender, race, subject, split or any other), `{}` is anything, and either may say what it looks like as
            a regular expression: `{subject}_{:\d+}{gender:[MF]}{age:\d\d}.jpg`. No label reaches over a slash, and the
            case of letters does not count. Empty: the outermost folder whose name is a number is the age.
        values: see `agebench.data.readers.common.translate`.

    A sample_id is the path from the folder that holds all images.
    """

    def __init__(
        self,
        root: Path | None,
        groups: tuple[str, ...] = (),
        *,
        pattern: str = "",
        values: dict[str, dict[str, str]] | None = None,
    ) -> None:
        super().__init__(root, groups)
        self.pattern = pattern
        self.values = values or {}

    def read(self) -> Samples:
        """All images whose path says an age."""
        images, put_aside = list_images(self.root)
        skip = len(top_folder(images))
        # First as a number, so that {age} in a_b_25.jpg is 25 whatever stands before it; then as anything, to be put aside.
        grammars = [compile_pattern(self.pattern, age=looks) for looks in (_NUMBER, "")] if self.pattern else []
        labels = []
        for path in images:
            found = _by_pattern(grammars, path) if grammars else _by_folder(path)
            if found is None:
                misfit = f"does not end like '{self.pattern}'" if grammars else "has no folder that is an age"
                put_aside.append((path[skip:], path, f"its path '{path}' {misfit}"))
            else:
                labels.append({"sample_id": path[skip:], "path": path, **found})
        names = grammars[0].groupindex if grammars else ["age"]
        table = pd.DataFrame(labels, columns=["sample_id", "path", *names])
        source = str(self.root)
        return finish(translate(table, self.values, source=source), put_aside, self.groups, source=source)


def compile_pattern(pattern: str, *, age: str = "") -> re.Pattern[str]:
    """The regular expression of a pattern, to be matched with a whole path; `age` is what {age} looks like if it is plain.

    Raises:
        UserError: it has no {age}, a name twice, or an expression that is none.
    """
    expression, position = "", 0
    for place in _PLACE.finditer(pattern):
        name, looks = place.groups()
        looks = looks or (age if name == "age" else "")
        expression += re.escape(pattern[position : place.start()])
        expression += f"(?P<{name}>{looks or '[^/]+?'})" if name else f"(?:{looks or '[^/]*?'})"
        position = place.end()
    expression += re.escape(pattern[position:])
    try:
        compiled = re.compile(f"(?:.*/)?{expression}", re.IGNORECASE)
    except re.error as error:
        raise UserError(f"options.pattern = '{pattern}': {error.msg}") from error
    if "age" not in compiled.groupindex:
        raise UserError(f"options.pattern = '{pattern}': it has no {{age}}")
    return compiled


def _by_pattern(grammars: list[re.Pattern[str]], path: str) -> dict[str, str] | None:
    match = next(filter(None, (grammar.fullmatch(path) for grammar in grammars)), None)
    return match.groupdict() if match else None


def _by_folder(path: str) -> dict[str, str] | None:
    folders = path.split("/")[:-1]
    return next(({"age": folder} for folder in folders if re.fullmatch(_NUMBER, folder)), None)
