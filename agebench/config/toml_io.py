"""Read TOML from untrusted files: bounded in size, depth and numbers, so that no file stalls or crashes the reader."""

import math
import re
import stat
import tomllib
from pathlib import Path
from typing import Any

from agebench.errors import UserError

# The largest shipped card has 4 KiB; tomllib reads about 1 MB/s, so that the largest file allowed takes 0.5 s.
MAX_BYTES = 512 * 1024
# Deeper tables than any card or config has; pydantic, `merge` and `repr` walk tables by recursion.
MAX_DEPTH = 32
_INT64 = 2**63  # TOML requires integers of 64 bits, and nothing here counts further

# Strings and comments, closed or not, so that the scan for dotted keys is linear in the file's length.
_QUOTED = re.compile(
    r'"""(?:\\.|[^\\])*?(?:"""|\Z)' r"|'''.*?(?:'''|\Z)" r'|"(?:\\.|[^"\\\n])*+"?' r"|'[^'\n]*+'?" r"|\#[^\n]*+",
    re.DOTALL,
)
_KEY = re.compile(r"[\w.\- \t]+")


def read_toml(path: Path, *, kind: str = "card") -> dict[str, Any]:
    """Return the content of a TOML file.

    Args:
        path: the file.
        kind: what the file is called in messages.

    Raises:
        UserError: the file is not a regular file, cannot be read, is no TOML, or exceeds the limits of this module.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # reading a pipe or a device may never end
            raise UserError(f"{path}: not a readable TOML {kind}: it is not a regular file")
        if status.st_size > MAX_BYTES:
            raise UserError(
                f"{path}: not a readable TOML {kind}: {status.st_size:,} bytes; at most {MAX_BYTES:,} are read"
            )
        return parse_toml(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:  # UnicodeDecodeError and TOMLDecodeError are ValueErrors
        raise UserError(f"{path}: not a readable TOML {kind}: {error}") from error


def parse_toml(text: str) -> dict[str, Any]:
    """Return the table that `text` describes.

    Raises:
        ValueError: `text` is no TOML, or exceeds the limits of this module; the message names the reason.
    """
    # tomllib's time grows with the cube of the number of dots in a key.
    if any(key.count(".") >= MAX_DEPTH for key in _KEY.findall(_QUOTED.sub("q", text))):
        raise ValueError(f"a key has {MAX_DEPTH} dots or more")
    try:
        table = tomllib.loads(text)
    except RecursionError:
        raise ValueError(f"tables or lists are nested more than {MAX_DEPTH} levels deep") from None
    except tomllib.TOMLDecodeError:
        raise
    except ValueError as error:  # of int(): more digits than Python converts
        raise ValueError(f"a number has too many digits or a date does not exist ({error})") from None
    _check_values(table)
    return table


def _check_values(table: dict[str, Any]) -> None:
    """Refuse what TOML can express and nothing here can use.

    Raises:
        ValueError: nesting deeper than `MAX_DEPTH`, integers beyond 64 bits, NaN or infinity.
    """
    waiting: list[tuple[str, Any, int]] = [("", table, 0)]
    while waiting:
        key, value, depth = waiting.pop()
        if depth > MAX_DEPTH:
            raise ValueError(f"tables or lists are nested more than {MAX_DEPTH} levels deep")
        if isinstance(value, dict):
            waiting += [(name, inner, depth + 1) for name, inner in value.items()]
        elif isinstance(value, list):
            waiting += [(key, inner, depth + 1) for inner in value]
        elif isinstance(value, int) and not -_INT64 <= value < _INT64:
            raise ValueError(f"{key[:80]!r} holds an integer of more than 64 bits")
        elif isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{key[:80]!r} is {value}; a finite number is required")
