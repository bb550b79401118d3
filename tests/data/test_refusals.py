"""What counts as an image without an answer: every refusal of one, and nothing that was asked of nobody."""

import ast
from pathlib import Path

import pandas as pd
import pytest

import agebench.data
from agebench.data.refusals import unanswered
from agebench.runs.records import _why

SOURCES = sorted(Path(agebench.data.__file__).parent.rglob("*.py"))

SPOKEN = {"said": "its body_bbox 7 7"}  # how a message begins that is put together in two steps


def written(node: ast.expr) -> str:
    """A message as it comes out: numbers for what is filled in, the text of another error for `str(error)`."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(map(written, node.values))
    if isinstance(node, ast.FormattedValue):
        return SPOKEN.get(ast.unparse(node.value), "7")
    return "https://example.org/7.jpg: cannot be reached: gone"


def refusals() -> list[str]:
    """The messages of all that refuses an image among the data, and of files that cannot be read."""
    nodes = [node for source in SOURCES for node in ast.walk(ast.parse(source.read_text(encoding="utf-8")))]
    raised = [node.exc for node in nodes if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call)]
    said = [written(call.args[0]) for call in raised if getattr(call.func, "id", "") == "ImageRefused"]
    unread = [written(node) for node in nodes if isinstance(node, ast.JoinedStr)]
    return [*said, *(text for text in unread if text.startswith("cannot be read: "))]


def test_whatever_refuses_an_image_leaves_it_without_an_answer() -> None:
    said = refusals()
    assert len(said) > 12
    assert [text for text in said if not unanswered(text)] == []
    assert [text for text in _why(pd.DataFrame({"reason": said})) if not unanswered(text)] == []  # as a record has it


@pytest.mark.parametrize(
    "reason",
    [
        "also in the training set",
        "excluded by no face found.csv",
        "age … is outside [0, 120]",
        "age … is outside the protocol's [18, 60)",
        "nothing says its age",
        "its name 'a' is not age_gender_race_time",
        "no file '7.jpg'",
        "its path '../a' leads out of the dataset's folder",
        "no box of a face",
        "no image of this name, or several",
        "its aligned_bbox is not eight numbers",
        "",
    ],
)
def test_what_was_asked_of_nobody_is_no_failure(reason: str) -> None:
    assert not unanswered(reason)
