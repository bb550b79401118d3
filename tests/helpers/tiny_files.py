"""Tiny models in the formats of other frameworks, written without these frameworks."""

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np

SIDE = 16


def wave(*shape: int, shift: float = 0.0) -> np.ndarray:
    """Weights that every runtime can be given alike: sines of 0, 1, 2, …"""
    return np.sin(np.arange(np.prod(shape), dtype=np.float64) * 0.7 + shift).reshape(shape).astype(np.float32)


def text(*words: str) -> dict[str, Any]:
    values = [base64.b64encode(word.encode()).decode() for word in words]
    return {"s": values[0]} if len(values) == 1 else {"list": {"s": values}}


def integers(*values: int) -> dict[str, Any]:
    return {"list": {"i": [str(value) for value in values]}}


def write_tfjs(folder: Path, *, quantized: bool = False, operation: str = "Tanh") -> Path:
    """A graph with the operations of age networks: convolutions with stride, depthwise, pools, normalization, a slice."""
    weights: dict[str, np.ndarray] = {
        "kernel": wave(3, 3, 3, 4),
        "bias": wave(4, shift=1),
        "deep": wave(3, 3, 4, 2, shift=2),
        "scale": wave(8, shift=3) + 2,
        "shift": wave(8, shift=4),
        "mean": wave(8, shift=5),
        "variance": wave(8, shift=6) ** 2 + 0.5,
        "slope": wave(8, shift=7) * 0.3,
        "dense": wave(8, 3, shift=8),
        "dense_bias": wave(3, shift=9),
        "axes": np.array([1, 2], np.int32),
        "begin": np.array([0, 1], np.int32),
        "end": np.array([0, 3], np.int32),
        "steps": np.array([1, 1], np.int32),
        "years": np.array([[20], [40]], np.float32),
    }
    conv = {"strides": integers(1, 2, 2, 1), "dilations": integers(1, 1, 1, 1), "data_format": text("NHWC")}
    pool = {"ksize": integers(1, 3, 3, 1), "strides": integers(1, 2, 2, 1), "padding": text("SAME")}
    one = {"strides": integers(1, 1, 1, 1), "dilations": integers(1, 1, 1, 1), "padding": text("VALID")}
    nodes = [
        (
            "images",
            "Placeholder",
            [],
            {"shape": {"shape": {"dim": [{"size": "-1"}, {"size": "16"}, {"size": "16"}, {"size": "3"}]}}},
        ),
        (
            "c",
            "_FusedConv2D",
            ["images", "kernel", "bias"],
            conv | {"padding": text("SAME"), "fused_ops": text("BiasAdd", "Relu"), "num_args": {"i": "1"}},
        ),
        ("d", "DepthwiseConv2dNative", ["c", "deep"], one | {"data_format": text("NHWC")}),
        ("n", "FusedBatchNormV3", ["d", "scale", "shift", "mean", "variance"], {"epsilon": {"f": 0.001}}),
        ("p", "Prelu", ["n", "slope"], {}),
        ("a", "AvgPool", ["p"], pool),
        ("m", "MaxPool", ["p"], pool),
        ("s", "AddV2", ["a", "m"], {}),
        ("g", "Mean", ["s", "axes"], {"keep_dims": {"b": False}}),
        (
            "f",
            "_FusedMatMul",
            ["g", "dense", "dense_bias"],
            {"fused_ops": {"list": {"s": [base64.b64encode(b"BiasAdd").decode()]}}, "num_args": {"i": "1"}},
        ),
        ("t", operation, ["f"], {}),
        ("q", "Softmax", ["f"], {}),
        ("l", "StridedSlice", ["t", "begin", "end", "steps"], {"begin_mask": {"i": "1"}, "end_mask": {"i": "1"}}),
        ("age", "MatMul", ["l", "years"], {"transpose_a": {"b": False}, "transpose_b": {"b": False}}),
        ("gender", "Identity", ["q"], {}),
    ]
    entries = [{"name": name, "op": "Const", "attr": {"dtype": {"type": "DT_FLOAT"}}} for name in weights]
    entries += [
        {"name": name, "op": kind, "input": inputs, "attr": attributes | {"T": {"type": "DT_FLOAT"}}}
        for name, kind, inputs, attributes in nodes
    ]
    content, specs = b"", []
    for name, values in weights.items():
        spec: dict[str, Any] = {"name": name, "shape": list(values.shape)}
        spec["dtype"] = "int32" if values.dtype == np.int32 else "float32"
        if quantized and name == "kernel":
            scale, low = (values.max() - values.min()) / 255, values.min()
            spec["quantization"] = {"dtype": "uint8", "scale": float(scale), "min": float(low)}
            values = np.rint((values - low) / scale).astype(np.uint8)
        content += values.tobytes()
        specs.append(spec)
    (folder / "part1.bin").write_bytes(content[:100])
    (folder / "part2.bin").write_bytes(content[100:])
    model = {
        "format": "graph-model",
        "modelTopology": {"node": entries, "versions": {}},
        "weightsManifest": [{"paths": ["part1.bin", "part2.bin"], "weights": specs}],
    }
    (folder / "model.json").write_text(json.dumps(model))
    return folder / "model.json"


def write_tflite(path: Path, *, batch: int = 1) -> Path:
    """A dense layer over all pixels of 4 x 4 faces, with two outputs: the age, and beside it twice the age."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    weights = wave(1, 48)

    def tensor(name: str, shape: list[int], buffer: int) -> Any:
        made = schema.TensorT()
        made.name, made.shape, made.buffer, made.type = name.encode(), shape, buffer, schema.TensorType.FLOAT32
        if not buffer:
            made.shapeSignature = [-1, *shape[1:]] if batch == 1 else shape
        return made

    def buffer(values: np.ndarray | None = None) -> Any:
        made = schema.BufferT()
        if values is not None:
            made.data = np.frombuffer(values.astype(np.float32).tobytes(), np.uint8)
        return made

    def operator(code: int, inputs: list[int], outputs: list[int], kind: int, options: Any) -> Any:
        made = schema.OperatorT()
        made.opcodeIndex, made.inputs, made.outputs = code, inputs, outputs
        made.builtinOptionsType, made.builtinOptions = kind, options
        return made

    graph = schema.SubGraphT()
    graph.tensors = [
        tensor("faces", [batch, 4, 4, 3], 0),
        tensor("weights", [1, 48], 1),
        tensor("bias", [1], 2),
        tensor("age", [batch, 1], 0),
        tensor("double", [batch, 1], 0),
    ]
    graph.inputs, graph.outputs = [0], [3, 4]
    options, options_add = schema.FullyConnectedOptionsT(), schema.AddOptionsT()
    graph.operators = [
        operator(0, [0, 1, 2], [3], schema.BuiltinOptions.FullyConnectedOptions, options),
        operator(1, [3, 3], [4], schema.BuiltinOptions.AddOptions, options_add),
    ]
    model = schema.ModelT()
    model.version, model.subgraphs = 3, [graph]
    model.buffers = [buffer(), buffer(weights), buffer(np.array([5.0]))]
    model.operatorCodes = []
    for builtin in (schema.BuiltinOperator.FULLY_CONNECTED, schema.BuiltinOperator.ADD):
        code = schema.OperatorCodeT()
        code.builtinCode = code.deprecatedBuiltinCode = builtin
        model.operatorCodes.append(code)
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    path.write_bytes(bytes(builder.Output()))
    return path
