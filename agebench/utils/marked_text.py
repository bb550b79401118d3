"""Text that a program writes into a page, between two comments that people leave there."""

from pathlib import Path

from agebench.errors import UserError
from agebench.utils.io import write_text

__all__ = ["replace_marked", "write_marked"]


def replace_marked(page: Path, name: str, text: str) -> str:
    """Return a page's content with a text between `<!-- NAME: begin -->` and `<!-- NAME: end -->`; it keeps all else.

    Args:
        page: the file, UTF-8.
        name: of the two comments.
        text: Markdown; what lies between the comments is dropped.

    Raises:
        UserError: the page has not exactly one pair of these comments, in this order.
    """
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    content = page.read_text(encoding="utf-8")
    if content.count(begin) != 1 or content.count(end) != 1 or content.index(begin) > content.index(end):
        raise UserError(f"{page}: needs one line {begin} and after it one line {end}, around the text written there")
    before, rest = content.split(begin)
    return f"{before}{begin}\n\n{text.strip()}\n\n{end}{rest.split(end)[1]}"


def write_marked(page: Path, name: str, text: str) -> None:
    """Write a text between the two comments of a page (see `replace_marked`)."""
    write_text(page, replace_marked(page, name, text))
