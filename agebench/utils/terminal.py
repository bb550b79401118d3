"""Output without control characters, so that names from untrusted files cannot move the cursor or hide text."""

import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO, cast

# C0 and C1 (except tab, newline and CRLF), marks that change the direction of text, line separators, and lone surrogates,
# which cannot be encoded.
_CONTROLS = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]|\r(?!\n)"
)


def escape_controls(text: str) -> str:
    r"""Escape control characters as `\u001b`, which is the character in JSON."""
    return _CONTROLS.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


class _PrintableStream:
    """A text stream that escapes control characters.

    A carriage return at the start of a write stays, because progress bars of other packages begin with it.

    Attributes:
        raw_stream: the wrapped stream, for progress bars with an escaped label.
    """

    def __init__(self, stream: TextIO) -> None:
        self.raw_stream = stream

    def write(self, text: str) -> int:
        """Write escaped text and return the length of the original text."""
        start = "\r" if text.startswith("\r") else ""
        self.raw_stream.write(start + escape_controls(text[len(start) :]))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write each line escaped."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        """Return an attribute of the wrapped stream."""
        return getattr(self.raw_stream, name)


def raw_stream(stream: TextIO) -> TextIO:
    """Return the stream wrapped by a `_PrintableStream`, or the stream itself."""
    return cast(TextIO, getattr(stream, "raw_stream", stream))


def wrap_streams() -> None:
    """Escape all further output of this process on stdout and stderr."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is not None and not isinstance(stream, _PrintableStream):
            setattr(sys, name, _PrintableStream(stream))


@contextmanager
def printable_streams() -> Iterator[None]:
    """Escape output on stdout and stderr inside the block."""
    original = sys.stdout, sys.stderr
    wrap_streams()
    try:
        yield
    finally:
        sys.stdout, sys.stderr = original
