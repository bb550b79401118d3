"""Read the convolutions of a TFLite file.

TFLite files are FlatBuffers, a format of tables with offsets. This reader follows the offsets of the few fields that it
needs (schema version 3 of TensorFlow Lite), so that neither TensorFlow nor a FlatBuffers library is required.
"""

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from agebench.errors import UserError

_IDENTIFIER = b"TFL3"
# Builtin operators of the schema.
_CONV_2D, _DEPTHWISE_CONV_2D, _MUL = 3, 4, 18
# Types of tensors of the schema.
_DTYPES = {0: "<f4", 1: "<f2", 2: "<i4", 3: "|u1", 4: "<i8", 9: "|i1"}


@dataclass(frozen=True)
class Convolution:
    """One convolution of a graph.

    Attributes:
        name: the name of the kernel's tensor.
        kernel: (out, H, W, in) float32; of a depthwise convolution (1, H, W, channels).
        bias: (out,) float32.
        slope: (out,) float32 slopes of the PReLU behind it for negative values; None without PReLU.
    """

    name: str
    kernel: np.ndarray
    bias: np.ndarray
    slope: np.ndarray | None


class _Table:
    """A table of a FlatBuffer: an offset to a list of field offsets, then the fields."""

    def __init__(self, data: bytes, position: int) -> None:
        self.data, self.position = data, position

    def _number(self, position: int, code: str) -> int:
        return int(struct.unpack_from("<" + code, self.data, position)[0])

    def _field(self, index: int) -> int:
        """Return the position of a field's content; 0 where the table lacks it."""
        fields = self.position - self._number(self.position, "i")
        if 4 + 2 * index >= self._number(fields, "H"):
            return 0
        offset = self._number(fields + 4 + 2 * index, "H")
        return self.position + offset if offset else 0

    def number(self, index: int, code: str, default: int = 0) -> int:
        """Return an integer field; `code` is its format of `struct`."""
        position = self._field(index)
        return self._number(position, code) if position else default

    def vector(self, index: int, dtype: str) -> np.ndarray:
        """Return a field of numbers (n,); empty where the table lacks it."""
        position = self._field(index)
        if not position:
            return np.zeros(0, dtype)
        start = position + self._number(position, "I")
        return np.frombuffer(self.data, dtype, self._number(start, "I"), start + 4)

    def table(self, index: int) -> "_Table | None":
        """Return a field that is a table; None where the table lacks it."""
        position = self._field(index)
        return _Table(self.data, position + self._number(position, "I")) if position else None

    def tables(self, index: int) -> list["_Table"]:
        """Return a field of tables."""
        position = self._field(index)
        if not position:
            return []
        start = position + self._number(position, "I")
        entries = range(start + 4, start + 4 + 4 * self._number(start, "I"), 4)
        return [_Table(self.data, entry + self._number(entry, "I")) for entry in entries]


@dataclass(frozen=True)
class Operator:
    """One operator of a graph.

    Attributes:
        code: its number in the schema, e.g. 3 for CONV_2D.
        inputs: indices of its input tensors.
        outputs: indices of its output tensors.
        valid_padding: of a convolution: whether its padding is VALID instead of SAME.
        stride: of a convolution.
    """

    code: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    valid_padding: bool
    stride: int


@dataclass(frozen=True)
class Graph:
    """The main graph of a TFLite file.

    Attributes:
        operators: in the order of execution.
        names: the name of each tensor.
        constants: index of a tensor -> its value, for tensors with one.
        inputs: indices of the input tensors.
        outputs: indices of the output tensors.
    """

    operators: tuple[Operator, ...]
    names: tuple[str, ...]
    constants: dict[int, np.ndarray]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


def read_graph(path: Path) -> Graph:
    """Read the main graph of a TFLite file.

    Args:
        path: the file.

    Raises:
        UserError: the file cannot be read, or is no TFLite file.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error
    if data[4:8] != _IDENTIFIER:
        raise UserError(f"{path}: is no TFLite file (bytes 4 to 8 are not TFL3)")
    try:
        return _graph(data)
    except (struct.error, ValueError, IndexError, KeyError) as error:
        raise UserError(f"{path}: the TFLite file is damaged ({error})") from error


def read_convolutions(path: Path) -> list[Convolution]:
    """Return the convolutions of a TFLite file in the order of execution, with the slopes of PReLUs.

    A PReLU is recognized where it is written as relu(x) + constant * (x - |x|).

    Args:
        path: the file.

    Raises:
        UserError: the file cannot be read, is no TFLite file, or has a convolution without constant kernel and bias.
    """
    graph = read_graph(path)
    convolutions: list[Convolution] = []
    for operator in graph.operators:
        if operator.code in (_CONV_2D, _DEPTHWISE_CONV_2D):
            constants = [graph.constants.get(index) for index in operator.inputs[1:]]
            if len(constants) != 2 or any(value is None for value in constants):
                raise UserError(
                    f"{path}: the convolution {graph.names[operator.outputs[0]]} has no constant kernel and bias"
                )
            kernel, bias = (np.asarray(value, np.float32) for value in constants)
            convolutions.append(Convolution(graph.names[operator.inputs[1]], kernel, bias, None))
        elif operator.code == _MUL and convolutions:
            slopes = [graph.constants[index] for index in operator.inputs if index in graph.constants]
            last = convolutions[-1]
            if slopes and slopes[0].shape == last.bias.shape:
                convolutions[-1] = Convolution(last.name, last.kernel, last.bias, 2 * slopes[0].astype(np.float32))
    return convolutions


def _graph(data: bytes) -> Graph:
    model = _Table(data, struct.unpack_from("<I", data)[0])
    # Newer files have the code in field 3, older ones in field 0, which holds at most 127.
    codes = [max(entry.number(0, "b"), entry.number(3, "i")) for entry in model.tables(1)]
    buffers, subgraph = model.tables(4), model.tables(2)[0]
    names, constants = [], {}
    for index, tensor in enumerate(subgraph.tables(0)):
        names.append(tensor.vector(3, "|u1").tobytes().decode("utf-8", "replace"))
        content = buffers[tensor.number(2, "I")].vector(0, "|u1")
        if len(content):
            shape = tensor.vector(0, "<i4")
            constants[index] = content.view(_DTYPES[tensor.number(1, "b")]).reshape(shape)
    operators = []
    for entry in subgraph.tables(3):
        code = codes[entry.number(0, "I")]
        options = entry.table(4) if code in (_CONV_2D, _DEPTHWISE_CONV_2D) else None
        operators.append(
            Operator(
                code,
                tuple(entry.vector(1, "<i4").tolist()),
                tuple(entry.vector(2, "<i4").tolist()),
                bool(options and options.number(0, "b")),
                options.number(1, "i") if options else 1,
            )
        )
    inputs, outputs = (tuple(subgraph.vector(index, "<i4").tolist()) for index in (1, 2))
    return Graph(tuple(operators), tuple(names), constants, inputs, outputs)
