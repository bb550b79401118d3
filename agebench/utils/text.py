"""Suggestions for misspelled names, and names of files."""

import difflib
import re
from collections.abc import Iterable

_MAX_SLUG = 80  # characters
_MAX_NAMES = 100  # names in one error message: all plugins, but not all images of a dataset


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """Return the end of an error message about an unknown name.

    It contains similar names, or else the first 100 names.

    Args:
        name: the unknown name.
        names: the existing names.
    """
    names = list(names)
    similar = difflib.get_close_matches(name.lower(), names, n=3, cutoff=0.5)
    if similar:
        return f"; did you mean {' or '.join(repr(match) for match in similar)}?"
    more = f" and {len(names) - _MAX_NAMES:,} more" if len(names) > _MAX_NAMES else ""
    return f"; there are: {', '.join(names[:_MAX_NAMES])}{more}" if names else "; there are none"


def slug(text: str, default: str) -> str:
    """Return a text as lower-case letters, digits and hyphens, which is safe as the name of a folder.

    Args:
        text: the text, which may be anybody's.
        default: the name of a text without letters and digits.
    """
    return re.sub(r"[^a-z0-9]+", "-", text.lower())[:_MAX_SLUG].strip("-") or default
