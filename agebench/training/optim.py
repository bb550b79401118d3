"""Optimisers and learning-rate schedules."""

import math

from torch import nn
from torch.optim import SGD, AdamW, Optimizer

from agebench.config.cards.base import Recipe


def create_optimizer(model: nn.Module, recipe: Recipe) -> Optimizer:
    """AdamW or SGD; weight decay holds for matrices and kernels, not for biases and normalisation."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [parameter for parameter in parameters if parameter.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [parameter for parameter in parameters if parameter.ndim <= 1], "weight_decay": 0.0},
    ]
    if recipe.optimiser == "sgd":
        return SGD(groups, lr=recipe.lr, momentum=recipe.momentum, nesterov=recipe.momentum > 0)
    return AdamW(groups, lr=recipe.lr)


def learning_rate(recipe: Recipe, step: int, steps: int) -> float:
    """The learning rate of `step` (from 0) of `steps`: a pure function, so that a resumed run needs no scheduler state.

    one-cycle: from lr/25 up to lr along a half cosine, then down to lr/250,000 (Smith & Topin 2017, in the form that
    torch's OneCycleLR has). cosine: a straight warm-up from 0, then a half cosine down to 0.
    """
    rising = recipe.warmup * steps
    if recipe.schedule == "one-cycle":
        start, end = recipe.lr / 25, recipe.lr / 25e4
        if step < rising:
            return _cosine(start, recipe.lr, step / rising)
        return _cosine(recipe.lr, end, (step - rising) / max(1.0, steps - 1 - rising))
    if step < rising:
        return recipe.lr * (step + 1) / (rising + 1)
    return _cosine(recipe.lr, 0.0, (step - rising) / max(1.0, steps - rising))


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * min(share, 1.0))) / 2
