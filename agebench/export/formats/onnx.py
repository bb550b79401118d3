"""ONNX: a graph of standard operators and no code, for onnxruntime and whatever else reads it."""

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
from agebench.estimators.exported.onnx_file import CARD_KEY, OUTPUTS
from agebench.export.formats.torch_export import exported_program
from agebench.export.wrapper import ExportWrapper, SaveFn

_LOGGERS = ("root", "torch.onnx", "onnxscript", "onnx_ir", "onnx")


def build_onnx(module: ExportWrapper) -> SaveFn:
    """Translate the module's graph; the card becomes metadata, and all weights stand in the one file.

    Args:
        module: in evaluation mode, on the CPU.

    Raises:
        UserError: onnx or onnxscript is not installed.
    """
    require_onnx()
    with silence_exporter(), torch.no_grad():
        program = exported_program(module).run_decompositions(_RUNNING)
        translated = torch.onnx.export(
            program, dynamo=True, input_names=["images"], output_names=OUTPUTS, verbose=False
        )
    assert translated is not None
    return onnx_writer(_named(translated.model_proto))


def _running_product(values: Tensor, dim: int, *, dtype: torch.dtype | None = None) -> Tensor:
    return _doubled(torch.mul, values if dtype is None else values.to(dtype), dim)


def _running_minimum(values: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    least = _doubled(torch.minimum, values, dim)
    return least, torch.zeros_like(least, dtype=torch.long)  # where it stood: no head asks


def _doubled(join: Callable[[Tensor, Tensor], Tensor], values: Tensor, dim: int) -> Tensor:
    """Along `dim`, each value joined with all before it: after a step of 1, 2, 4, … places each holds twice as many."""
    length, reach = values.shape[dim], 1
    while reach < length:
        kept, joined = values.narrow(dim, 0, reach), values.narrow(dim, reach, length - reach)
        values = torch.cat([kept, join(joined, values.narrow(dim, 0, length - reach))], dim)
        reach *= 2
    return values


# ONNX has no running product (CORN) and no running minimum (CORAL).
_RUNNING = {torch.ops.aten.cumprod.default: _running_product, torch.ops.aten.cummin.default: _running_minimum}


def onnx_writer(model: Any) -> SaveFn:
    """Of an onnx.ModelProto."""

    def save(path: Path, card: dict[str, Any]) -> None:
        del model.metadata_props[:]
        model.metadata_props.add(key=CARD_KEY, value=json.dumps(card))
        path.write_bytes(model.SerializeToString())

    return save


def require_onnx() -> None:
    """Raise UserError unless what writes ONNX is installed."""
    try:
        import onnx
        import onnxscript
    except ImportError as error:
        raise UserError(f"writing ONNX needs onnx and onnxscript ({error}): pip install 'agebench[export]'") from error
    del onnx, onnxscript


@contextlib.contextmanager
def silence_exporter() -> Iterator[None]:
    """What the exporter tells its developers is not the reader's concern."""
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


def _named(model: Any) -> Any:
    """With axes that are called as in the documentation."""
    axes = {0: "N", 2: "H", 3: "W"}
    for value in (*model.graph.input, *model.graph.output):
        for place, axis in enumerate(value.type.tensor_type.shape.dim):
            if axis.dim_param:
                axis.dim_param = axes[place] if value.name == "images" else "N"
    return model
