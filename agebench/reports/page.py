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

from agebench.files import atomic, write_text
from agebench.reports.tables import escaped, markdown_table, printable

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
class Words:
    """A paragraph; `strong` for a verdict that must be seen."""

    text: str
    strong: bool = False


@dataclass(frozen=True)
class Bullets:
    """A list of sentences."""

    items: Sequence[str]


@dataclass(frozen=True)
class Command:
    """A line for a shell."""

    line: str


@dataclass(frozen=True)
class Table:
    """A table; the first column is set left."""

    headers: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Picture:
    """A PNG, called `figures/<name>.png` beside the report."""

    name: str
    caption: str
    png: bytes


Block = Heading | Words | Bullets | Command | Table | Picture


@dataclass
class Page:
    """A title and what stands below it."""

    title: str
    blocks: list[Block] = field(default_factory=list)

    def add(self, *blocks: Block | None) -> None:
        """Append blocks; None stands for one that there is not."""
        self.blocks += [block for block in blocks if block is not None]


def drawn(name: str, figure: Figure | None, caption: str) -> Picture | None:
    """The figure as a PNG block, None where there is no figure."""
    if figure is None:
        return None
    figure.set_dpi(_DPI)
    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()  # once, the layout with it: savefig would draw a figure with a layout a second time
    buffer = io.BytesIO()
    Image.fromarray(np.asarray(canvas.buffer_rgba())[:, :, :3]).save(buffer, "png", compress_level=4)
    return Picture(name, caption, buffer.getvalue())


def write_page(folder: Path, page: Page, name: str = "report") -> dict[str, Path]:
    """Write `figures/*.png`, then `<name>.md` and `<name>.html`; each whole or not at all. Returns the two reports' paths."""
    for block in page.blocks:
        if isinstance(block, Picture):
            with atomic(folder / "figures" / f"{block.name}.png") as temporary:
                temporary.write_bytes(block.png)
    paths = {"markdown": folder / f"{name}.md", "html": folder / f"{name}.html"}
    write_text(paths["markdown"], markdown(page))
    write_text(paths["html"], as_html(page))
    return paths


def markdown(page: Page) -> str:
    """The page as Markdown."""
    return "\n\n".join([f"# {escaped(page.title)}", *map(_markdown, page.blocks)]) + "\n"


def as_html(page: Page) -> str:
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
            return f"{'#' * block.level} {escaped(block.text)}"
        case Words():
            return f"**{escaped(block.text)}**" if block.strong else escaped(block.text)
        case Bullets():
            return "\n".join(f"- {escaped(item)}" for item in block.items)
        case Command():
            return f"```sh\n{printable(block.line).replace('`', '')}\n```"
        case Table():
            return markdown_table([*map(escaped, block.headers)], [[*map(escaped, row)] for row in block.rows])
        case Picture():
            return f"![{block.name.replace('-', ' ')}](figures/{block.name}.png)\n\n*{escaped(block.caption)}*"


def _html(block: Block, places: Mapping[int, str]) -> str:
    match block:
        case Heading():
            return f'<h{block.level} id="{places[id(block)]}">{_clean(block.text)}</h{block.level}>'
        case Words():
            return f"<p><strong>{_clean(block.text)}</strong></p>" if block.strong else f"<p>{_clean(block.text)}</p>"
        case Bullets():
            return f"<ul>{''.join(f'<li>{_clean(item)}</li>' for item in block.items)}</ul>"
        case Command():
            return f"<pre><code>{_clean(block.line)}</code></pre>"
        case Table():
            return f"<table><thead>{_row(block.headers, 'th')}</thead><tbody>{''.join(map(_row, block.rows))}</tbody></table>"
        case Picture():
            data = base64.b64encode(block.png).decode()
            caption = _clean(block.caption)
            return f'<figure><img alt="{caption}" src="data:image/png;base64,{data}"><figcaption>{caption}</figcaption></figure>'


def _row(cells: Sequence[str], kind: str = "td") -> str:
    return f"<tr>{''.join(f'<{kind}>{_clean(cell)}</{kind}>' for cell in cells)}</tr>"


def _clean(text: str) -> str:
    return html.escape(printable(text))
