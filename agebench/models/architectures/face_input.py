"""The check of the input that face-recognition backbones share."""

from agebench.errors import UserError


def check_face_input(backbone: str, size: int, *, bodies: bool, default: int, smallest: int | None = None) -> None:
    """Refuse an input that a backbone does not accept.

    Args:
        backbone: name of the backbone.
        size: the side of the input, pixels.
        bodies: whether the input has a body beside the face.
        default: the side that the backbone was trained with, pixels.
        smallest: the smallest side that it accepts, pixels; None: only `default`.

    Raises:
        UserError: the side does not fit, or there are bodies.
    """
    if smallest is None and size != default:
        raise UserError(f"{backbone} accepts faces of {default} px, not of {size}. Set model.size = {default}")
    if smallest is not None and size < smallest:
        raise UserError(f"{backbone} accepts faces of {smallest} px or more, not of {size}. Set model.size = {default}")
    if bodies:
        raise UserError(f'{backbone} accepts faces alone. Set bodies = false, or backbone = "agebench.mivolo-d1"')
