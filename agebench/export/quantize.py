"""int8 for CPUs: weights and activations of the network's layers in eight bits, scales from training faces."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from agebench.export.formats.onnx import build_onnx, onnx_writer, silence_exporter
from agebench.export.wrapper import ExportWrapper, SaveFn

# The first of them stays float32: it sees pixels, whose range is the widest.
_LAYERS = ("Conv", "Gemm", "MatMul")
_BATCH = 16


def build_int8(module: ExportWrapper, calibration: np.ndarray) -> SaveFn:
    """Quantise the network statically, per output channel (onnxruntime's QDQ form, standard operators only).

    Every operator, not the layers alone: with those, answers moved by years (docs/decisions.md).
    What stands before and behind the network stays float32. Weights have seven bits: on CPUs
    without VNNI the sums of eight-bit products would saturate.

    Args:
        module: in float32.
        calibration: (m, S, S, 3) uint8 training faces; the activations' ranges are theirs.

    Raises:
        UserError: onnx, onnxscript or onnxruntime is not installed.
    """
    import onnx

    with tempfile.TemporaryDirectory(prefix="agebench-") as name:
        plain, quantised = Path(name) / "plain.onnx", Path(name) / "int8.onnx"
        build_onnx(module)(plain, {})
        with silence_exporter():
            _quantise(plain, quantised, calibration)
        return onnx_writer(onnx.load(quantised))


def _quantise(plain: Path, quantised: Path, calibration: np.ndarray) -> None:
    import onnx
    from onnxruntime.quantization import (
        CalibrationDataReader,
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    class Faces(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.starts = iter(range(0, len(calibration), _BATCH))

        def get_next(self) -> dict[str, np.ndarray] | None:
            start = next(self.starts, None)
            if start is None:
                return None
            return {"images": np.ascontiguousarray(calibration[start : start + _BATCH].transpose(0, 3, 1, 2))}

    quantize_static(
        plain,
        quantised,
        Faces(),
        quant_format=QuantFormat.QDQ,
        nodes_to_exclude=_float32(onnx.load(plain)),
        per_channel=True,
        reduce_range=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        calibrate_method=CalibrationMethod.MinMax,
    )


def _float32(model: Any) -> list[str]:
    """Nodes that are no part of the network, and its first layer."""
    scopes = [
        "".join(entry.value for entry in node.metadata_props if entry.key.endswith("name_scopes"))
        for node in model.graph.node
    ]
    inside = ["backbone" in scope for scope in scopes]
    named = list(zip(model.graph.node, inside, strict=True))
    first = next((node.name for node, within in named if within and node.op_type in _LAYERS), None)
    return [node.name for node, within in named if not within or node.name == first]
