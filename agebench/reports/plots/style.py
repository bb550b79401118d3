"""One colour a group and a part, in every picture: readers learn them once."""

from collections.abc import Iterable

from agebench.metrics.groups import band_names

# Okabe & Ito (2008): eight colours that stay apart under the common kinds of colour blindness; pale yellow comes last.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
GRAY = "#666666"

UNKNOWN = "#BBBBBB"
SPLIT_COLORS = {"train": COLORS[0], "val": COLORS[4], "test": COLORS[2]}
# Groups that many datasets share keep their colour whichever of them are there. No colour is meant to picture a person.
_KNOWN = {
    "female": COLORS[1],
    "male": COLORS[0],
    "asian": COLORS[2],
    "black": COLORS[3],
    "indian": COLORS[4],
    "others": COLORS[6],
    "white": COLORS[5],
}
# Of what has no colour of its own. Age bands are as many: each keeps its own where others are missing.
_FREE = (COLORS[2], COLORS[3], COLORS[4], COLORS[5], COLORS[6], COLORS[7], COLORS[0], COLORS[1])
_KNOWN |= dict(zip(band_names(), _FREE, strict=True))


def group_colors(groups: Iterable[str]) -> dict[str, str]:
    """Group -> colour: the known ones their own, the others, in alphabetical order, what is left; `unknown` is grey."""
    names = sorted(set(groups))
    found = {name: UNKNOWN if name == "unknown" else _KNOWN.get(name.lower(), "") for name in names}
    free = [colour for colour in _FREE if colour not in found.values()] or [GRAY]
    nameless = [name for name in names if not found[name]]
    return found | {name: free[place % len(free)] for place, name in enumerate(nameless)}
