"""The style of all figures: matplotlib parameters, and one color for each group and split in every figure."""

from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from agebench.metrics.groups import band_names

# Okabe & Ito (2008): eight colors that are distinguishable with the common kinds of color blindness; pale yellow is last.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
GRAY = "#666666"
UNKNOWN = "#BBBBBB"
SPLIT_COLORS = {"train": COLORS[0], "val": COLORS[4], "test": COLORS[2]}

FIGURE_WIDTH = 9.0  # inches: the width of a page, at which 10 pt text is easy to read
_P = ParamSpec("_P")
_R = TypeVar("_R")
_STYLE: dict[Any, Any] = {"axes.titlesize": 11, "figure.titlesize": 11, "grid.alpha": 0.3, "legend.frameon": False}

# Groups that many datasets share keep their color in every figure. The colors are not meant to depict people.
_FIXED_COLORS = {
    "female": COLORS[1],
    "male": COLORS[0],
    "asian": COLORS[2],
    "black": COLORS[3],
    "indian": COLORS[4],
    "others": COLORS[6],
    "white": COLORS[5],
}
# Colors of groups without a fixed color. There are as many age bands, so that each band has a fixed color.
_FREE_COLORS = (COLORS[2], COLORS[3], COLORS[4], COLORS[5], COLORS[6], COLORS[7], COLORS[0], COLORS[1])
_FIXED_COLORS |= dict(zip(band_names(), _FREE_COLORS, strict=True))


def styled(draw: Callable[_P, _R]) -> Callable[_P, _R]:
    """Decorate a function that builds or draws a figure: ticks and grid lines are created when a figure is drawn.

    Matplotlib is imported by the first call: reports without figures do without it.

    Args:
        draw: the function.
    """

    @wraps(draw)
    def call(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        from matplotlib import rc_context

        with rc_context(_STYLE):
            return draw(*args, **kwargs)

    return call


def group_colors(groups: Iterable[str]) -> dict[str, str]:
    """Assign a color to each group.

    Args:
        groups: the names of the groups.

    Returns:
        The color of each group: its fixed color, gray for `unknown`, or, in alphabetical order, one of the unused colors.
    """
    names = sorted(set(groups))
    colors = {name: UNKNOWN if name == "unknown" else _FIXED_COLORS.get(name.lower(), "") for name in names}
    unused = [color for color in _FREE_COLORS if color not in colors.values()] or [GRAY]
    remaining = [name for name in names if not colors[name]]
    return colors | {name: unused[index % len(unused)] for index, name in enumerate(remaining)}
