"""Published architectures, re-implemented from the papers.

Their tensors have the shapes of the authors' weights.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

# Backbone -> its factory, `function(size, bodies) -> (backbone, number of features of the age)`.
NAMES = {
    "agebench.mivolo-d1": "agebench.models.architectures.mivolo:create",
    "agebench.swinface": "agebench.models.architectures.swinface:create",
}

# Backbones of face recognition, whose weights `agebench.models.weights` loads; factories as above.
FACE_BACKBONES = {
    "agebench.mobilefacenet": "agebench.models.architectures.mobilefacenet:create",
    "agebench.dlib-resnet": "agebench.models.architectures.dlib_resnet:create",
    "agebench.inception-resnet-v1": "agebench.models.architectures.inception_resnet:create",
    "agebench.iresnet50": "agebench.models.architectures.iresnet:create",
}


def create(name: str, *, size: int, bodies: bool) -> "tuple[nn.Module, int]":
    """Create a backbone with random weights.

    Args:
        name: a key of `NAMES` or `FACE_BACKBONES`.
        size: the side of the square input, pixels.
        bodies: whether the input has six channels, a face and a body.

    Returns:
        The backbone, and the number of its features of the age.

    Raises:
        UserError: the architecture does not accept images of this size, or bodies.
    """
    module, _, function = (NAMES | FACE_BACKBONES)[name].partition(":")
    backbone: tuple[nn.Module, int] = getattr(importlib.import_module(module), function)(size, bodies)
    return backbone
