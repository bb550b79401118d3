"""Path patterns on dataset cards: compiled to regular expressions whose matching time is limited."""

import re
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from agebench.config.toml_io import Settings
from agebench.errors import UserError

# {age}, {} or {subject:\d+}; the expression may contain counts such as \d{4}.
PLACE = re.compile(r"\{(\w*)(?::((?:[^{}]|\{\d+(?:,\d*)?\})+))?\}")
MAX_LENGTH = 1000
# A path of 4,096 characters matches a harmless pattern in less than 1 ms.
LIMIT_S = 1.0

Matcher = Callable[["re.Pattern[str]", str], "re.Match[str] | None"]


class _TooSlowError(Exception):
    """A match exceeded its time limit."""


def compile_pattern(
    pattern: str, *, age: str = "", needs: tuple[str, ...] = ("age",), option: str = "pattern"
) -> re.Pattern[str]:
    """Return the regular expression of a pattern, to be matched with a complete path.

    Args:
        pattern: a path with placeholders, see `agebench.data.readers.folder.FolderReader`.
        age: the expression of a plain `{age}`; empty: that of any other label.
        needs: labels that the pattern must contain.
        option: the card's name of the pattern, for messages.

    Raises:
        UserError: the pattern is no text, lacks a label of `needs`, has a name twice, or has an expression that is invalid
            or nests repeats.
    """
    if not isinstance(pattern, str):
        raise UserError(f"options.{option} = {pattern!r}: text is required, e.g. '{{age}}_{{}}.jpg'")
    if len(pattern) > MAX_LENGTH:
        raise UserError(f"options.{option}: {len(pattern):,} characters; at most {MAX_LENGTH:,} are allowed")
    expression, position = "", 0
    for placeholder in PLACE.finditer(pattern):
        name, form = placeholder.groups()
        form = form or (age if name == "age" else "")
        expression += re.escape(pattern[position : placeholder.start()])
        expression += f"(?P<{name}>{form or '[^/]+?'})" if name else f"(?:{form or '[^/]*?'})"
        position = placeholder.end()
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
            f"options.{option} = '{pattern}': it repeats a group that itself repeats, such as (a+)+, which may take forever; "
            "write one repeat, such as a+"
        )
    return compiled


def check_options(reader: str, options: Settings) -> None:
    """Check the patterns among a card's options, for built-in readers.

    Args:
        reader: the card's reader.
        options: the card's options.

    Raises:
        ValueError: `compile_pattern` refuses a pattern.
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
    """Yield a function that matches a pattern with a complete path, and fails after `LIMIT_S` seconds.

    The limit requires the main thread, POSIX timers, and that no other timer runs; otherwise there is no limit.

    Args:
        option: the card's name of the pattern, for messages.
    """
    usable = hasattr(signal, "setitimer") and threading.current_thread() is threading.main_thread()
    if not usable or signal.getitimer(signal.ITIMER_REAL)[0]:
        yield lambda expression, path: expression.fullmatch(path)
        return

    def expired(number: int, frame: object) -> None:
        raise _TooSlowError

    def match(expression: "re.Pattern[str]", path: str) -> "re.Match[str] | None":
        try:
            signal.setitimer(signal.ITIMER_REAL, LIMIT_S)  # `re` handles signals while it matches
            try:
                return expression.fullmatch(path)
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
    """Return whether a valid expression repeats a group that contains a repeat of variable length."""
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
    position += expression.startswith("]", position)  # a leading bracket is literal
    while expression[position] != "]":
        position += 2 if expression[position] == "\\" else 1
    return position + 1
