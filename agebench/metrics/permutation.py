"""Shuffles of group labels for permutation tests, where several rows may be of one unit (images of one person)."""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from agebench.metrics.bootstrap import Flags, Floats, Ints


class PermutationData(NamedTuple):
    """Rows whose labels are to be shuffled.

    Attributes:
        values: (n,) what differs or not: errors, or 0 and 1.
        labels: (n,) groups, 0, 1, ….
        stratum: (n,) of ages, 0, 1, ….
        units: (n,) whose rows they are, dense.
    """

    values: Floats
    labels: Ints
    stratum: Ints
    units: Ints

    def where(self, chosen: Flags) -> "PermutationData":
        """The rows of `chosen` (n,) alone."""
        return PermutationData(*(column[chosen] for column in self))


def _has_mixed_labels(labels: Ints, units: Ints) -> Flags:
    """(U,) whether a unit's rows hold more than one label."""
    low, high = np.full(int(units.max()) + 1, labels.max()), np.zeros(int(units.max()) + 1, labels.dtype)
    np.minimum.at(low, units, labels)
    np.maximum.at(high, units, labels)
    mixed: Flags = low < high
    return mixed


@dataclass(frozen=True)
class LabelPermutations:
    """The rows, brought down to few items that hold one label at a time: parts of whole units, single rows, and what never moves.

    If errors do not depend on the label, given whose they are and the stratum, then these are exchangeable, and nothing else is:

    - among units of one label each, in about the same stratum, their labels: units are independent and of one kind;
    - in a unit of several labels (a person with and without glasses), the labels of its rows of one stratum. What the rows
      share, they share under every label. Carried to another unit they would change what part of that the gap holds.

    So a unit that holds several labels, but never two in one stratum, stays as it is: its changes cannot be distinguished from age
    there. This is the restricted permutation of Winkler et al. 2015, "Multi-level block permutation", NeuroImage 123.

    Attributes:
        sums: (I,) the sum of each item's values.
        counts: (I,) its rows.
        units: (I,) its unit; the items of one-label units come first, ordered by unit.
        single: how many items are of units with one label.
        places: (R,) unit and stratum, ascending, of the single rows that are shuffled within units; these items follow.
        moved: how many labels a shuffle moves.
    """

    sums: Floats
    counts: Floats
    units: Ints
    single: int
    places: Ints
    moved: int
    _strata: int
    _label: Ints  # of each unit
    _parts: tuple[Ints, Ints]  # unit and stratum of each part of a unit of one label
    _blocks: list[Ints]  # such units, by stratum
    _rows: tuple[Ints, Ints, Ints]  # label, stratum and place to be shuffled in, ascending, of the rows of other units
    _still: Ints  # cells of what never moves

    @property
    def observed(self) -> Ints:
        """The cell of each item (I,) under the labels as they are."""
        unit, stratum = self._parts
        row_label, row_stratum, _ = self._rows
        whole = self._label[unit] * self._strata + stratum
        return np.concatenate([whole, row_label * self._strata + row_stratum, self._still])

    def cells(self, rng: np.random.Generator) -> Ints:
        """One shuffle: the cell, label * strata + stratum, of each item (I,)."""
        whole: Ints = self.whole_cells(rng, 1)[0]
        row_label, row_stratum, place = self._rows
        if not len(place) + len(self._still):
            return whole
        # Sorted by place and, within one, by chance.
        order = np.argsort(place + rng.random(len(place)))
        return np.concatenate([whole, row_label[order] * self._strata + row_stratum, self._still])

    def whole_cells(self, rng: np.random.Generator, count: int) -> Ints:
        """Draw several shuffles of the units of one label: the cells of their parts (count, `single`).

        Args:
            rng: source of the shuffles; one draw of several takes the same numbers as several draws.
            count: the number of shuffles.
        """
        order, bounds = self._block_order
        shuffled = np.tile(self._label[order], (count, 1))
        for row in shuffled:
            for start, stop in bounds:
                rng.shuffle(row[start:stop])
        labels = np.tile(self._label, (count, 1))
        labels[:, order] = shuffled
        unit, stratum = self._parts
        cells: Ints = labels[:, unit] * self._strata + stratum
        return cells

    @cached_property
    def _block_order(self) -> tuple[Ints, list[tuple[int, int]]]:
        """The units of all blocks, one block after another, and the ends of each block."""
        stops = np.cumsum([len(block) for block in self._blocks]).tolist()
        order = np.concatenate(self._blocks) if self._blocks else np.zeros(0, np.int64)
        return order, list(zip([0, *stops[:-1]], stops, strict=True))


def make_permutations(rows: PermutationData, strata: int) -> LabelPermutations:
    """Return how the labels of `rows` are to be shuffled; `strata` is the number of strata."""
    values, labels, stratum, units = rows
    mixed = _has_mixed_labels(labels, units)
    label = np.zeros(len(mixed), labels.dtype)
    label[units] = labels
    inside = ~mixed[units]
    home = np.round(np.bincount(units, stratum) / np.bincount(units)).astype(np.int64)
    pairs, pair = np.unique(units[inside] * strata + stratum[inside], return_inverse=True)
    whole = np.flatnonzero(~mixed)
    # In two bytes, where strata fit, numpy sorts by their digits: ten times as fast.
    sorted_by = home[whole].astype(np.int16 if strata < np.iinfo(np.int16).max else np.int64)
    order = whole[np.argsort(sorted_by, kind="stable")]
    blocks = np.split(order, np.flatnonzero(np.diff(home[order])) + 1)
    mixed_rows, place, moving = _within(values, labels, units * strata + stratum, np.flatnonzero(~inside))
    moved, fixed = mixed_rows[moving], mixed_rows[~moving]
    size = (int(labels.max()) + 1) * strata
    fixed_cells, which = np.unique(units[fixed] * size + labels[fixed] * strata + stratum[fixed], return_inverse=True)
    several = [np.bincount(pair, values[inside]), values[moved], np.bincount(which, values[fixed])]
    counts = [np.bincount(pair), np.ones(len(moved)), np.bincount(which)]
    return LabelPermutations(
        sums=np.concatenate(several),
        counts=np.concatenate(counts).astype(float),
        units=np.concatenate([pairs // strata, units[moved], fixed_cells // size]),
        single=len(pairs),
        places=place[moving],
        moved=len(whole) + len(moved),
        _strata=strata,
        _label=label,
        _parts=(pairs // strata, pairs % strata),
        _blocks=blocks,
        _rows=(labels[moved], stratum[moved], place[moving]),
        _still=fixed_cells % size,
    )


def _within(values: Floats, labels: Ints, places: Ints, rows: Ints) -> tuple[Ints, Ints, Flags]:
    """`rows` by place; their places; and which of them a shuffle moves: those of a place with two labels and two values."""
    rows = rows[np.argsort(places[rows], kind="stable")]
    place = places[rows]
    if not len(rows):
        return rows, place, np.zeros(0, dtype=bool)
    starts = np.flatnonzero(np.diff(place, prepend=-1))
    sizes = np.diff(starts, append=len(rows))
    moving = np.ones(len(starts), dtype=bool)
    for of in (labels[rows], values[rows]):
        moving &= np.minimum.reduceat(of, starts) < np.maximum.reduceat(of, starts)
    return rows, place, np.repeat(moving, sizes)
