"""Backbones: those of timm, `agebench.tiny` and published architectures."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from agebench.errors import UserError
from agebench.models import architectures
from agebench.utils.text import did_you_mean

_TINY_MODULES_PER_LAYER = 3  # convolution, normalization, activation


class TinyCNN(nn.Module):
    """Backbone for tests: five strided 3x3 convolutions and an average: about 250,000 parameters.

    Args:
        widths: output channels of the convolutions.
    """

    num_features = 160

    def __init__(self, widths: tuple[int, ...] = (16, 32, 64, 96, 160)) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for n_in, n_out in zip((3, *widths), widths, strict=False):
            layers += [
                nn.Conv2d(n_in, n_out, 3, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(n_out),
                nn.ReLU(inplace=True),
            ]
        self.layers = nn.Sequential(*layers)

    def group_matcher(self) -> Callable[[str], int]:
        """Return the function from a parameter's name to its layer, as in timm."""
        return lambda name: int(name.split(".")[1]) // _TINY_MODULES_PER_LAYER

    def forward(self, images: Tensor) -> Tensor:
        """Return the features (B, 160) of images (B, 3, S, S)."""
        return self.layers(images).mean(dim=(2, 3))  # type: ignore[no-any-return]


def create_backbone(name: str, *, size: int, bodies: bool = False) -> tuple[nn.Module, int]:
    """Create a backbone with random weights.

    Args:
        name: a timm architecture, "agebench.tiny", or a name in `architectures.NAMES` or `FACE_BACKBONES`.
        size: the side of the square input, pixels.
        bodies: whether the input has six channels, a face and a body.

    Returns:
        The backbone, from images (B, C, size, size) to pooled features (B, F), and the number of features of the age.

    Raises:
        UserError: the architecture does not exist, or does not accept images of this size, or bodies.
    """
    if name in architectures.NAMES or name in architectures.FACE_BACKBONES:
        return architectures.create(name, size=size, bodies=bodies)
    if bodies:
        raise UserError(
            f"backbone '{name}' accepts faces alone. Set bodies = false, or backbone = \"agebench.mivolo-d1\""
        )
    if name == "agebench.tiny":
        return TinyCNN(), TinyCNN.num_features
    import timm  # late: importing timm takes seconds, and agebench's own networks do not need it

    if not timm.is_model(name):
        raise UserError(f"timm {timm.__version__} has no backbone '{name}'{did_you_mean(name, timm.list_models())}")
    try:
        backbone = _create(name, size)
        return backbone, _pooled_features(backbone, size)
    except (AssertionError, ValueError, RuntimeError) as error:
        raise UserError(f"backbone '{name}' cannot be created for images of {size} px: {error}") from error


def _create(name: str, size: int) -> nn.Module:
    """Create a timm network.

    Transformers need the image's size; convolutional networks do not accept the argument.
    """
    import timm

    try:
        return timm.create_model(name, num_classes=0, img_size=size)
    except TypeError:
        return timm.create_model(name, num_classes=0)


def _pooled_features(backbone: nn.Module, size: int) -> int:
    """Return the measured width of the features.

    timm's `num_features` is the width before a hidden layer of the head.
    """
    with torch.no_grad():
        features = backbone.eval()(torch.zeros(1, 3, size, size))
    backbone.train()
    return int(features.shape[1])
