"""Quantize a network to int8 for CPUs, with scales of activations from training faces."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from agebench.export.formats.onnx import onnx_writer, silence_exporter, to_onnx
from agebench.export.wrapper import ExportWrapper, SaveFn

# Operators of layers. The first layer stays float32: the range of its input, pixels, is the widest.
_LAYERS = ("Conv", "Gemm", "MatMul")
_BATCH = 16


def build_int8(module: ExportWrapper, calibration: np.ndarray) -> SaveFn:
    """Quantize the network statically, per output channel (onnxruntime's QDQ format, standard operators only).

    Every operator is quantized: with the layers alone, ages changed by years (docs/adr/0024-exports.md). Preprocessing and head
    stay float32. Weights have seven bits: on CPUs without VNNI, sums of eight-bit products would saturate.

    Args:
        module: the module, in float32.
        calibration: (m, S, S, 3) uint8 training faces, which determine the ranges of activations.

    Raises:
        UserError: onnx, onnxscript or onnxruntime is not installed.
    """
    import onnx

    with tempfile.TemporaryDirectory(prefix="agebench-") as name:
        plain, quantized = Path(name) / "plain.onnx", Path(name) / "int8.onnx"
        plain.write_bytes(to_onnx(module).SerializeToString())
        with silence_exporter():
            _quantize(plain, quantized, calibration)
        return onnx_writer(onnx.load(quantized))


def _quantize(plain: Path, quantized: Path, calibration: np.ndarray) -> None:
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
        quantized,
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
    """Return the nodes that stay float32: those outside the network, and its first layer."""
    scopes = [
        "".join(entry.value for entry in node.metadata_props if entry.key.endswith("name_scopes"))
        for node in model.graph.node
    ]
    nodes = [(node, "backbone" in scope) for node, scope in zip(model.graph.node, scopes, strict=True)]
    first_layer = next((node.name for node, inside in nodes if inside and node.op_type in _LAYERS), None)
    return [node.name for node, inside in nodes if not inside or node.name == first_layer]
