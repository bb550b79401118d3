"""Cards of generated datasets that several test modules share."""

from collections.abc import Sequence


def few_card(count: int, *, title: str = "A few generated faces", groups: Sequence[str] = (), **options: int) -> str:
    """Return the card of the dataset `few`, generated faces that need no alignment.

    Args:
        count: the number of faces.
        title: the card's title.
        groups: the columns of subgroup metrics.
        options: further options of the reader, such as seed and size.
    """
    lines = ['name = "few"', f'title = "{title}"', 'reader = "synth"', 'licence = "CC0-1.0"', 'faces = "none"']
    lines += [f"groups = {[*groups]}".replace("'", '"')] if groups else []
    lines += ["[options]", *(f"{key} = {value}" for key, value in {"count": count, **options}.items())]
    return "\n".join(["", *lines, ""])
