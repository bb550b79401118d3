"""Optimizers, learning rates and the moving average of the weights."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.optim import SGD, AdamW, Optimizer

from agebench.config.cards.model import Recipe
from agebench.errors import UserError
from agebench.models.age_model import AgeModel

# Buffers that the moving average covers; it copies the others, which are counters, constants or data.
_AVERAGED_BUFFERS = ("running_mean", "running_var")


def create_optimizer(model: AgeModel, recipe: Recipe) -> Optimizer:
    """Create AdamW or SGD for the parameters of `model` that require gradients.

    Weight decay applies to matrices and kernels, not to biases and normalization. With `recipe.layer_decay` below 1 each
    layer has its own parameter groups, whose `lr_scale` is layer_decay ** (layers between it and the head).

    Args:
        model: the network to train.
        recipe: optimizer, learning rate, weight decay, momentum and layer decay.

    Raises:
        UserError: the recipe has a layer decay, and the backbone does not define layers.
    """
    n_layers = 0
    layer_by_name: dict[str, int] = {}
    if recipe.layer_decay < 1:
        layer_by_name = backbone_layers(model.backbone)
        n_layers = max(layer_by_name.values()) + 1
    groups: dict[tuple[int, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            layer = layer_by_name.get(name, n_layers)
            groups.setdefault((layer, parameter.ndim <= 1), []).append(parameter)
    if recipe.layer_decay == 1:  # both groups always exist, so that the state of older checkpoints loads
        groups = {(0, False): [], (0, True): []} | groups
    parameter_groups = [
        {
            "params": groups[layer, is_vector],
            "weight_decay": 0.0 if is_vector else recipe.weight_decay,
            "lr_scale": recipe.layer_decay ** (n_layers - layer),
        }
        for layer, is_vector in sorted(groups)
    ]
    if recipe.optimiser == "sgd":
        return SGD(parameter_groups, lr=recipe.lr, momentum=recipe.momentum, nesterov=recipe.momentum > 0)
    return AdamW(parameter_groups, lr=recipe.lr)


def set_learning_rate(optimizer: Optimizer, lr: float) -> None:
    """Set the learning rate of each parameter group to `lr` times its `lr_scale`.

    Args:
        optimizer: an optimizer of `create_optimizer`.
        lr: the learning rate of the head.
    """
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_scale"]


def backbone_layers(backbone: nn.Module, option: str = "layer_decay") -> dict[str, int]:
    """Return the layer, counted from the input, of each parameter of a backbone.

    Args:
        backbone: a network with a `group_matcher` as timm defines it.
        option: the recipe's option that needs layers, for the error.

    Returns:
        The parameter's name in an `AgeModel` -> its layer, from 0.

    Raises:
        UserError: the backbone does not define layers.
    """
    from timm.models import group_parameters  # late: importing timm takes seconds

    group_matcher: Any = getattr(backbone, "group_matcher", None)
    if group_matcher is None:
        raise UserError(
            f"train.{option}: the backbone {type(backbone).__name__} does not define layers (timm's group_matcher). Leave "
            f"{option} out"
        )
    layers = group_parameters(backbone, group_matcher(), reverse=True)
    return {f"backbone.{name}": layer for name, layer in layers.items()}


def freeze_first_layers(backbone: nn.Module, n_layers: int) -> list[nn.Module]:
    """Freeze the first layers of a backbone, so that their parameters get no gradients, and return the frozen modules.

    Batch normalization among these modules still collects statistics in training mode; `eval()` of each stops it.

    Args:
        backbone: a network with a `group_matcher` as timm defines it; its last layer that can be trained stays free.
        n_layers: the number of layers, from the input on, as `backbone_layers` counts them; 0 freezes nothing.

    Raises:
        UserError: the backbone does not define layers, or `n_layers` leaves none of them.
    """
    if not n_layers:
        return []
    layers = backbone_layers(backbone, "frozen_layers")
    names = {f"backbone.{name}": parameter for name, parameter in backbone.named_parameters()}
    # Recognition layers behind the features are not trained, and none of the layers that may be frozen.
    count = max((layers[name] for name, parameter in names.items() if parameter.requires_grad), default=0) + 1
    if n_layers >= count:
        raise UserError(
            f"train.frozen_layers = {n_layers}: the backbone {type(backbone).__name__} has {count} layers. Freeze {count - 1} "
            'or fewer, or train the head alone with freeze = "backbone"'
        )
    for name, parameter in names.items():
        if layers[name] < n_layers:
            parameter.requires_grad_(False)
    return [
        module
        for prefix, module in backbone.named_modules(prefix="backbone")
        if (own := dict(module.named_parameters(prefix))) and all(layers[name] < n_layers for name in own)
    ]


def learning_rate(recipe: Recipe, step: int, steps: int) -> float:
    """Return the learning rate of an optimizer step.

    It is a pure function, so that a resumed run needs no scheduler state.

    one-cycle: from lr/25 up to lr along a half cosine, then down to lr/250,000 (Smith & Topin 2017, in the form of torch's
    OneCycleLR). cosine: a linear warm-up from 0, then a half cosine down to 0.

    Args:
        recipe: schedule, highest learning rate and warm-up.
        step: the step, from 0.
        steps: the number of steps of the whole training.
    """
    warmup_steps = recipe.warmup * steps
    if recipe.schedule == "one-cycle":
        start, end = recipe.lr / 25, recipe.lr / 25e4
        if step < warmup_steps:
            return _cosine(start, recipe.lr, step / warmup_steps)
        return _cosine(recipe.lr, end, (step - warmup_steps) / max(1.0, steps - 1 - warmup_steps))
    if step < warmup_steps:
        return recipe.lr * (step + 1) / (warmup_steps + 1)
    return _cosine(recipe.lr, 0.0, (step - warmup_steps) / max(1.0, steps - warmup_steps))


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * min(share, 1.0))) / 2


class WeightAverage:
    """An exponential moving average of a model's weights.

    It covers parameters and batch-normalization statistics.

    After n updates the next one weighs the average by min(decay, (1 + n) / (10 + n)), so that the initial weights do not
    dominate a short training. Other buffers are copied.

    Args:
        model: the model to average.
        decay: the weight of the average in an update, 0 to 1.

    Attributes:
        state: the averaged state dict, on the model's device.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model, self.decay = model, decay
        self.state = {name: value.detach().clone() for name, value in model.state_dict().items()}
        parameter_names = {name for name, _ in model.named_parameters()}
        self._averaged = [name for name in self.state if name in parameter_names or name.endswith(_AVERAGED_BUFFERS)]

    @torch.no_grad()
    def update(self, n_updates: int) -> None:
        """Move the average toward the current weights.

        Args:
            n_updates: the number of earlier updates.
        """
        weights = self.model.state_dict()
        share = 1 - min(self.decay, (1 + n_updates) / (10 + n_updates))
        torch._foreach_lerp_(
            [self.state[name] for name in self._averaged], [weights[name] for name in self._averaged], share
        )
        for name in weights.keys() - set(self._averaged):
            self.state[name].copy_(weights[name])

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Run the body of the `with` statement with the averaged weights in the model."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    @torch.no_grad()
    def _exchange(self) -> None:
        for name, value in self.model.state_dict().items():
            trained = value.clone()
            value.copy_(self.state[name])
            self.state[name].copy_(trained)
