"""Leakage-free train, validation and test splits."""

from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

import numpy as np
import pandas as pd

from agebench.data.digests import leakage_groups
from agebench.data.samples import Samples
from agebench.errors import RejectReason, UserError

SPLITS = ("train", "val", "test")
# Version of the algorithm in `deal`: the same seed draws other parts under another version. Version 1 broke ties between groups of
# equal mean age only, so that different seeds tested almost the same people.
SPLIT_SCHEME = 2
# Draws of `deal` before the one with the best shares is taken.
_MAX_DRAWS = 100
# Error of a part's share of all images that `deal` accepts at once, unless half of a mean group is more.
_SHARE_TOLERANCE = 0.001


class Part(IntEnum):
    """The part of a split that an image is in; the values of `Folds.parts`."""

    NONE = -1
    TRAIN = 0
    VAL = 1
    TEST = 2


class Parts(NamedTuple):
    """The part of every image, before the images are separated.

    Attributes:
        parts: (N,) values of `Part`.
        straddling: images left out because their double is in a later part.
        drawn: whether any part was drawn at random, by `SPLIT_SCHEME`.
    """

    parts: np.ndarray
    straddling: int
    drawn: bool


@dataclass(frozen=True)
class Split:
    """Three disjoint parts of one dataset, and what was kept out of them.

    Attributes:
        train, val, test: samples; unless a protocol asks for it, no two parts share an image (bytes or pixels) or a subject.
        duplicates: images of the dataset that are an exact copy of another of its images.
        straddling: official split only: images left out of train or val because their double stands in a later part.
    """

    train: Samples
    val: Samples
    test: Samples
    duplicates: int
    straddling: int = 0


def make_split(samples: Samples, *, test: float, val: float, seed: int, source: str = "dataset") -> Split:
    """Split by group, stratified by age, from a seed; or as the source itself does where it has an official split.

    `test` is the share of all images, `val` the share of what is left (the tutorial's 80/20, then 85/15).
    Exact copies and the images of one subject stay together. A source that marks train and test but no val gets its val
    out of train. Images that an official split says nothing of are in no part: see `in_official_split`.

    Raises:
        UserError: too few groups to fill three parts, or an official split that leaves one empty.
    """
    parts, straddling, _ = assign_splits(samples.table, test=test, val=val, seed=seed, source=source)
    chosen = {part: select(samples, parts == number) for number, part in enumerate(SPLITS)}
    return Split(**chosen, duplicates=count_exact_duplicates(samples.table), straddling=straddling)


def assign_splits(table: pd.DataFrame, *, test: float, val: float, seed: int, source: str = "dataset") -> Parts:
    """Assign every row of `table` to a part, as `split` does; rows that are left out are in `Part.NONE`."""
    groups = leakage_groups(table)
    generator = np.random.default_rng([seed, 0x5917])
    marked = table["split"].notna().to_numpy() if "split" in table else np.zeros(len(table), dtype=bool)
    straddling, drawn = 0, True
    if marked.any():
        parts = np.full(len(table), Part.NONE, dtype=np.int64)
        parts[marked] = encode_split_names(table.loc[marked, "split"], source)
        straddling = drop_cross_split_duplicates(parts, groups)
        drawn = carve_out_val(parts, groups, table["age"].to_numpy(), val, generator)
    else:
        shares = np.array([(1 - test) * (1 - val), (1 - test) * val, test])
        parts = stratified_group_assign(groups, table["age"].to_numpy(), shares, generator)
    for number, part in enumerate(SPLITS):
        if (parts == number).any():
            continue
        if marked.any():
            raise UserError(
                f"{source}: the official split leaves nothing for {part}; {marked.sum()} of {len(table)} images are in it. "
                "Complete it, or divide the dataset by a protocol of its card: --protocol NAME"
            )
        raise UserError(
            f"{source}: {len(np.unique(groups))} groups of images (subjects, or images without their copies) are too few to "
            f"fill train, val and test: nothing is left for {part}. Give more images, or other shares with "
            "--set data.test_share=…"
        )
    return Parts(parts, straddling, drawn)


def drop_unassigned(samples: Samples, column: str = "split") -> Samples:
    """`samples` less those that an official split says nothing of, which go to quarantine; all where it says nothing of any.

    One empty cell among thousands must neither undo what the others say nor be filled by chance.
    """
    if column not in samples.table or samples.table[column].isna().all():
        return samples
    return samples.reject(samples.table[column].isna(), "in no part of the official split", RejectReason.NO_SPLIT)


def count_exact_duplicates(table: pd.DataFrame) -> int:
    """How many rows repeat the bytes or the pixels of an earlier row."""
    return int((table["bytes_digest"].duplicated() | table["pixels_digest"].duplicated()).sum())


def drop_overlapping(samples: Samples, seen: list[Samples]) -> tuple[Samples, int]:
    """`samples` less the images that also stand in `seen` (same bytes or pixels), which go to quarantine; and how many."""
    doubled = pd.Series(False, index=samples.table.index)
    for other in seen:
        for digest in ("bytes_digest", "pixels_digest"):
            doubled |= samples.table[digest].isin(other.table[digest])
    return samples.reject(doubled, "also in the training set", RejectReason.IN_TRAINING_SET), int(doubled.sum())


def stratified_group_assign(
    groups: np.ndarray, ages: np.ndarray, shares: np.ndarray, generator: np.random.Generator
) -> np.ndarray:
    """Assign whole groups to parts at random, within strata of similar mean age.

    Groups are ordered by mean age and cut into strata of neighbors, just large enough for every part to get a group of each.
    Within a stratum the parts are permuted, so that every group has the same chance of each part. Groups differ in size:
    of up to `_MAX_DRAWS` such assignments the first whose parts have their shares of the images is taken, else the best.

    Args:
        groups: (N,) group of each image, 0, 1, ….
        ages: (N,) years.
        shares: (P,) share of the images that each part is to have; sums to 1. A part with a share of 0 gets nothing.
        generator: source of randomness.

    Returns:
        (N,) part 0, 1, …, P - 1 of each image.
    """
    sizes = np.bincount(groups)
    mean_ages = np.bincount(groups, weights=ages) / sizes
    n_images, n_groups = len(groups), len(sizes)
    tolerance = max(_SHARE_TOLERANCE, sizes.mean() / n_images / 2)
    by_age = np.lexsort((generator.random(n_groups), mean_ages))
    best_parts, lowest_cost = np.zeros(n_groups, dtype=np.int64), np.inf
    for _ in range(_MAX_DRAWS):
        strata, labels = _strata(n_groups, shares, generator)
        parts = np.empty(n_groups, dtype=np.int64)
        parts[by_age[np.argsort(strata + generator.random(n_groups))]] = labels
        dealt = np.bincount(parts, weights=sizes, minlength=len(shares)) / n_images
        n_empty = np.count_nonzero((dealt == 0) & (shares > 0))
        cost = n_empty + float(np.abs(dealt - shares).max())
        if cost < lowest_cost:
            best_parts, lowest_cost = parts, cost
        if cost <= tolerance:
            break
    assigned: np.ndarray = best_parts[groups]
    return assigned


def _strata(n_groups: int, shares: np.ndarray, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Cut ordered groups into strata, and list which parts each stratum gets.

    Part counts are rounded jointly: each is the difference of two cumulative counts with one random offset, so that it is
    right on average in each stratum and off by less than one group in total. The first stratum has a random width, so that the same
    neighbors are not always in the same one.

    Returns:
        Stratum and part (n_groups,) each, ascending; the parts of a stratum are to be permuted.
    """
    positive = np.flatnonzero(shares > 0)
    quotas = shares[positive] / shares.sum()
    width = int(np.ceil(1 / quotas.min() - 1e-9))
    if n_groups < width:
        return np.zeros(n_groups, dtype=np.int64), np.repeat(positive, _seats(n_groups, quotas))
    edges = np.array([0, *range(int(generator.integers(width, 2 * width)), n_groups - width + 1, width), n_groups])
    # Rounded, because k times 1/k can be a hair below a whole number.
    up_to_part = np.floor(np.round(np.outer(edges, np.cumsum(quotas)), 9) + generator.random()).astype(np.int64)
    up_to_part[:, -1] = edges
    seats = np.diff(np.diff(up_to_part, axis=0), axis=1, prepend=0)
    return np.repeat(np.arange(len(seats)), np.diff(edges)), np.repeat(np.tile(positive, len(seats)), seats.ravel())


def _seats(n_groups: int, quotas: np.ndarray) -> np.ndarray:
    """Share out few groups: one for each part where there are enough, the rest to the parts that lack most."""
    seats = np.full(len(quotas), int(n_groups >= len(quotas)))
    while seats.sum() < n_groups:
        seats[np.argmax(quotas * n_groups - seats)] += 1
    return seats


def encode_split_names(names: "pd.Series[str]", source: str) -> np.ndarray:
    """Read the part of each row from a column that names it: (N,) values of `Part`.

    Raises:
        UserError: it says something else.
    """
    unknown = sorted(set(names.astype("str")) - set(SPLITS))
    if unknown:
        raise UserError(f"{source}: the official split says '{unknown[0]}'; it must say train, val or test")
    numbers = names.astype("str").map({part: number for number, part in enumerate(SPLITS)})
    return numbers.to_numpy().astype(np.int64)


def drop_cross_split_duplicates(parts: np.ndarray, groups: np.ndarray) -> int:
    """Leave out, in place, rows whose group also has rows in a later part, so that the test stays whole; return how many."""
    latest = np.full(groups.max() + 1, Part.NONE)
    np.maximum.at(latest, groups, parts)
    straddling = (parts != Part.NONE) & (parts < latest[groups])
    parts[straddling] = Part.NONE
    return int(straddling.sum())


def carve_out_val(
    parts: np.ndarray, groups: np.ndarray, ages: np.ndarray, val: float, generator: np.random.Generator
) -> bool:
    """Move the share `val` of the training rows to validation, in place and by group, where no row validates.

    Returns:
        Whether anything was drawn.
    """
    train_rows = np.flatnonzero(parts == Part.TRAIN)
    if (parts == Part.VAL).any() or not len(train_rows):
        return False
    _, compact = np.unique(groups[train_rows], return_inverse=True)
    parts[train_rows] = stratified_group_assign(compact, ages[train_rows], np.array([1 - val, val]), generator)
    return True


def select(samples: Samples, chosen: np.ndarray) -> Samples:
    """The rows where `chosen` holds; the quarantine stays with the whole."""
    return Samples(samples.table[chosen].reset_index(drop=True), samples.groups)
