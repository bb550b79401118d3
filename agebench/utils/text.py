"""Suggestions for misspelled names."""

import difflib
from collections.abc import Iterable

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
