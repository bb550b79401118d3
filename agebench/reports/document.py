"""A report as blocks of plain text, tables and pictures: written as Markdown and as one HTML file that needs nothing else.

What stands in a block is plain text: each of the two writers escapes it, so a dataset or a card can put no markup in.
"""

import base64
import html
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from agebench.reports.formatting import escape_markdown, markdown_table, sanitize
from agebench.utils.io import atomic_write, write_text

_DPI = 110
_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1, h2, h3 { line-height: 1.25; } h2 { margin-top: 2.5rem; border-bottom: 1px solid #ccc; }
nav a { margin-right: 1rem; } figure { margin: 1.2rem 0; } img { max-width: 100%; height: auto; }
figcaption { color: #444; font-size: 0.9rem; }
table { border-collapse: collapse; margin: 1rem 0; display: block; overflow-x: auto; }
th, td { padding: 0.25rem 0.7rem; border-bottom: 1px solid #ddd; text-align: right; }
th:first-child, td:first-child { text-align: left; } code { background: #f2f2f2; padding: 0.1em 0.3em; overflow-wrap: anywhere; }
"""
# No script, no connection: should markup slip in from data, a browser still does nothing with it.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


@dataclass(frozen=True)
class Heading:
    """A heading of level 2 or 3."""

    text: str
    level: int = 2


@dataclass(frozen=True)
class Paragraph:
    """A paragraph; `strong` for a verdict that must be seen."""

    text: str
    strong: bool = False


@dataclass(frozen=True)
class BulletList:
    """A list of sentences."""

    items: Sequence[str]


@dataclass(frozen=True)
class CodeBlock:
    """A line for a shell."""

    line: str


@dataclass(frozen=True)
class TableBlock:
    """A table; the first column is set left."""

    headers: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class FigureBlock:
    """A PNG, called `figures/<name>.png` beside the report."""

    name: str
    caption: str
    png: bytes


Block = Heading | Paragraph | BulletList | CodeBlock | TableBlock | FigureBlock


@dataclass
class Document:
    """A title and what stands below it."""

    title: str
    blocks: list[Block] = field(default_factory=list)

    def add(self, *blocks: Block | None) -> None:
        """Append blocks; None stands for one that there is not."""
        self.blocks += [block for block in blocks if block is not None]


def figure_block(name: str, figure: Figure | None, caption: str) -> FigureBlock | None:
    """The figure as a PNG block, None where there is no figure."""
    if figure is None:
        return None
    figure.set_dpi(_DPI)
    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()  # once, the layout with it: savefig would draw a figure with a layout a second time
    buffer = io.BytesIO()
    Image.fromarray(np.asarray(canvas.buffer_rgba())[:, :, :3]).save(buffer, "png", compress_level=4)
    return FigureBlock(name, caption, buffer.getvalue())


def write_document(folder: Path, page: Document, name: str = "report") -> dict[str, Path]:
    """Write `figures/*.png`, then `<name>.md` and `<name>.html`; each whole or not at all. Returns the two reports' paths."""
    for block in page.blocks:
        if isinstance(block, FigureBlock):
            with atomic_write(folder / "figures" / f"{block.name}.png") as temporary:
                temporary.write_bytes(block.png)
    paths = {"markdown": folder / f"{name}.md", "html": folder / f"{name}.html"}
    write_text(paths["markdown"], to_markdown(page))
    write_text(paths["html"], to_html(page))
    return paths


def to_markdown(page: Document) -> str:
    """The page as Markdown."""
    return "\n\n".join([f"# {escape_markdown(page.title)}", *map(_markdown, page.blocks)]) + "\n"


def to_html(page: Document) -> str:
    """The page as one HTML file, pictures inside."""
    title = _clean(page.title)
    places = {id(block): f"s{number}" for number, block in enumerate(page.blocks)}
    links = [
        f'<a href="#{places[id(block)]}">{_clean(block.text)}</a>'
        for block in page.blocks
        if isinstance(block, Heading) and block.level == 2
    ]
    body = "\n".join(_html(block, places) for block in page.blocks)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        f'<meta name="viewport" content="width=device-width"><title>{title}</title><style>{_STYLE}</style></head>\n'
        f"<body><h1>{title}</h1>\n<nav>{''.join(links)}</nav>\n{body}\n</body></html>\n"
    )


def _markdown(block: Block) -> str:
    match block:
        case Heading():
            return f"{'#' * block.level} {escape_markdown(block.text)}"
        case Paragraph():
            return f"**{escape_markdown(block.text)}**" if block.strong else escape_markdown(block.text)
        case BulletList():
            return "\n".join(f"- {escape_markdown(item)}" for item in block.items)
        case CodeBlock():
            return f"```sh\n{sanitize(block.line).replace('`', '')}\n```"
        case TableBlock():
            return markdown_table(
                [*map(escape_markdown, block.headers)], [[*map(escape_markdown, row)] for row in block.rows]
            )
        case FigureBlock():
            return f"![{block.name.replace('-', ' ')}](figures/{block.name}.png)\n\n*{escape_markdown(block.caption)}*"


def _html(block: Block, places: Mapping[int, str]) -> str:
    match block:
        case Heading():
            return f'<h{block.level} id="{places[id(block)]}">{_clean(block.text)}</h{block.level}>'
        case Paragraph():
            return f"<p><strong>{_clean(block.text)}</strong></p>" if block.strong else f"<p>{_clean(block.text)}</p>"
        case BulletList():
            return f"<ul>{''.join(f'<li>{_clean(item)}</li>' for item in block.items)}</ul>"
        case CodeBlock():
            return f"<pre><code>{_clean(block.line)}</code></pre>"
        case TableBlock():
            return f"<table><thead>{_row(block.headers, 'th')}</thead><tbody>{''.join(map(_row, block.rows))}</tbody></table>"
        case FigureBlock():
            data = base64.b64encode(block.png).decode()
            caption = _clean(block.caption)
            return f'<figure><img alt="{caption}" src="data:image/png;base64,{data}"><figcaption>{caption}</figcaption></figure>'


def _row(cells: Sequence[str], kind: str = "td") -> str:
    return f"<tr>{''.join(f'<{kind}>{_clean(cell)}</{kind}>' for cell in cells)}</tr>"


def _clean(text: str) -> str:
    return html.escape(sanitize(text))
