"""`ChannelPReLU` beside `torch.nn.PReLU`: every output and gradient has the same bits."""

import pytest
import torch
from torch import Tensor, nn

from agebench.models.architectures.prelu import ChannelPReLU


def _both(values: Tensor, slopes: Tensor, gradient: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
    found = []
    for module in (ChannelPReLU(len(slopes)), nn.PReLU(len(slopes))):
        module.weight.data.copy_(slopes)
        leaf = values.clone(memory_format=torch.preserve_format).requires_grad_()
        out = module(leaf)
        out.backward(gradient)
        assert leaf.grad is not None
        assert module.weight.grad is not None
        found.append((out.detach(), leaf.grad, module.weight.grad))
    return found


@pytest.mark.parametrize("shape", [(6, 5), (3, 5, 7), (4, 5, 9, 9), (32, 5, 56, 56)])
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_outputs_and_gradients_are_those_of_torch(
    shape: tuple[int, ...], channels_last: bool, dtype: torch.dtype
) -> None:
    if channels_last and len(shape) != 4:
        pytest.skip("a memory format of images")
    generator = torch.Generator().manual_seed(len(shape))
    values, gradient = (torch.randn(shape, generator=generator, dtype=dtype) for _ in range(2))
    values.flatten()[::7] = 0  # where the two sides meet
    gradient.flatten()[::11] = 0
    if channels_last:
        values, gradient = (part.to(memory_format=torch.channels_last) for part in (values, gradient))
    default = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        ours, theirs = _both(values, torch.tensor([-0.3, 0.0, 0.25, 1.0, 1.7], dtype=dtype), gradient)
    finally:
        torch.set_default_dtype(default)
    for name, mine, other in zip(("output", "gradient of values", "gradient of slopes"), ours, theirs, strict=True):
        assert torch.equal(mine, other), name
    assert ours[1].stride() == theirs[1].stride()


@pytest.mark.parametrize("kind", ["other layout", "expanded"])
def test_gradients_of_another_layout(kind: str) -> None:
    values = torch.randn(4, 5, 9, 9, generator=torch.Generator().manual_seed(1))
    gradient = torch.randn_like(values).to(memory_format=torch.channels_last)
    gradient = gradient if kind == "other layout" else torch.full((1, 1, 1, 1), 0.3).expand(values.shape)
    ours, theirs = _both(values, torch.tensor([-0.3, 0.1, 0.25, 1.0, 1.7]), gradient)
    assert all(torch.equal(mine, other) for mine, other in zip(ours, theirs, strict=True))


def test_in_mixed_precision_and_evaluation_it_is_torch_s() -> None:
    module = ChannelPReLU(3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        module(torch.randn(2, 3, 4, 4, dtype=torch.bfloat16, requires_grad=True)).sum().backward()
    assert module.weight.grad is not None
    module.eval()
    values = torch.randn(2, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(module.double(), (values,))
    assert type(module(values).grad_fn).__name__ == "PreluKernelBackward0"


def test_a_traced_network_holds_torch_s_operator() -> None:
    traced = torch.jit.trace(ChannelPReLU(3), torch.randn(2, 3, 4, 4))  # type: ignore[no-untyped-call]
    assert "aten::prelu" in str(traced.graph)
    assert "PythonOp" not in str(traced.graph)
