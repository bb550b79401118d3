"""Inspect an ONNX file without a library, before a runtime opens it.

An ONNX file is a protocol buffer: nested fields of (number, type, content). Only the fields that lead to operators,
functions and metadata are followed; weights are skipped. Field numbers are those of onnx.proto, IR versions 3 to 13.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from agebench.errors import UserError

# Message -> number of a field -> the nested message.
_NESTED: dict[str, dict[int, str]] = {
    "model": {7: "graph", 14: "entry", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "function": {7: "node", 11: "attribute"},
    "tensor": {},
    "entry": {},
}
# Field numbers of (name, domain) of an operator and of a function.
_NODE, _FUNCTION = (4, 7), (1, 10)
_TENSOR_EXTERNAL, _TENSOR_LOCATION = 13, 14
# Field numbers of (key, value) of metadata and of the description of weights in another file.
_KEY, _VALUE = 1, 2
_MAX_DEPTH = 32


@dataclass
class OnnxContent:
    """Content of an ONNX file that decides whether it may be opened.

    Attributes:
        metadata: key -> value.
        operators: (domain, name) of each operator that is used.
        functions: (domain, name) of each function that the file defines.
        weight_files: the other files in which weights are stored, as the file names them; empty text for weights in another
            file that is not named.
    """

    metadata: dict[str, str] = field(default_factory=dict)
    operators: set[tuple[str, str]] = field(default_factory=set)
    functions: set[tuple[str, str]] = field(default_factory=set)
    weight_files: set[str] = field(default_factory=set)

    @property
    def external(self) -> bool:
        """True if weights are stored in other files."""
        return bool(self.weight_files)

    def weight_paths(self, path: Path) -> list[Path]:
        """Return the paths of the other files with weights, in the order of their names.

        Args:
            path: the ONNX file, whose folder the names start from.

        Raises:
            ValueError: a name is empty or leads out of the folder, by itself or over a link.
        """
        folder = path.parent.resolve()
        for name in sorted(self.weight_files):
            parts = name.replace("\\", "/").split("/")
            is_plain = bool(name) and parts[0][1:2] != ":" and ".." not in parts and not name.startswith(("/", "\\"))
            if not is_plain or "\0" in name or not (folder / name).resolve().is_relative_to(folder):
                raise ValueError(f"it keeps weights in {name[:200]!r}, which is not in its folder")
        return [path.parent / name for name in sorted(self.weight_files)]


def scan_onnx(path: Path, content: bytes) -> OnnxContent:
    """Return the operators, functions and metadata of a file.

    Args:
        path: the file, for messages.
        content: its bytes.

    Raises:
        UserError: the file is no protocol buffer, or is truncated.
    """
    result = OnnxContent()
    try:
        _walk(memoryview(content), "model", result, 0)
    except (IndexError, ValueError) as error:
        raise UserError(f"{path}: not readable as an ONNX model: {error or 'it ends too early'}") from error
    return result


def _walk(data: memoryview, message: str, result: OnnxContent, depth: int) -> None:
    if depth > _MAX_DEPTH:
        raise ValueError(f"its parts are nested more than {_MAX_DEPTH} deep")
    texts: dict[int, str] = {}
    is_external, locations = False, set[str]()
    for number, value in _fields(data):
        if isinstance(value, memoryview) and number in _NESTED[message]:
            _walk(value, _NESTED[message][number], result, depth + 1)
        elif message == "tensor" and number == _TENSOR_EXTERNAL and isinstance(value, memoryview):
            is_external = True
            locations |= _location(value)
        elif message == "tensor" and number == _TENSOR_LOCATION and value != 0:
            is_external = True
        elif isinstance(value, memoryview) and (
            message == "entry" or number in {"node": _NODE, "function": _FUNCTION}.get(message, ())
        ):
            texts[number] = bytes(value).decode()
    if is_external:
        result.weight_files |= locations or {""}
    elif message == "entry":
        result.metadata[texts.get(1, "")] = texts.get(2, "")
    elif message == "node":
        result.operators.add((texts.get(_NODE[1], ""), texts.get(_NODE[0], "")))
    elif message == "function":
        result.functions.add((texts.get(_FUNCTION[1], ""), texts.get(_FUNCTION[0], "")))


def _location(entry: memoryview) -> set[str]:
    """Return the name of the file in an entry (key, value) about weights in another file; nothing for another key."""
    texts = {number: bytes(value).decode() for number, value in _fields(entry) if isinstance(value, memoryview)}
    return {texts.get(_VALUE, "")} if texts.get(_KEY) == "location" else set()


def _fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Yield the fields of one message: their number, and an integer or the bytes."""
    offset = 0
    while offset < len(data):
        key, offset = _varint(data, offset)
        number, kind = key >> 3, key & 7
        value: int | memoryview = 0
        if kind == 0:
            value, offset = _varint(data, offset)
        elif kind in (1, 2, 5):
            length, offset = _varint(data, offset) if kind == 2 else ({1: 8, 5: 4}[kind], offset)
            if offset + length > len(data):
                raise ValueError("it ends too early")
            value = data[offset : offset + length]
            offset += length
        else:
            raise ValueError(f"a field of type {kind} at byte {offset}")
        yield number, value


def _varint(data: memoryview, offset: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = data[offset]
        offset += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, offset
    raise ValueError("a number of more than ten bytes")
