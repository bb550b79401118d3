"""Read TensorFlow.js graph models (model.json and its weight files) into PyTorch. A graph model holds no code."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from agebench.config.cards.external import ExternalCard
from agebench.errors import UserError
from agebench.estimators.external.io_spec import pick_name
from agebench.estimators.external.model_files import ModelCall, accepted, readable
from agebench.estimators.external.tfjs_ops import OPERATIONS

_DTYPES = {"float32": "<f4", "int32": "<i4", "bool": "?", "uint8": "u1", "uint16": "<u2", "float16": "<f2"}


@dataclass(frozen=True)
class Node:
    """One operation of the graph.

    Attributes:
        operation: its name in TensorFlow.
        inputs: names of the nodes whose outputs it takes.
        attributes: its attributes.
    """

    operation: str
    inputs: tuple[str, ...]
    attributes: Mapping[str, Any]


class GraphModule:
    """A graph model as a PyTorch function of one batch.

    Args:
        model: the content of model.json.
        weights: the tensors of its weight files.

    Attributes:
        outputs: name of each output -> node; those of the signature, else the nodes that no other node takes.

    Raises:
        ValueError: the model is not a graph with one input, or has an operation that is not known here.
    """

    def __init__(self, model: Mapping[str, Any], weights: Mapping[str, Tensor]) -> None:
        if model.get("format", "graph-model") != "graph-model" or "node" not in model.get("modelTopology", {}):
            raise ValueError(f"it is a {model.get('format', 'model without a graph')}; only graph models are read")
        self._weights = weights
        self._nodes = {entry["name"]: _node(entry) for entry in model["modelTopology"]["node"]}
        inputs = [name for name, node in self._nodes.items() if node.operation == "Placeholder"]
        if len(inputs) != 1:
            raise ValueError(f"it has {len(inputs)} inputs; one, the image, is supported")
        self._input = inputs[0]
        computed = sorted(name for name, node in self._nodes.items() if node.operation != "Const" and name in weights)
        if computed:
            raise ValueError(f"its weight {computed[0]!r} has the name of a {self._nodes[computed[0]].operation} node")
        signature = (model.get("signature") or {}).get("outputs") or {}
        taken = {name for node in self._nodes.values() for name in node.inputs}
        self.outputs = {name: _base(entry.get("name", name)) for name, entry in signature.items()} or {
            name: name for name in self._nodes if name not in taken
        }
        known = {*OPERATIONS, "Const", "Placeholder"}
        for name in self.outputs.values():
            unknown = {self._nodes[node].operation for node in self._order(name)} - known
            if unknown:
                raise ValueError(
                    f"its output {name} needs the operations {', '.join(sorted(unknown))}, which are not known here"
                )

    def __call__(self, batch: Tensor, outputs: Sequence[str]) -> list[Tensor]:
        """Return outputs by their names.

        Args:
            batch: (B, H, W, C).
            outputs: names of outputs.
        """
        values = {self._input: batch, **self._weights}
        for output in outputs:
            for name in self._order(self.outputs[output]):
                if name not in values:
                    node = self._nodes[name]
                    values[name] = OPERATIONS[node.operation]([values[part] for part in node.inputs], node.attributes)
        return [values[self.outputs[output]] for output in outputs]

    def _order(self, output: str) -> list[str]:
        """Return the nodes that an output needs, each after its inputs."""
        order: dict[str, None] = {}
        stack, opened = [output], set()
        while stack:
            name = stack[-1]
            missing = [part for part in self._nodes[name].inputs if part not in order]
            if name in order or not missing:
                order[stack.pop()] = None
            elif name in opened:
                raise ValueError(f"its graph has a circle at {name}")
            else:
                opened.add(name)
                stack += missing
        return list(order)


def _base(name: str) -> str:
    """Return the node of `name:0`."""
    return name.removesuffix(":0").removeprefix("^")


def _node(entry: Mapping[str, Any]) -> Node:
    inputs = tuple(_base(name) for name in entry.get("input", []) if not name.startswith("^"))
    return Node(entry["op"], inputs, entry.get("attr", {}))


def read_weights(path: Path, manifest: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
    """Read the weight files of a manifest; quantized weights are converted to float32.

    Args:
        path: model.json, or another manifest.
        manifest: its `weightsManifest`: groups with `paths` and `weights`.

    Raises:
        ValueError: a path leaves the folder, or the files have another length than the weights need.
    """
    tensors = {}
    for group in manifest:
        content, start = b"".join(file.read_bytes() for file in weight_files(path, [group])), 0
        for weight in group["weights"]:
            quantization = weight.get("quantization") or {}
            kind = np.dtype(_DTYPES[quantization.get("dtype", weight["dtype"])])
            shape = [int(side) for side in weight["shape"]]
            if min(shape, default=0) < 0:
                raise ValueError(f"weight {weight['name']!r} has the shape {shape}")
            values = np.frombuffer(content, kind, math.prod(shape), start).reshape(shape)
            start += values.nbytes
            if "scale" in quantization:
                values = values.astype(np.float32) * np.float32(quantization["scale"]) + np.float32(quantization["min"])
            is_float = weight["dtype"] == "float32"
            tensors[weight["name"]] = torch.from_numpy(values.astype(np.float32 if is_float else values.dtype))
        if start != len(content):
            raise ValueError(f"its weight files have {len(content):,} bytes, and its weights need {start:,}")
    return tensors


def weight_files(path: Path, manifest: Sequence[Mapping[str, Any]]) -> list[Path]:
    """Return the weight files that a manifest names, which lie in its folder.

    Args:
        path: the manifest's file.
        manifest: groups with `paths`.

    Raises:
        ValueError: a path leaves the folder.
    """
    names = [name for group in manifest for name in group["paths"]]
    outside = next((name for name in names if Path(name).is_absolute() or ".." in Path(name).parts), None)
    if outside is not None:
        raise ValueError(f"its weight file {outside!r} lies outside its folder")
    return [path.parent / name for name in names]


def open_tfjs(card: ExternalCard, path: Path, device: str) -> ModelCall:
    """Open a graph model.

    Args:
        card: the model's card; its input layout must be nhwc.
        path: model.json.
        device: where the model computes.

    Raises:
        UserError: the files cannot be read, or the card's layout is another one.
    """
    if card.input.layout != "nhwc":
        raise UserError(f"model '{card.name}': TensorFlow.js takes channels last; write layout = \"nhwc\" on its card")
    with readable(card, path, "a TensorFlow.js graph model"):
        model = json.loads(path.read_text(encoding="utf-8"))
        weights = {name: value.to(device) for name, value in read_weights(path, model["weightsManifest"]).items()}
        module = GraphModule(model, weights)
    names = [pick_name(list(module.outputs), name, card.name) for name in card.output.reads]

    def call(batch: np.ndarray) -> list[np.ndarray]:
        with accepted(card, batch), torch.inference_mode():
            return [np.asarray(value.cpu()) for value in module(torch.from_numpy(batch).to(device), names)]

    return call
