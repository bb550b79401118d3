"""Face-recognition backbones: the inputs that they accept, and their factories."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from agebench.errors import UserError

if TYPE_CHECKING:
    from torch import nn


def backbone_factory(
    backbone: str, network: "Callable[[], nn.Module]", n_features: int, *, default: int, smallest: int | None = None
) -> "Callable[[int, bool], tuple[nn.Module, int]]":
    """Return the function that creates a face-recognition backbone with random weights.

    The function takes the side of the input in pixels, and whether the input has a body beside the face. It returns the
    backbone and the number of its features of the age, and raises UserError where the backbone does not accept such inputs.

    Args:
        backbone: name of the backbone.
        network: creates the network.
        n_features: number of its features of the age.
        default: the side that the backbone was trained with, pixels.
        smallest: the smallest side that it accepts, pixels; None: only `default`.
    """

    def create(size: int, bodies: bool) -> "tuple[nn.Module, int]":
        if smallest is None and size != default:
            raise UserError(f"{backbone} accepts faces of {default} px, not of {size}. Set model.size = {default}")
        if smallest is not None and size < smallest:
            raise UserError(
                f"{backbone} accepts faces of {smallest} px or more, not of {size}. Set model.size = {default}"
            )
        if bodies:
            raise UserError(f'{backbone} accepts faces alone. Set bodies = false, or backbone = "agebench.mivolo-d1"')
        return network(), n_features

    return create
