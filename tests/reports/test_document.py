"""Reports: one document gives the same content as Markdown and as HTML, and data cannot add markup to either."""

import html
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from agebench.reports.document import (
    Block,
    BulletList,
    CodeBlock,
    Document,
    Heading,
    Paragraph,
    TableBlock,
    blocks_to_markdown,
    blocks_to_text,
    code,
    image_block,
    strong,
    to_html,
    to_markdown,
    write_document,
)
from agebench.reports.formatting import escape_markdown, markdown_table, sanitize
from agebench.reports.markdown import parse_inline, parse_markdown, terminal_text, write_markdown

NASTY = "a|b *c* <script>x</script> & `d` [e](f)"
BLOCKS: list[Block] = [
    Heading(NASTY),
    Paragraph(["MAE ", strong("4.52 [4.40, 4.63]"), " years, see ", code("private/errors.md"), "."]),
    Paragraph("A verdict.", strong=True),
    Heading("Details", 3),
    BulletList([NASTY, "second"]),
    CodeBlock("agebench run --config config.toml"),
    TableBlock(["group", "MAE"], [[NASTY, "1.00"], [[strong("b")], "–"]]),
    TableBlock(["left", "middle"], [["x", "y"]], ["left", "center"]),
]


def test_markdown_of_a_document_is_parsed_into_the_same_document() -> None:
    text = blocks_to_markdown(BLOCKS)
    parsed = parse_markdown(text)
    assert blocks_to_markdown(parsed) == text
    assert [type(block) for block in parsed] == [type(block) for block in BLOCKS]


@given(name=st.text(min_size=1))
def test_any_text_survives_markdown(name: str) -> None:
    escaped = blocks_to_markdown([Paragraph(f"x {name} x")])
    assert "".join(span.text for span in parse_inline(escaped)) == f"x {sanitize(name)} x".replace("  ", " ")


@pytest.mark.parametrize("text", [NASTY, "</style><img src=x>", '" onload="x', "{{ 7 * 7 }}"])
def test_data_adds_no_markup(text: str) -> None:
    document = Document(text, [Heading(text), Paragraph(text), BulletList([text]), TableBlock([text], [[text]])])
    for page in (to_html(document), to_html(Document("t", parse_markdown(to_markdown(document))))):
        assert not re.search(r"<(script|img)|onload=\"", page)
        assert html.escape(text, quote=False) in page or html.escape(text).replace("&quot;", "&#34;") in page
        assert "default-src 'none'" in page


def test_report_with_figure_is_self_contained(tmp_path: Path) -> None:
    figure = image_block("one", Image.fromarray(np.zeros((4, 4, 3), np.uint8)), "A black square.")
    paths = write_document(tmp_path, Document("Title", [Paragraph("Text."), figure]))
    assert paths["markdown"].read_text().endswith("![one](figures/one.png)\n\n*A black square.*\n")
    assert paths["html"].read_text().count("data:image/png;base64,") == 1
    written = write_markdown(tmp_path, paths["markdown"].read_text(), "again")
    assert written.read_bytes() == paths["markdown"].read_bytes()
    assert (tmp_path / "again.html").read_bytes() == paths["html"].read_bytes()


def test_figure_that_is_missing_leaves_its_caption() -> None:
    page = to_html(Document("t", parse_markdown("![one](figures/one.png)\n\n*A caption.*\n\nText.")))
    assert "A caption." in page
    assert "<img" not in page


def test_table_without_headers_has_no_empty_row_in_html() -> None:
    assert "<thead>" not in to_html(Document("t", [TableBlock(["", ""], [["measured", "x"]])]))
    assert "<thead>" in to_html(Document("t", [TableBlock(["", "x"], [["measured", "x"]])]))


def test_text_for_a_terminal_escapes_nothing() -> None:
    blocks = [Paragraph(["n < 30, MAE ", strong("4.52 [4.40, 4.63]")]), TableBlock(["a_b"], [["x [1]"]])]
    text = blocks_to_text(blocks)
    assert text.startswith("n < 30, MAE **4.52 [4.40, 4.63]**")
    assert "| a_b" in text
    assert "\\" in blocks_to_markdown(blocks)
    assert "\x1b" not in blocks_to_text([Paragraph("a\x1b[31mb")])


@pytest.mark.parametrize("name", [NASTY, "A&amp;B", "C:\\dir\\", "__init__", "$x$~y"])
def test_a_terminal_shows_names_without_escapes(name: str) -> None:
    rows = [[escape_markdown(name), "7"], ["plain", "12"]]
    text = f"## {escape_markdown(name)}\n\n{markdown_table(['group', 'n'], rows)}"
    heading, _, *table = terminal_text(text).splitlines()
    assert heading == f"## {name}"
    assert table[2].startswith(f"| {name} ")
    assert len({len(row) for row in table}) == 1


def test_a_terminal_shows_bold_text_and_code_as_written() -> None:
    text = "**Subset:** `--limit` kept 5. **Never ranked.**\n\n- one\n- two"
    assert terminal_text(text) == text
