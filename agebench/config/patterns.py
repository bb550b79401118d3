"""Patterns on dataset cards: compiled, and bounded in the time that a match may take."""

import re
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from agebench.errors import UserError

# {age}, {} or {subject:\d+}; the expression may hold counts such as \d{4}.
PLACE = re.compile(r"\{(\w*)(?::((?:[^{}]|\{\d+(?:,\d*)?\})+))?\}")
MAX_LENGTH = 1000
# A path of 4,096 characters matches a harmless pattern in less than a millisecond.
LIMIT_S = 1.0

Matcher = Callable[["re.Pattern[str]", str], "re.Match[str] | None"]


class _TooSlowError(Exception):
    """A match that exceeded its time."""


def compile_pattern(
    pattern: str, *, age: str = "", needs: tuple[str, ...] = ("age",), option: str = "pattern"
) -> re.Pattern[str]:
    """Return the regular expression of a pattern, to be matched with a whole path.

    Args:
        pattern: see `agebench.data.readers.folder.FolderReader`.
        age: the expression of a plain `{age}`; empty: that of any other label.
        needs: labels that the pattern must have.
        option: the card's name for it, for messages.

    Raises:
        UserError: not text, a label of `needs` is missing, a name stands twice, an expression is invalid or repeats a repeat.
    """
    if not isinstance(pattern, str):
        raise UserError(f"options.{option} = {pattern!r}: text is required, e.g. '{{age}}_{{}}.jpg'")
    if len(pattern) > MAX_LENGTH:
        raise UserError(f"options.{option}: {len(pattern):,} characters; at most {MAX_LENGTH:,} are allowed")
    expression, position = "", 0
    for place in PLACE.finditer(pattern):
        name, looks = place.groups()
        looks = looks or (age if name == "age" else "")
        expression += re.escape(pattern[position : place.start()])
        expression += f"(?P<{name}>{looks or '[^/]+?'})" if name else f"(?:{looks or '[^/]*?'})"
        position = place.end()
    expression += re.escape(pattern[position:])
    try:
        compiled = re.compile(f"(?:.*/)?{expression}", re.IGNORECASE)
    except re.error as error:
        raise UserError(f"options.{option} = '{pattern}': {error.msg}") from error
    except (RecursionError, OverflowError) as error:
        raise UserError(f"options.{option} = '{pattern}': too complex for a regular expression ({error})") from error
    for name in needs:
        if name not in compiled.groupindex:
            raise UserError(f"options.{option} = '{pattern}': it has no {{{name}}}")
    if _repeats_repeat(expression):
        raise UserError(
            f"options.{option} = '{pattern}': it repeats a group that itself repeats, such as (a+)+, which may take for ever; "
            "write one repeat, such as a+"
        )
    return compiled


def check_options(reader: str, options: Mapping[str, Any]) -> None:
    """Check the patterns among a card's options, as far as the reader is one of agebench's.

    Raises:
        ValueError: a pattern that `compile_pattern` refuses.
    """
    try:
        if reader == "folder" and options.get("pattern"):
            compile_pattern(options["pattern"], needs=())
        tables = options.get("tables") if reader in ("folder", "csv", "huggingface") else None
        for table in tables if isinstance(tables, list) else ():
            if isinstance(table, dict) and isinstance(file := table.get("file"), str) and "{" in file:
                compile_pattern(file, needs=(), option="table")
    except UserError as error:
        raise ValueError(str(error)) from error


@contextmanager
def bounded_matching(option: str) -> Iterator[Matcher]:
    """Yield a function that matches a pattern with a whole path, and gives up after `LIMIT_S` seconds.

    The limit holds in the main thread of systems with POSIX timers, while no other timer runs; elsewhere there is none.

    Args:
        option: the card's name for the pattern, for messages.
    """
    usable = hasattr(signal, "setitimer") and threading.current_thread() is threading.main_thread()
    if not usable or signal.getitimer(signal.ITIMER_REAL)[0]:
        yield lambda grammar, path: grammar.fullmatch(path)
        return

    def expired(number: int, frame: object) -> None:
        raise _TooSlowError

    def match(grammar: "re.Pattern[str]", path: str) -> "re.Match[str] | None":
        try:
            signal.setitimer(signal.ITIMER_REAL, LIMIT_S)  # `re` handles signals while it matches
            try:
                return grammar.fullmatch(path)
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
        except _TooSlowError:
            raise UserError(
                f"options.{option}: comparing it with '{path}' takes more than {LIMIT_S:g} s; write labels that cannot match "
                r"in many ways, such as {subject:\d+} for {subject}"
            ) from None

    previous = signal.signal(signal.SIGALRM, expired)
    try:
        yield match
    finally:
        signal.signal(signal.SIGALRM, previous)


def _repeats_repeat(expression: str) -> bool:
    """Return whether a valid expression repeats a group that holds a repeat of variable length."""
    groups, last, position = [False], False, 0
    while position < len(expression):
        letter = expression[position]
        if letter == "\\":
            last, position = False, position + 2
        elif letter == "[":
            last, position = False, _class_end(expression, position)
        elif letter == "(":
            groups.append(False)
            last, position = False, position + 2 if expression[position + 1 : position + 2] == "?" else position + 1
        elif letter == ")":
            last = groups.pop()
            groups[-1] |= last
            position += 1
        elif repeat := _REPEAT.match(expression, position):
            if last:
                return True
            least, comma, most = repeat.group("least", "comma", "most")
            groups[-1] |= least is None or (comma is not None and least != most)
            position = repeat.end()
        else:
            last = last and letter == "?"
            position += 1
    return False


_REPEAT = re.compile(r"(?:[*+]|\{(?P<least>\d+)(?P<comma>,)?(?P<most>\d*)\})[?+]?")


def _class_end(expression: str, start: int) -> int:
    """Return the position after the character class that opens at `start`."""
    position = start + 2 if expression.startswith("[^", start) else start + 1
    position += expression.startswith("]", position)  # the first one stands for itself
    while expression[position] != "]":
        position += 2 if expression[position] == "\\" else 1
    return position + 1
