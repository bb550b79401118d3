"""Reports as typed blocks, written as Markdown and as one self-contained HTML file.

Blocks contain plain text only: both templates escape it, so that a dataset or a card cannot inject markup.
"""

import base64
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from agebench.reports.formatting import escape_markdown, markdown_table, sanitize
from agebench.reports.plots.style import styled
from agebench.utils.io import atomic_write, write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DPI = 110
Alignment = Literal["left", "center", "right"]


@dataclass(frozen=True)
class Span:
    """Inline text in one style."""

    text: str
    style: Literal["plain", "strong", "emphasis", "code"] = "plain"


Text = str | Sequence[str | Span]


@dataclass(frozen=True)
class Heading:
    """A heading of level 2 to 4."""

    text: str
    level: int = 2


@dataclass(frozen=True)
class Paragraph:
    """A paragraph; `strong` marks a verdict that readers must not miss."""

    text: Text
    strong: bool = False


@dataclass(frozen=True)
class BulletList:
    """A list of sentences."""

    items: Sequence[Text]


@dataclass(frozen=True)
class CodeBlock:
    """Lines of code, by default of a shell."""

    text: str
    language: str = "sh"


@dataclass(frozen=True)
class TableBlock:
    """A table; without `align`, the first column is left-aligned and the others are right-aligned."""

    headers: Sequence[Text]
    rows: Sequence[Sequence[Text]]
    align: Sequence[Alignment] = ()


@dataclass(frozen=True)
class FigureBlock:
    """A PNG image, stored as `figures/<name>.png` beside the report."""

    name: str
    caption: str
    png: bytes


Block = Heading | Paragraph | BulletList | CodeBlock | TableBlock | FigureBlock


@dataclass
class Document:
    """A title followed by blocks."""

    title: str
    blocks: list[Block] = field(default_factory=list)

    def add(self, *blocks: Block | None) -> None:
        """Append blocks.

        Args:
            blocks: the blocks to append; None, for an optional block that is absent, is skipped.
        """
        self.blocks += [block for block in blocks if block is not None]


def strong(text: str) -> Span:
    """Return `text` as a strong (bold) span."""
    return Span(text, "strong")


def code(text: str) -> Span:
    """Return `text` as a code span."""
    return Span(text, "code")


@styled
def figure_block(name: str, figure: "Figure | None", caption: str) -> FigureBlock | None:
    """Render a matplotlib figure as a PNG block.

    Args:
        name: the file name without `.png`.
        figure: the figure to render, or None if there is nothing to draw.
        caption: the text below the figure.

    Returns:
        The block, or None if `figure` is None.
    """
    if figure is None:
        return None
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure.set_dpi(_DPI)
    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()  # `savefig` would draw a figure with a constrained layout twice
    return image_block(name, Image.fromarray(np.asarray(canvas.buffer_rgba())[:, :, :3]), caption)


def image_block(name: str, image: Image.Image, caption: str) -> FigureBlock:
    """Encode an image as a PNG block.

    Args:
        name: the file name without `.png`.
        image: the image to encode.
        caption: the text below the image.

    Returns:
        The block with the encoded image.
    """
    buffer = io.BytesIO()
    image.save(buffer, "png", compress_level=4)
    return FigureBlock(name, caption, buffer.getvalue())


def write_document(folder: Path, document: Document, name: str = "report") -> dict[str, Path]:
    """Write `figures/*.png`, then `<name>.md` and `<name>.html`, each atomically.

    Args:
        folder: the report's folder; it is created if it is missing.
        document: the report.
        name: the file name of the two reports without its suffix.

    Returns:
        The paths of the reports by format: `markdown` and `html`.
    """
    for block in document.blocks:
        if isinstance(block, FigureBlock):
            with atomic_write(folder / "figures" / f"{block.name}.png") as temporary:
                temporary.write_bytes(block.png)
    paths = {"markdown": folder / f"{name}.md", "html": folder / f"{name}.html"}
    write_text(paths["markdown"], to_markdown(document))
    write_text(paths["html"], to_html(document))
    return paths


def to_markdown(document: Document) -> str:
    """Render a document as Markdown."""
    return _render_markdown(document.blocks, document.title)


def blocks_to_markdown(blocks: Iterable[Block | None]) -> str:
    """Render blocks as Markdown without a title.

    Args:
        blocks: the blocks to render; None is skipped.

    Returns:
        The Markdown text without a final newline.
    """
    return _render_markdown([block for block in blocks if block is not None], None).rstrip("\n")


def blocks_to_text(blocks: Iterable[Block | None]) -> str:
    """Render blocks for a terminal: like Markdown, but no character is escaped.

    Args:
        blocks: the blocks to render; None is skipped.

    Returns:
        The text without a final newline.
    """
    return _render_markdown([block for block in blocks if block is not None], None, is_plain=True).rstrip("\n")


def to_html(document: Document) -> str:
    """Render a document as one HTML file that contains its figures."""
    contents = [
        (index, block.text)
        for index, block in enumerate(document.blocks)
        if isinstance(block, Heading) and block.level == 2
    ]
    template = _environment(html=True).get_template("document.html.jinja")
    return template.render(title=document.title, blocks=document.blocks, contents=contents)


def _render_markdown(blocks: Sequence[Block], title: str | None, *, is_plain: bool = False) -> str:
    return (
        _environment(html=False, is_plain=is_plain).get_template("document.md.jinja").render(title=title, blocks=blocks)
    )


@cache
def _environment(*, html: bool, is_plain: bool = False) -> Environment:
    escape = sanitize if is_plain else escape_markdown
    environment = Environment(
        loader=PackageLoader("agebench.reports"),
        autoescape=html,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "alignment": _alignment,
        "base64": lambda data: base64.b64encode(data).decode(),
        "code": lambda text: _printable_lines(text).replace("`", ""),
        "escape_markdown": lambda text: _keep_outer_spaces(text, escape(text)),
        "kind": lambda block: type(block).__name__,
        "markdown_table": _markdown_table,
        "one_line": lambda text: _keep_outer_spaces(text, sanitize(text)),
        "printable_lines": _printable_lines,
        "spans": _spans,
    }
    return environment


def _spans(text: Text) -> list[Span]:
    parts = [text] if isinstance(text, str) else text
    return [Span(part) if isinstance(part, str) else part for part in parts]


def _alignment(table: TableBlock, column: int) -> Alignment:
    return table.align[column] if table.align else "right" if column else "left"


def _markdown_table(table: TableBlock, inline: Any) -> str:
    rows = [[str(inline(cell)) for cell in row] for row in table.rows]
    align = [_alignment(table, column) for column in range(len(table.headers))]
    return markdown_table([str(inline(cell)) for cell in table.headers], rows, align=align)


def _keep_outer_spaces(text: str, cleaned: str) -> str:
    """Restore the single spaces around a span, which separate it from its neighbors."""
    if not cleaned:
        return " " if text else ""
    return f"{' ' if text[0].isspace() else ''}{cleaned}{' ' if text[-1].isspace() else ''}"


def _printable_lines(text: str) -> str:
    return "\n".join(sanitize(line) for line in text.splitlines())
