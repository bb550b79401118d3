"""Progress bars: on a terminal only, and only for what takes longer than two seconds."""

import sys
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm

from agebench.terminal import escape_controls, raw_stream


def progress(items: Iterable[Any] | None = None, *, total: int | None = None, label: str = "", unit: str = "it") -> Any:
    """A tqdm bar over `items` (or to be updated by hand), silent when standard error is no terminal."""
    return tqdm(
        items,
        total=total,
        desc=escape_controls(label),
        file=raw_stream(sys.stderr),  # a bar moves the cursor itself
        unit=unit,
        delay=2,
        leave=False,
        dynamic_ncols=True,
        disable=not sys.stderr.isatty(),
    )
