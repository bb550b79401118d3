"""Small text helpers."""

import difflib
from collections.abc import Iterable

_MOST = 100  # names in one error: every plugin, but not every image of a dataset


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """The end of an error about an unknown name: the closest of `names`, else all of them, the first ones of very many."""
    names = list(names)
    close = difflib.get_close_matches(name.lower(), names, n=3, cutoff=0.5)
    if close:
        return f"; did you mean {' or '.join(repr(match) for match in close)}?"
    more = f" and {len(names) - _MOST:,} more" if len(names) > _MOST else ""
    return f"; there are: {', '.join(names[:_MOST])}{more}" if names else "; there are none"
