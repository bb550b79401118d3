"""Read cards and settings from untrusted TOML, bounded in size, depth and numbers, and validate them."""

import difflib
import math
import re
import reprlib
import stat
import tomllib
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError

from agebench.errors import UserError
from agebench.utils.io import read_limited

# A TOML table before validation.
Settings = dict[str, Any]
ModelT = TypeVar("ModelT", bound=BaseModel)

# The largest shipped card has 4 KiB; tomllib reads about 1 MB/s, so the largest allowed file takes 0.5 s.
MAX_BYTES = 512 * 1024
# No card or config is nested deeper; pydantic, `deep_merge` and `repr` traverse tables recursively.
MAX_DEPTH = 32
_INT64 = 2**63  # TOML requires integers of 64 bits

MAX_CONFIG_BYTES = 1 << 20
MAX_PROBLEMS = 5  # problems of one file in its message

# Values in messages: long enough for any that a user wrote, short for files of megabytes.
_value_repr = reprlib.Repr()
_value_repr.maxstring = _value_repr.maxother = 200
_value_repr.maxlevel = 3

# Strings and comments, closed or not, so that the search for dotted keys takes linear time.
_QUOTED = re.compile(
    r'"""(?:\\.|[^\\])*?(?:"""|\Z)' r"|'''.*?(?:'''|\Z)" r'|"(?:\\.|[^"\\\n])*+"?' r"|'[^'\n]*+'?" r"|\#[^\n]*+",
    re.DOTALL,
)
_KEY = re.compile(r"[\w.\- \t]+")


def read_toml(path: Path, *, kind: str = "card") -> Settings:
    """Read a TOML file.

    Args:
        path: the file.
        kind: the name of the file's kind in messages.

    Raises:
        UserError: the path is no regular file, cannot be read, is no TOML, or exceeds the limits of this module.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # reading a pipe or a device may never end
            raise UserError(f"{path}: not a readable TOML {kind}: it is not a regular file")
        if status.st_size > MAX_BYTES:
            raise UserError(
                f"{path}: not a readable TOML {kind}: {status.st_size:,} bytes; at most {MAX_BYTES:,} are read"
            )
        return _parse_toml(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:  # UnicodeDecodeError and TOMLDecodeError are ValueErrors
        raise UserError(f"{path}: not a readable TOML {kind}: {error}") from error


def _parse_toml(text: str) -> Settings:
    """Parse TOML.

    Args:
        text: the content of a TOML file.

    Raises:
        ValueError: `text` is no TOML, or exceeds the limits of this module.
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


def _check_values(table: Settings) -> None:
    """Refuse values that TOML allows and agebench does not support.

    Raises:
        ValueError: nesting deeper than `MAX_DEPTH`, integers beyond 64 bits, NaN or infinity.
    """
    stack: list[tuple[str, Any, int]] = [("", table, 0)]
    while stack:
        key, value, depth = stack.pop()
        if depth > MAX_DEPTH:
            raise ValueError(f"tables or lists are nested more than {MAX_DEPTH} levels deep")
        if isinstance(value, dict):
            stack += [(name, inner, depth + 1) for name, inner in value.items()]
        elif isinstance(value, list):
            stack += [(key, inner, depth + 1) for inner in value]
        elif isinstance(value, int) and not -_INT64 <= value < _INT64:
            raise ValueError(f"{key[:80]!r} holds an integer of more than 64 bits")
        elif isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{key[:80]!r} is {value}; a finite number is required")


def read_settings(path: Path) -> Settings:
    """Read the settings of a config file; they are not validated yet.

    Args:
        path: the file.

    Raises:
        UserError: the file does not exist, is too large, or is no TOML.
    """
    try:
        return tomllib.loads(read_limited(path, MAX_CONFIG_BYTES).decode("utf-8"))
    except (OSError, ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError
        raise UserError(f"--config {path}: not a readable TOML file: {error}") from error


def parse_setting(text: str, *, option: str = "--set") -> Settings:
    """Parse `train.lr=0.01` to {"train": {"lr": 0.01}}.

    Args:
        text: KEY=VALUE; the value is read as TOML, and as plain text where it is no TOML.
        option: the command-line option that `text` comes from, for messages.

    Raises:
        UserError: `text` has no `=`, or its value is nested too deeply, not finite, or longer than 64 bits.
    """
    key, sign, raw = text.partition("=")
    if not sign or not key.strip():
        raise UserError(f"{option} {text}: write it as key=value, e.g. {option} train.lr=0.001")
    try:
        value: Any = _parse_toml(f"value = {raw}")["value"]
    except tomllib.TOMLDecodeError:
        value = raw.strip()
    except ValueError as error:
        raise UserError(f"{option} {text[:200]}: {error}") from error
    keys = key.strip().split(".")
    if len(keys) > MAX_DEPTH:
        raise UserError(f"{option} {text[:200]}: a key has more than {MAX_DEPTH} parts")
    for name in reversed(keys):
        value = {name: value}
    return value  # type: ignore[no-any-return]


def deep_merge(base: Settings, over: Settings) -> Settings:
    """Merge two tables recursively; neither is changed. Another head drops the base's `head_options`.

    Args:
        base: the table with lower precedence.
        over: the table with higher precedence.
    """
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        merged[key] = deep_merge(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    if "head" in over and over["head"] != base.get("head") and "head_options" not in over:
        merged.pop("head_options", None)
    return merged


def validate_model(kind: type[ModelT], content: Settings, *, source: str) -> ModelT:
    """Validate a table as a pydantic model.

    Args:
        kind: the model class.
        content: the table.
        source: where the table comes from, for messages.

    Raises:
        UserError: keys or values are wrong; the message lists the first `MAX_PROBLEMS` and the valid keys.
    """
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        problems = error.errors(include_url=False)
        messages = [_explain(kind, problem) for problem in problems[:MAX_PROBLEMS]]
        if len(problems) > MAX_PROBLEMS:
            messages.append(f"and {len(problems) - MAX_PROBLEMS:,} more problems")
        raise UserError(f"{source}: " + "; ".join(messages)) from error


def _explain(kind: type[BaseModel], problem: Any) -> str:
    location = [str(part) for part in problem["loc"]]
    key = ".".join(part[:80] for part in location)
    if problem["type"] == "missing":
        return f"the key '{key}' is missing"
    if problem["type"] == "extra_forbidden":
        known = sorted(_fields(kind, location[:-1]))
        close = difflib.get_close_matches(location[-1][:100], known, n=1)
        hint = f"did you mean '{close[0]}'?" if close else f"known keys: {', '.join(known)}"
        return f"unknown key '{key}'; {hint}"
    if problem["type"] == "value_error":  # a rule between keys: printing the whole table would hide the reason
        return f"{key}: {problem['ctx']['error']}" if key else str(problem["ctx"]["error"])
    return f"{key} = {_value_repr.repr(problem['input'])}: {problem['msg'][0].lower()}{problem['msg'][1:]}"


def _fields(kind: type[BaseModel], location: list[str]) -> list[str]:
    for part in location:
        if part.isdigit():  # an index into a list of tables
            continue
        annotation: Any = kind.model_fields[part].annotation
        if get_origin(annotation) is tuple:
            annotation = get_args(annotation)[0]
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return []
        kind = annotation
    return list(kind.model_fields)
