"""One colour a group and a part, in every picture: readers learn them once."""

from collections.abc import Iterable

from agebench.evaluation.groups import band_names

# Okabe & Ito (2008): eight colours that stay apart under the common kinds of colour blindness; pale yellow comes last.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
GREY = "#666666"

UNKNOWN = "#BBBBBB"
PARTS = {"train": COLOURS[0], "val": COLOURS[4], "test": COLOURS[2]}
# Groups that many datasets share keep their colour whichever of them are there. No colour is meant to picture a person.
_KNOWN = {
    "female": COLOURS[1],
    "male": COLOURS[0],
    "asian": COLOURS[2],
    "black": COLOURS[3],
    "indian": COLOURS[4],
    "others": COLOURS[6],
    "white": COLOURS[5],
}
# Of what has no colour of its own. Age bands are as many: each keeps its own where others are missing.
_FREE = (COLOURS[2], COLOURS[3], COLOURS[4], COLOURS[5], COLOURS[6], COLOURS[7], COLOURS[0], COLOURS[1])
_KNOWN |= dict(zip(band_names(), _FREE, strict=True))


def group_colours(groups: Iterable[str]) -> dict[str, str]:
    """Group -> colour: the known ones their own, the others, in alphabetical order, what is left; `unknown` is grey."""
    names = sorted(set(groups))
    found = {name: UNKNOWN if name == "unknown" else _KNOWN.get(name.lower(), "") for name in names}
    free = [colour for colour in _FREE if colour not in found.values()] or [GREY]
    nameless = [name for name in names if not found[name]]
    return found | {name: free[place % len(free)] for place, name in enumerate(nameless)}
