"""Whole published architectures, written anew from the papers and from the shapes of their authors' weights."""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

# Backbone -> what builds it, as `function(size, bodies) -> (backbone, features that are the age's)`.
NAMES = {
    "agebench.mivolo-d1": "agebench.models.architectures.mivolo:create",
    "agebench.swinface": "agebench.models.architectures.swinface:create",
}


def create(name: str, *, size: int, bodies: bool) -> "tuple[nn.Module, int]":
    """The backbone `name`, randomly initialised, and how many of its features are the age's.

    Raises:
        UserError: it does not take images of this size, or no bodies.
    """
    module, _, function = NAMES[name].partition(":")
    made: tuple[nn.Module, int] = getattr(importlib.import_module(module), function)(size, bodies)
    return made
