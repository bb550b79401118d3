"""The mean of a loss on softmax probabilities, whose slope is written down.

Autograd passes over the whole distribution for every step of such a loss, and again for every step backwards; a loss that states
its own slope needs a few passes in all.
"""

from collections.abc import Callable
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Rows(NamedTuple):
    """What a loss says about B faces and A ages.

    Attributes:
        loss: (B,) each face's.
        slope: (B, A) its derivatives by the log probabilities, as if each could move alone.
    """

    loss: Tensor
    slope: Tensor


class _SoftmaxLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, rows: Callable[[Tensor, Tensor], Rows]) -> Tensor:
        log_probs = logits.log_softmax(dim=1)
        probs = log_probs.exp()
        loss, slope = rows(log_probs, probs)
        # d log p_j / d logit_i is 1 for i = j, less p_i.
        by_logits = slope.addcmul_(probs, slope.sum(dim=1, keepdim=True), value=-1)
        ctx.save_for_backward(by_logits.div_(len(loss)))
        return loss.mean()

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None]:
        if torch.is_grad_enabled():
            raise RuntimeError("a softmax loss can be differentiated once: create_graph=True asks for more")
        (by_logits,) = ctx.saved_tensors
        return by_logits * slope, None


def softmax_loss(logits: Tensor, rows: Callable[[Tensor, Tensor], Rows]) -> Tensor:
    """The mean loss, a scalar; it can be differentiated once.

    Args:
        logits: (B, A).
        rows: log probabilities and probabilities, (B, A) each, to the loss of every face and its slope, a tensor of its own.
    """
    return _SoftmaxLoss.apply(logits, rows)  # type: ignore[no-any-return]


def linear_in(log_probs: Tensor, slope: Tensor) -> Rows:
    """Of a loss that is linear in the log probabilities: cross-entropy's slope is the label distribution, negative."""
    return Rows((slope * log_probs).sum(dim=1), slope)


class Moments:
    """Mean and variance of distributions (B, A), and a loss's slope through them.

    Sums of products, no matrix products: those would be rounded under autocast.

    Attributes:
        mean: (B,).
    """

    def __init__(self, probs: Tensor, grid: Tensor) -> None:
        self._probs, self._grid = probs, grid.to(probs.dtype)
        self._weighted = probs * self._grid
        self.mean = self._weighted.sum(dim=1)

    def variance(self) -> Tensor:
        """(B,)."""
        apart, weighted = self._about_the_mean
        return (weighted * apart).sum(dim=1)

    def add_slope(self, slope: Tensor, by_mean: Tensor, by_variance: Tensor | float | None = None) -> None:
        """Add to `slope` (B, A) what comes through the moments, up to a multiple of the probabilities: softmax takes that off.

        Args:
            slope: by the log probabilities.
            by_mean: (B,) the loss's derivative by the mean.
            by_variance: (B, 1) or a number, and by the variance.
        """
        each = by_mean[:, None]
        if by_variance is None:
            slope.addcmul_(self._weighted, each)
        else:
            apart, weighted = self._about_the_mean
            slope.addcmul_(weighted, (apart * by_variance).add_(each))

    @cached_property
    def _about_the_mean(self) -> tuple[Tensor, Tensor]:
        """(B, A) distances from the mean, and the same weighted: of a narrow distribution, any others would drown in rounding."""
        apart = self._grid - self.mean[:, None]
        return apart, self._probs * apart
