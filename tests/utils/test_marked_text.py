from pathlib import Path

import pytest

from agebench.errors import UserError
from agebench.utils.marked_text import replace_marked, write_marked

PAGE = "# Title\n\n<!-- table: begin -->\nold\n<!-- table: end -->\n\nWords.\n"


def test_page_keeps_its_words_around_the_text(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE)
    for _ in range(2):
        write_marked(page, "table", "| new |\n")
        assert page.read_text() == PAGE.replace("\nold\n", "\n\n| new |\n\n")


@pytest.mark.parametrize(
    "content", ["no comment", PAGE + PAGE, PAGE.replace(": end", ": stop"), "<!-- table: end --><!-- table: begin -->"]
)
def test_page_without_one_pair_of_comments_is_refused(content: str, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(content)
    with pytest.raises(UserError, match=r"page\.md: needs one line <!-- table: begin -->"):
        replace_marked(page, "table", "new")
