"""Conversion of the Markdown subset that agebench writes to report blocks, and from there to HTML.

The subset: headings, paragraphs, bullet lists, fenced code, pipe tables, images with a caption, and bold, italic and
code spans. Everything else stays literal text, and `agebench.reports.document` escapes it.
"""

import html
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from agebench.reports.document import (
    Alignment,
    Block,
    BulletList,
    CodeBlock,
    Document,
    FigureBlock,
    Heading,
    Paragraph,
    Span,
    TableBlock,
    blocks_to_text,
    to_html,
)
from agebench.utils.io import write_text

_HEADING = re.compile(r"(#{1,4}) (.*)")
_IMAGE = re.compile(r"!\[([^\]]*)\]\(([^()\s]+\.png)\)")
_TABLE_RULE = re.compile(r"\|(?::?-+:?\|)+")
_CAPTION = re.compile(r"\*([^*].*)\*")
_CELL_END = re.compile(r"(?<!\\)\|")
_TOKEN = re.compile(r"\\(?P<escaped>[\\`*\[\]|~$_])|`(?P<code>[^`]+)`|(?P<strong>\*\*)|(?P<emphasis>\*)")


def write_markdown(folder: Path, text: str, name: str = "report") -> Path:
    """Write Markdown as `<name>.md` and, with its images embedded, as `<name>.html`.

    Args:
        folder: the report's folder, which already contains the images that `text` names.
        text: Markdown of the subset above; the first line is the title, a heading of level 1.
        name: the file name of the two reports without its suffix.

    Returns:
        The path of the Markdown file.
    """
    heading, _, body = text.partition("\n")
    title = "".join(span.text for span in parse_inline(heading.removeprefix("# ")))
    write_text(folder / f"{name}.html", to_html(Document(title, parse_markdown(body, folder))))
    write_text(folder / f"{name}.md", text)
    return folder / f"{name}.md"


def parse_markdown(text: str, folder: Path | None = None) -> list[Block]:
    """Parse Markdown of the subset above.

    Args:
        text: the Markdown text.
        folder: the folder that image paths are relative to; without it, images are omitted and captions are kept.

    Returns:
        The blocks in their order.
    """
    return list(_blocks(text.splitlines(), folder))


def terminal_text(text: str) -> str:
    """Return Markdown of the subset above for a terminal: tables and bold text stay, names lose their escapes.

    Args:
        text: the Markdown text.
    """
    return blocks_to_text(parse_markdown(text))


def parse_inline(text: str) -> list[Span]:
    """Parse bold, italic and code spans.

    Args:
        text: one paragraph, list item or table cell.

    Returns:
        The spans in their order, as plain text without Markdown escapes and HTML entities.
    """
    spans: list[Span] = []
    pending, active, position = "", {"strong": False, "emphasis": False}, 0

    def flush() -> None:
        nonlocal pending
        if pending:
            style = "strong" if active["strong"] else "emphasis" if active["emphasis"] else "plain"
            spans.append(Span(html.unescape(pending), style))  # type: ignore[arg-type]
        pending = ""

    for token in _TOKEN.finditer(text):
        pending += text[position : token.start()]
        position = token.end()
        if token["escaped"]:
            pending += token["escaped"]
        elif token["code"]:
            flush()
            spans.append(Span(token["code"], "code"))
        else:
            flush()
            active[str(token.lastgroup)] ^= True
    pending += text[position:]
    flush()
    return spans


def _blocks(lines: list[str], folder: Path | None) -> Iterator[Block]:
    index = 0
    while index < len(lines):
        line = lines[index]
        if not line.strip():
            index += 1
        elif line.startswith("```"):
            end = _end(lines, index + 1, lambda following: not following.startswith("```"))
            yield CodeBlock("\n".join(lines[index + 1 : end]), line[3:])
            index = end + 1
        elif heading := _HEADING.fullmatch(line):
            yield Heading("".join(span.text for span in parse_inline(heading[2])), max(2, len(heading[1])))
            index += 1
        elif line.startswith("|") and index + 1 < len(lines) and _TABLE_RULE.fullmatch(lines[index + 1]):
            end = _end(lines, index, lambda following: following.startswith("|"))
            yield _table(lines[index:end])
            index = end
        elif line.startswith("- "):
            end = _end(lines, index, lambda following: following.startswith("- "))
            yield BulletList([parse_inline(item[2:]) for item in lines[index:end]])
            index = end
        elif image := _IMAGE.fullmatch(line):
            index = _end(lines, index + 1, lambda following: not following.strip())
            caption = _CAPTION.fullmatch(lines[index]) if index < len(lines) else None
            yield from _figure(image, caption, folder)
            index += bool(caption)
        else:
            end = _end(lines, index, lambda following: bool(following.strip()))
            yield Paragraph(parse_inline(" ".join(lines[index:end])))
            index = end


def _end(lines: list[str], start: int, belongs: Callable[[str], bool]) -> int:
    """Return the index after the last of the consecutive lines from `start` on that satisfy `belongs`."""
    while start < len(lines) and belongs(lines[start]):
        start += 1
    return start


def _figure(image: re.Match[str], caption: re.Match[str] | None, folder: Path | None) -> Iterator[Block]:
    text = "".join(span.text for span in parse_inline(caption[1])) if caption else image[1]
    path = folder / image[2] if folder else None
    if path and path.is_file():
        yield FigureBlock(path.stem, text, path.read_bytes())
    elif caption:
        yield Paragraph(text)


def _table(lines: list[str]) -> TableBlock:
    headers, rule, *rows = ([cell.strip() for cell in _CELL_END.split(line)[1:-1]] for line in lines)
    align: list[Alignment] = [
        "center" if mark.startswith(":") and mark.endswith(":") else "right" if mark.endswith(":") else "left"
        for mark in rule
    ]
    return TableBlock([*map(parse_inline, headers)], [[*map(parse_inline, row)] for row in rows], align)
