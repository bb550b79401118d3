"""What stands in an ONNX file, read without a library and before any runtime sees it.

An ONNX file is a protocol buffer: fields of (number, type, content) within each other. Only those that lead to what is asked
for are followed; weights are stepped over. Numbers as in onnx.proto of IR version 3 to 13.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from agebench.errors import UserError

# Message -> number of a field -> the message within it.
_INSIDE: dict[str, dict[int, str]] = {
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
# The fields that name an operator, and the function that defines one: (name, domain).
_NODE, _FUNCTION = (4, 7), (1, 10)
_TENSOR_EXTERNAL, _TENSOR_LOCATION = 13, 14
_DEEPEST = 32


@dataclass
class OnnxContent:
    """Of one file.

    Attributes:
        metadata: key -> value.
        operators: (domain, name) of each that is used.
        functions: (domain, name) of each that the file itself defines.
        external: whether weights stand in other files.
    """

    metadata: dict[str, str] = field(default_factory=dict)
    operators: set[tuple[str, str]] = field(default_factory=set)
    functions: set[tuple[str, str]] = field(default_factory=set)
    external: bool = False


def scan_onnx(path: Path, content: bytes) -> OnnxContent:
    """What stands in the file.

    Raises:
        UserError: no protocol buffer, or one that ends too early.
    """
    found = OnnxContent()
    try:
        _walk(memoryview(content), "model", found, 0)
    except (IndexError, ValueError) as error:
        raise UserError(f"{path}: not readable as an ONNX model: {error or 'it ends too early'}") from error
    return found


def _walk(data: memoryview, message: str, found: OnnxContent, depth: int) -> None:
    if depth > _DEEPEST:
        raise ValueError(f"its parts stand more than {_DEEPEST} deep in each other")
    texts: dict[int, str] = {}
    for number, value in _fields(data):
        if isinstance(value, memoryview) and number in _INSIDE[message]:
            _walk(value, _INSIDE[message][number], found, depth + 1)
        elif message == "tensor" and (number == _TENSOR_EXTERNAL or (number == _TENSOR_LOCATION and value != 0)):
            found.external = True
        elif isinstance(value, memoryview) and (
            message == "entry" or number in {"node": _NODE, "function": _FUNCTION}.get(message, ())
        ):
            texts[number] = bytes(value).decode()
    if message == "entry":
        found.metadata[texts.get(1, "")] = texts.get(2, "")
    elif message == "node":
        found.operators.add((texts.get(_NODE[1], ""), texts.get(_NODE[0], "")))
    elif message == "function":
        found.functions.add((texts.get(_FUNCTION[1], ""), texts.get(_FUNCTION[0], "")))


def _fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """The fields of one message: their number, and a whole number or the bytes."""
    place = 0
    while place < len(data):
        key, place = _varint(data, place)
        number, kind = key >> 3, key & 7
        value: int | memoryview = 0
        if kind == 0:
            value, place = _varint(data, place)
        elif kind in (1, 2, 5):
            length, place = _varint(data, place) if kind == 2 else ({1: 8, 5: 4}[kind], place)
            if place + length > len(data):
                raise ValueError("it ends too early")
            value = data[place : place + length]
            place += length
        else:
            raise ValueError(f"a field of type {kind} at byte {place}")
        yield number, value


def _varint(data: memoryview, place: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = data[place]
        place += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, place
    raise ValueError("a number of more than ten bytes")
