"""Backbones: any timm architecture by name, agebench's own `agebench.tiny`, or a whole architecture of the zoo."""

import torch
from torch import nn

from agebench.errors import UserError
from agebench.models import architectures
from agebench.models.tiny import TinyCNN
from agebench.utils.text import did_you_mean


def create_backbone(name: str, *, size: int, bodies: bool = False) -> tuple[nn.Module, int]:
    """A randomly initialised backbone that turns (B, C, size, size) into pooled features, and how many are the age's.

    C is 3, or 6 where `bodies` asks for a network that sees a body beside the face.

    Raises:
        UserError: timm has no architecture of this name, or it does not take images of this size, or no bodies.
    """
    if name in architectures.NAMES:
        return architectures.create(name, size=size, bodies=bodies)
    if bodies:
        raise UserError(f"backbone '{name}' sees faces alone; bodies = true is for agebench.mivolo-d1")
    if name == "agebench.tiny":
        return TinyCNN(), TinyCNN.num_features
    import timm  # it takes seconds, and agebench's own networks do without

    if not timm.is_model(name):
        raise UserError(
            f"no backbone called '{name}' in timm {timm.__version__}{did_you_mean(name, timm.list_models())}"
        )
    try:
        backbone = _create(name, size)
        return backbone, _pooled_features(backbone, size)
    except (AssertionError, ValueError, RuntimeError) as error:
        raise UserError(f"backbone '{name}' cannot be made for {size} px images: {error}") from error


def _create(name: str, size: int) -> nn.Module:
    """Transformers need to know the image's size, convolutional networks do not take the argument."""
    import timm

    try:
        return timm.create_model(name, num_classes=0, img_size=size)
    except TypeError:
        return timm.create_model(name, num_classes=0)


def _pooled_features(backbone: nn.Module, size: int) -> int:
    """What comes out, measured: timm's `num_features` is the width before the head's hidden layer, where there is one."""
    with torch.no_grad():
        features = backbone.eval()(torch.zeros(1, 3, size, size))
    backbone.train()
    return int(features.shape[1])
