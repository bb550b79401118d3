"""PReLU whose gradient takes less time on a CPU than that of PyTorch, with the same bits."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class _ChannelPReLU(torch.autograd.Function):
    """PReLU with one slope per channel.

    PyTorch computes both gradients in one loop without vector instructions. Here, each step is a vectorized pass.
    """

    @staticmethod
    def forward(ctx: Any, values: Tensor, slopes: Tensor) -> Tensor:
        ctx.save_for_backward(values, slopes)
        return F.prelu(values, slopes)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        values, slopes = ctx.saved_tensors
        if gradient.stride() != values.stride():  # the order of a sum follows the layout
            gradient = torch.empty_like(values).copy_(gradient)
        above = torch.ops.aten.threshold_backward(
            gradient, values, 0
        )  # the gradient where the value is above 0, else 0
        below = gradient - above
        # One of the two summands is 0, so that nothing is rounded that PyTorch would not round.
        of_values = above.addcmul_(below, slopes.view(-1, *[1] * (values.dim() - 2)))
        return of_values, below.mul_(values).sum([dim for dim in range(values.dim()) if dim != 1])


class ChannelPReLU(nn.PReLU):
    """`torch.nn.PReLU` with one slope per channel, for training on a CPU: the same outputs and gradients in less time.

    Finite values have gradients of the same bits, up to the sign of a zero. Where a gradient is infinite or a value is NaN,
    training has failed, and the gradients are NaN or infinite with both, not always the same.

    Everywhere else, such as in an exported network, on a GPU, in mixed precision or without gradients, it is
    `torch.nn.PReLU`. Second derivatives raise `RuntimeError` in training mode; in evaluation mode they are those of
    `torch.nn.PReLU`.

    Args:
        channels: the number of channels, the second dimension of the input.

    Example:
        >>> ChannelPReLU(2)(torch.tensor([[[[2.0]], [[-2.0]]]])).flatten().tolist()
        [2.0, -0.5]
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels)

    def forward(self, values: Tensor) -> Tensor:
        """Return the values (B, C, ...) with those below 0 multiplied by their channel's slope."""
        traced = torch.jit.is_tracing() or torch.compiler.is_compiling()  # type: ignore[attr-defined, no-untyped-call]
        plain = values.device.type == "cpu" and values.dtype == self.weight.dtype and not traced
        if plain and self.training and torch.is_grad_enabled():
            return _ChannelPReLU.apply(values, self.weight)  # type: ignore[no-any-return]
        return super().forward(values)
