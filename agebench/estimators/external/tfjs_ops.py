"""Operations of TensorFlow.js graph models in PyTorch; images are (B, H, W, C) as in TensorFlow."""

import base64
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

# Attributes of a node as model.json holds them: name -> {kind: value}.
Attributes = Mapping[str, Any]
# Inputs of a node, its attributes -> its output.
Operation = Callable[[Sequence[Tensor], Attributes], Tensor]
_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "Relu": torch.relu,
    "Relu6": F.relu6,
    "Elu": F.elu,
    "Sigmoid": torch.sigmoid,
    "Tanh": torch.tanh,
    "LeakyRelu": lambda x: F.leaky_relu(x, 0.2),
}


def attribute(attributes: Attributes, name: str, default: Any = None) -> Any:
    """Return the value of an attribute: text, a number, a truth value, or a list of these.

    Args:
        attributes: attributes of a node as model.json holds them.
        name: name of the attribute.
        default: the value where it is absent.
    """
    entry = attributes.get(name)
    if not entry:
        return default
    kind, value = next(iter(entry.items()))
    if kind == "list":
        kind, values = next(iter(value.items()), ("i", []))
        return [_scalar(kind, item) for item in values]
    return _scalar(kind, value)


def _scalar(kind: str, value: Any) -> Any:
    if kind == "s":
        return base64.b64decode(value).decode()
    return int(value) if kind == "i" else value


def _same_padding(size: int, kernel: int, stride: int, dilation: int) -> tuple[int, int]:
    total = max((-(-size // stride) - 1) * stride + (kernel - 1) * dilation + 1 - size, 0)
    return total // 2, total - total // 2


def _padded(image: Tensor, kernel: Sequence[int], attributes: Attributes, value: float = 0.0) -> Tensor:
    """Pad (B, C, H, W) as the attribute `padding` states."""
    how = attribute(attributes, "padding", "VALID")
    if how == "VALID":
        return image
    strides, dilations = (attribute(attributes, name) or [1, 1, 1, 1] for name in ("strides", "dilations"))
    if how == "SAME":
        top, left = (
            _same_padding(image.shape[2 + axis], kernel[axis], strides[1 + axis], dilations[1 + axis])
            for axis in (0, 1)
        )
    else:
        edges = attribute(attributes, "explicit_paddings", [])
        top, left = (edges[2], edges[3]), (edges[4], edges[5])
    return F.pad(image, (*left, *top), value=value)


def _convolution(inputs: Sequence[Tensor], attributes: Attributes, *, depthwise: bool) -> Tensor:
    image, kernel = inputs[0].permute(0, 3, 1, 2), inputs[1]
    height, width, channels, filters = kernel.shape
    if depthwise:  # (H, W, C, M): M filters for each of C channels
        weight, groups = kernel.permute(2, 3, 0, 1).reshape(channels * filters, 1, height, width), channels
    else:
        weight, groups = kernel.permute(3, 2, 0, 1), 1
    strides, dilations = (attribute(attributes, name) or [1, 1, 1, 1] for name in ("strides", "dilations"))
    image = _padded(image, (height, width), attributes)
    return F.conv2d(image, weight, None, strides[1:3], 0, dilations[1:3], groups).permute(0, 2, 3, 1)


def _fused(value: Tensor, extra: Sequence[Tensor], attributes: Attributes) -> Tensor:
    """Apply the fused operations: a bias, then an activation."""
    arguments = iter(extra)
    for name in attribute(attributes, "fused_ops", []):
        if name == "BiasAdd":
            value = value + next(arguments)
        elif name == "Prelu":
            value = torch.where(value > 0, value, value * next(arguments))
        else:
            value = _ACTIVATIONS[name](value)
    return value


def _pool(inputs: Sequence[Tensor], attributes: Attributes, *, mean: bool) -> Tensor:
    image, kernel = inputs[0].permute(0, 3, 1, 2), attribute(attributes, "ksize")[1:3]
    strides = attribute(attributes, "strides")[1:3]
    if mean:  # border pixels are means over the pixels within the image
        weights = F.avg_pool2d(_padded(torch.ones_like(image[:1, :1]), kernel, attributes), kernel, strides)
        return (F.avg_pool2d(_padded(image, kernel, attributes), kernel, strides) / weights).permute(0, 2, 3, 1)
    return F.max_pool2d(_padded(image, kernel, attributes, -torch.inf), kernel, strides).permute(0, 2, 3, 1)


def _matmul(inputs: Sequence[Tensor], attributes: Attributes) -> Tensor:
    left, right = (
        value.mT if attribute(attributes, name, False) else value
        for value, name in zip(inputs[:2], ("transpose_a", "transpose_b"), strict=True)
    )
    return _fused(left @ right, inputs[2:], attributes)


def _reduced(inputs: Sequence[Tensor], attributes: Attributes, reduce: Callable[..., Tensor]) -> Tensor:
    axes = inputs[1].reshape(-1).tolist()
    return reduce(inputs[0], dim=axes, keepdim=bool(attribute(attributes, "keep_dims", False)))


def _normalized(inputs: Sequence[Tensor], attributes: Attributes) -> Tensor:
    value, scale, shift, mean, variance = inputs
    factor = scale * torch.rsqrt(variance + attribute(attributes, "epsilon", 1e-3))
    return value * factor + (shift - mean * factor)


def _strided_slice(inputs: Sequence[Tensor], attributes: Attributes) -> Tensor:
    masks = {name: attribute(attributes, f"{name}_mask", 0) for name in ("begin", "end", "shrink_axis")}
    if any(attribute(attributes, f"{name}_mask", 0) for name in ("ellipsis", "new_axis")):
        raise NotImplementedError("StridedSlice with an ellipsis or a new axis")
    keys: list[slice | int] = []
    for axis, (begin, end, step) in enumerate(zip(*(value.tolist() for value in inputs[1:4]), strict=True)):
        bit = 1 << axis
        if masks["shrink_axis"] & bit:
            keys.append(begin)
        else:
            keys.append(slice(None if masks["begin"] & bit else begin, None if masks["end"] & bit else end, step))
    return inputs[0][tuple(keys)]


def _squeezed(inputs: Sequence[Tensor], attributes: Attributes) -> Tensor:
    axes = attribute(attributes, "squeeze_dims") or attribute(attributes, "axis")
    return inputs[0].squeeze(axes) if axes else inputs[0].squeeze()


def _elementwise(function: Callable[..., Tensor]) -> Operation:
    return lambda inputs, _: function(*inputs)


OPERATIONS: dict[str, Operation] = {
    "Identity": lambda inputs, _: inputs[0],
    "Conv2D": lambda inputs, a: _convolution(inputs, a, depthwise=False),
    "_FusedConv2D": lambda inputs, a: _fused(_convolution(inputs, a, depthwise=False), inputs[2:], a),
    "DepthwiseConv2dNative": lambda inputs, a: _convolution(inputs, a, depthwise=True),
    "FusedDepthwiseConv2dNative": lambda inputs, a: _fused(_convolution(inputs, a, depthwise=True), inputs[2:], a),
    "MatMul": _matmul,
    "_FusedMatMul": _matmul,
    "MaxPool": lambda inputs, a: _pool(inputs, a, mean=False),
    "AvgPool": lambda inputs, a: _pool(inputs, a, mean=True),
    "Mean": lambda inputs, a: _reduced(inputs, a, torch.mean),
    "Sum": lambda inputs, a: _reduced(inputs, a, torch.sum),
    "Max": lambda inputs, a: _reduced(inputs, a, torch.amax),
    "Min": lambda inputs, a: _reduced(inputs, a, torch.amin),
    "FusedBatchNorm": _normalized,
    "FusedBatchNormV3": _normalized,
    "Reshape": lambda inputs, _: inputs[0].reshape(inputs[1].tolist()),
    "Squeeze": _squeezed,
    "ExpandDims": lambda inputs, _: inputs[0].unsqueeze(int(inputs[1])),
    "Transpose": lambda inputs, _: inputs[0].permute(inputs[1].tolist()),
    "StridedSlice": _strided_slice,
    "Shape": lambda inputs, _: torch.tensor(inputs[0].shape, dtype=torch.int32),
    "Pack": lambda inputs, a: torch.stack(list(inputs), int(attribute(a, "axis", 0))),
    "ConcatV2": lambda inputs, _: torch.cat(list(inputs[:-1]), int(inputs[-1])),
    "Pad": lambda inputs, _: F.pad(inputs[0], inputs[1].flip(0).reshape(-1).tolist()),
    "Softmax": lambda inputs, _: torch.softmax(inputs[0], -1),
    "LeakyRelu": lambda inputs, a: F.leaky_relu(inputs[0], attribute(a, "alpha", 0.2)),
    "Prelu": lambda inputs, _: torch.where(inputs[0] > 0, inputs[0], inputs[0] * inputs[1]),
    "Square": lambda inputs, _: inputs[0] * inputs[0],
    "Cast": lambda inputs, a: inputs[0].to(torch.float32 if attribute(a, "DstT") == "DT_FLOAT" else torch.int32),
    **{name: _elementwise(function) for name, function in _ACTIVATIONS.items() if name != "LeakyRelu"},
    **{name: _elementwise(torch.add) for name in ("Add", "AddV2", "BiasAdd")},
    **{name: _elementwise(torch.div) for name in ("RealDiv", "Div")},
    "Sub": _elementwise(torch.sub),
    "Mul": _elementwise(torch.mul),
    "Minimum": _elementwise(torch.minimum),
    "Maximum": _elementwise(torch.maximum),
    "Abs": _elementwise(torch.abs),
    "Neg": _elementwise(torch.neg),
    "Exp": _elementwise(torch.exp),
    "Sqrt": _elementwise(torch.sqrt),
    "Rsqrt": _elementwise(torch.rsqrt),
    "Pow": _elementwise(torch.pow),
}
