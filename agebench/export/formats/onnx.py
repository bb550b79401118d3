"""Export to ONNX: a graph of standard operators without code."""

import contextlib
import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from agebench.errors import UserError
from agebench.estimators.exported.card import ExportCard
from agebench.estimators.exported.onnx_file import CARD_KEY, OUTPUTS
from agebench.export.formats.torch_export import exported_program
from agebench.export.wrapper import ExportWrapper, SaveFn

_LOGGERS = ("root", "torch.onnx", "onnxscript", "onnx_ir", "onnx")


def build_onnx(module: ExportWrapper) -> SaveFn:
    """Translate the module's graph; the card becomes metadata, and all weights are stored in the file.

    Args:
        module: the module, in evaluation mode, on the CPU.

    Raises:
        UserError: onnx or onnxscript is not installed.
    """
    return onnx_writer(to_onnx(module))


def to_onnx(module: ExportWrapper) -> Any:
    """Translate the module's graph to an onnx.ModelProto.

    Args:
        module: the module, in evaluation mode, on the CPU.

    Raises:
        UserError: onnx or onnxscript is not installed.
    """
    require_onnx()
    with silence_exporter(), torch.no_grad():
        program = exported_program(module).run_decompositions(_DECOMPOSITIONS)
        translated = torch.onnx.export(
            program, dynamo=True, input_names=["images"], output_names=OUTPUTS, verbose=False
        )
    assert translated is not None
    return _name_axes(translated.model_proto)


def _cumulative_product(values: Tensor, dim: int, *, dtype: torch.dtype | None = None) -> Tensor:
    return _scan(torch.mul, values if dtype is None else values.to(dtype), dim)


def _cumulative_minimum(values: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    minimum = _scan(torch.minimum, values, dim)
    return minimum, torch.zeros_like(minimum, dtype=torch.long)  # no head uses the index


def _scan(join: Callable[[Tensor, Tensor], Tensor], values: Tensor, dim: int) -> Tensor:
    """Reduce each value along `dim` with all before it, by doubling: steps of 1, 2, 4, … positions."""
    length, step = values.shape[dim], 1
    while step < length:
        head, tail = values.narrow(dim, 0, step), values.narrow(dim, step, length - step)
        values = torch.cat([head, join(tail, values.narrow(dim, 0, length - step))], dim)
        step *= 2
    return values


# ONNX has no cumulative product (CORN) and no cumulative minimum (CORAL).
_DECOMPOSITIONS = {
    torch.ops.aten.cumprod.default: _cumulative_product,
    torch.ops.aten.cummin.default: _cumulative_minimum,
}


def onnx_writer(model: Any) -> SaveFn:
    """Return the function that writes an onnx.ModelProto.

    Args:
        model: the ModelProto.
    """

    def save(path: Path, card: ExportCard) -> None:
        del model.metadata_props[:]
        model.metadata_props.add(key=CARD_KEY, value=json.dumps(card.to_json()))
        path.write_bytes(model.SerializeToString())

    return save


def require_onnx() -> None:
    """Check that the packages that write ONNX are installed.

    Raises:
        UserError: one is missing.
    """
    try:
        import onnx
        import onnxscript
    except ImportError as error:
        raise UserError(f"writing ONNX needs onnx and onnxscript ({error}): pip install 'agebench[export]'") from error
    del onnx, onnxscript


@contextlib.contextmanager
def silence_exporter() -> Iterator[None]:
    """Suppress the messages and warnings of the exporter."""
    before = {name: logging.getLogger(name).level for name in _LOGGERS}
    for name in before:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)


def _name_axes(model: Any) -> Any:
    """Name the axes as in the documentation."""
    axes = {0: "N", 2: "H", 3: "W"}
    for value in (*model.graph.input, *model.graph.output):
        for index, axis in enumerate(value.type.tensor_type.shape.dim):
            if axis.dim_param:
                axis.dim_param = axes[index] if value.name == "images" else "N"
    return model
