"""Leakage-free train, validation and test splits."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd

from agebench.data.digests import leakage_groups
from agebench.data.samples import Samples
from agebench.errors import UserError
from agebench.types import RejectReason, Split

# The splits that an image can be in, and their names.
ASSIGNED = (Split.TRAIN, Split.VAL, Split.TEST)
SPLITS = tuple(split.label for split in ASSIGNED)
# Version of the algorithm in `stratified_group_assign`: the same seed draws other splits under another version. Version 1
# broke ties between groups of equal mean age only, so that different seeds tested almost the same people.
SPLIT_SCHEME = 2
# The same, of a source that lists its images in another order than that of their ids; version 2 drew them in the order of the list.
REORDERED_SCHEME = 3
# Random assignments that `stratified_group_assign` tries before it takes the one with the best shares.
_MAX_DRAWS = 100
# Error of a split's share of all images that is accepted at once, unless half of a mean group is more.
_SHARE_TOLERANCE = 0.001


class SplitAssignment(NamedTuple):
    """The split of every image, before the images are separated.

    Attributes:
        splits: (N,) values of `Split`.
        n_cross_split_removed: images left out because a duplicate or an image of the subject is in a later split.
        is_random: whether any split was drawn at random, by `SPLIT_SCHEME`.
    """

    splits: np.ndarray
    n_cross_split_removed: int
    is_random: bool


@dataclass(frozen=True)
class DatasetSplits:
    """Three disjoint splits of one dataset, and the counts of duplicates.

    Attributes:
        train: training samples. Unless a protocol allows it, no two splits share an image (bytes or pixels) or a subject.
        val: validation samples.
        test: test samples.
        n_duplicates: images of the dataset that are exact copies of another of its images.
        n_cross_split_removed: images left out of train or val because a duplicate or an image of the subject is in a
            later split; 0 for random splits.
    """

    train: Samples
    val: Samples
    test: Samples
    n_duplicates: int
    n_cross_split_removed: int = 0


def make_split(samples: Samples, *, test: float, val: float, seed: int, source: str = "dataset") -> DatasetSplits:
    """Split a dataset by group, stratified by age, or as its official split defines.

    Exact copies and the images of one subject stay together. If the official split defines no val, val is drawn from
    train. Images without an official split are in no split; see `drop_unassigned`.

    Args:
        samples: samples with digests.
        test: share of all images that the test split gets.
        val: share of the remaining images that the val split gets (0.2 and 0.15 give 80/20, then 85/15).
        seed: seed of the random assignment.
        source: name of the dataset in error messages.

    Raises:
        UserError: there are too few groups to fill three splits, or the official split leaves one empty.
    """
    assignment = assign_splits(samples.table, test=test, val=val, seed=seed, source=source)
    train, val_samples, test_samples = (select(samples, assignment.splits == split) for split in ASSIGNED)
    return DatasetSplits(
        train, val_samples, test_samples, count_exact_duplicates(samples.table), assignment.n_cross_split_removed
    )


def assign_splits(
    table: pd.DataFrame, *, test: float, val: float, seed: int, source: str = "dataset"
) -> SplitAssignment:
    """Assign every row to a split as `make_split` does.

    Rows that are left out get `Split.NONE`. The order of the rows does not matter.

    Args:
        table: samples with digests, one row per image.
        test: share of all images that the test split gets.
        val: share of the remaining images that the val split gets.
        seed: seed of the random assignment.
        source: name of the dataset in error messages.

    Raises:
        UserError: there are too few groups to fill three splits, or the official split leaves one empty.
    """
    order = id_order(table)
    table = table.iloc[order]
    groups = leakage_groups(table)
    rng = np.random.default_rng([seed, 0x5917])
    has_official = table["split"].notna().to_numpy() if "split" in table else np.zeros(len(table), dtype=bool)
    n_removed, is_random = 0, True
    if has_official.any():
        splits = np.full(len(table), Split.NONE, dtype=np.int64)
        splits[has_official] = encode_split_names(table.loc[has_official, "split"], source)
        n_removed = drop_cross_split_duplicates(splits, groups)
        is_random = carve_out_val(splits, groups, table["age"].to_numpy(), val, rng)
    else:
        shares = np.array([(1 - test) * (1 - val), (1 - test) * val, test])
        splits = stratified_group_assign(groups, table["age"].to_numpy(), shares, rng)
    for split in ASSIGNED:
        if (splits == split).any():
            continue
        if has_official.any():
            raise UserError(
                f"{source}: the official split leaves nothing for {split.label}; {has_official.sum()} of {len(table)} "
                "images are in it. Complete the split column, or use a protocol of the dataset's card: --protocol NAME"
            )
        raise UserError(
            f"{source}: {len(np.unique(groups))} groups of images (subjects, or images with their copies) are too few to "
            f"fill train, val and test: nothing is left for {split.label}. Add images, or set other shares with "
            "--set data.test_share=…"
        )
    return SplitAssignment(splits[np.argsort(order)], n_removed, is_random)


def split_scheme(table: pd.DataFrame) -> int:
    """Return the version of the random splits of a table: another one where its rows are not in the order of their ids."""
    return SPLIT_SCHEME if (np.diff(id_order(table)) == 1).all() else REORDERED_SCHEME


def id_order(table: pd.DataFrame) -> np.ndarray:
    """Return the (N,) rows in the order of their sample ids.

    Splits are drawn in this order, so that the order in which a source lists its images does not change them.

    Args:
        table: samples.
    """
    order: np.ndarray = table["sample_id"].argsort(kind="stable").to_numpy()
    return order


def drop_unassigned(samples: Samples, column: str = "split") -> Samples:
    """Reject the samples without an official split.

    Keep all samples if the dataset has no official split.

    An empty cell neither invalidates the official split of the other images nor is it filled at random.

    Args:
        samples: the dataset's samples.
        column: the column that names the official split.
    """
    if column not in samples.table or samples.table[column].isna().all():
        return samples
    return samples.reject(samples.table[column].isna(), "in no part of the official split", RejectReason.NO_SPLIT)


def count_exact_duplicates(table: pd.DataFrame) -> int:
    """Count the rows that repeat the bytes or the pixels of an earlier row."""
    return int((table["bytes_digest"].duplicated() | table["pixels_digest"].duplicated()).sum())


def drop_overlapping(samples: Samples, others: list[Samples], *, same_people: bool = False) -> tuple[Samples, int]:
    """Reject the images that are also in other samples (same bytes or pixels), or whose person is.

    Args:
        samples: the samples to filter, with digests.
        others: samples with digests that must not share an image with `samples`.
        same_people: whether `subject` means the same people in all of them; if not, only images are compared.

    Returns:
        The remaining samples, and the number of rejected images.
    """
    table = samples.table
    is_shared = pd.Series(False, index=table.index)
    is_rejected = is_shared.copy()
    for other in others:
        for digest in ("bytes_digest", "pixels_digest"):
            is_shared |= table[digest].isin(other.table[digest])
        if same_people:
            is_rejected |= table["subject"].isin(other.table["subject"].dropna())
    is_rejected |= is_shared
    reasons = is_shared.map({True: "also in the training set", False: "their person is in the training set"})
    return samples.reject(is_rejected, reasons, RejectReason.IN_TRAINING_SET), int(is_rejected.sum())


def stratified_group_assign(
    groups: np.ndarray, ages: np.ndarray, shares: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Assign whole groups to parts at random, within strata of similar mean age.

    Groups are ordered by mean age and cut into strata of neighbors, just large enough for every part to get a group of each.
    Within a stratum the parts are permuted, so that every group has the same chance of each part. Groups differ in size:
    of up to `_MAX_DRAWS` such assignments the first whose parts have their shares of the images is taken, else the best.

    Args:
        groups: (N,) group of each image, 0, 1, ….
        ages: (N,) years.
        shares: (P,) share of the images that each part is to have; sums to 1. A part with a share of 0 gets nothing.
        rng: source of randomness.

    Returns:
        (N,) part 0, 1, …, P - 1 of each image.
    """
    sizes = np.bincount(groups)
    mean_ages = np.bincount(groups, weights=ages) / sizes
    n_images, n_groups = len(groups), len(sizes)
    tolerance = max(_SHARE_TOLERANCE, sizes.mean() / n_images / 2)
    by_age = np.lexsort((rng.random(n_groups), mean_ages))
    best_parts, lowest_cost = np.zeros(n_groups, dtype=np.int64), np.inf
    for _ in range(_MAX_DRAWS):
        strata, labels = _strata(n_groups, shares, rng)
        parts = np.empty(n_groups, dtype=np.int64)
        parts[by_age[np.argsort(strata + rng.random(n_groups))]] = labels
        actual_shares = np.bincount(parts, weights=sizes, minlength=len(shares)) / n_images
        n_empty = np.count_nonzero((actual_shares == 0) & (shares > 0))
        cost = n_empty + float(np.abs(actual_shares - shares).max())
        if cost < lowest_cost:
            best_parts, lowest_cost = parts, cost
        if cost <= tolerance:
            break
    assigned: np.ndarray = best_parts[groups]
    return assigned


def _strata(n_groups: int, shares: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Cut ordered groups into strata, and list which parts each stratum gets.

    Part counts are rounded jointly: each is the difference of two cumulative counts with one random offset, so that it is
    right on average in each stratum and off by less than one group in total. The first stratum has a random width, so that
    the same neighbors are not always in the same stratum.

    Returns:
        Stratum and part (n_groups,) each, ascending; the parts of a stratum are to be permuted.
    """
    positive = np.flatnonzero(shares > 0)
    quotas = shares[positive] / shares.sum()
    width = int(np.ceil(1 / quotas.min() - 1e-9))
    if n_groups < width:
        return np.zeros(n_groups, dtype=np.int64), np.repeat(positive, _seats(n_groups, quotas))
    edges = np.array([0, *range(int(rng.integers(width, 2 * width)), n_groups - width + 1, width), n_groups])
    # Rounded, because k times 1/k can be a hair below a whole number.
    up_to_part = np.floor(np.round(np.outer(edges, np.cumsum(quotas)), 9) + rng.random()).astype(np.int64)
    up_to_part[:, -1] = edges
    seats = np.diff(np.diff(up_to_part, axis=0), axis=1, prepend=0)
    return np.repeat(np.arange(len(seats)), np.diff(edges)), np.repeat(np.tile(positive, len(seats)), seats.ravel())


def _seats(n_groups: int, quotas: np.ndarray) -> np.ndarray:
    """Distribute few groups: one for each part if there are enough, the rest to the parts with the largest deficit."""
    seats = np.full(len(quotas), int(n_groups >= len(quotas)))
    while seats.sum() < n_groups:
        seats[np.argmax(quotas * n_groups - seats)] += 1
    return seats


def encode_split_names(names: "pd.Series[str]", source: str) -> np.ndarray:
    """Encode a column of split names as (N,) values of `Split`.

    Args:
        names: train, val or test for each row.
        source: name of the dataset in error messages.

    Raises:
        UserError: the column contains another value.
    """
    unknown = sorted(set(names.astype("str")) - set(SPLITS))
    if unknown:
        raise UserError(f"{source}: the official split contains '{unknown[0]}'. Its values must be train, val or test.")
    codes = names.astype("str").map({split.label: int(split) for split in ASSIGNED})
    return codes.to_numpy().astype(np.int64)


def drop_cross_split_duplicates(splits: np.ndarray, groups: np.ndarray) -> int:
    """Remove rows whose group also has rows in a later split.

    This keeps the test split complete.

    Args:
        splits: (N,) values of `Split`; removed rows become `Split.NONE`, in place.
        groups: (N,) leakage group of each row.

    Returns:
        The number of removed rows.
    """
    latest = np.full(groups.max() + 1, Split.NONE)
    np.maximum.at(latest, groups, splits)
    is_removed = (splits != Split.NONE) & (splits < latest[groups])
    splits[is_removed] = Split.NONE
    return int(is_removed.sum())


def carve_out_val(
    splits: np.ndarray, groups: np.ndarray, ages: np.ndarray, val: float, rng: np.random.Generator
) -> bool:
    """Move a share of the training rows to validation, by group.

    Nothing is moved if a row is in the val split.

    Args:
        splits: (N,) values of `Split`, changed in place.
        groups: (N,) leakage group of each row.
        ages: (N,) years.
        val: share of the training rows that are moved.
        rng: source of randomness.

    Returns:
        Whether rows were moved.
    """
    train_rows = np.flatnonzero(splits == Split.TRAIN)
    if (splits == Split.VAL).any() or not len(train_rows):
        return False
    _, compact_groups = np.unique(groups[train_rows], return_inverse=True)
    train_or_val = np.array([Split.TRAIN, Split.VAL])
    parts = stratified_group_assign(compact_groups, ages[train_rows], np.array([1 - val, val]), rng)
    splits[train_rows] = train_or_val[parts]
    return True


def select(samples: Samples, mask: np.ndarray) -> Samples:
    """Return the rows where a mask is true; the rejected rows stay with the original samples."""
    return Samples(samples.table[mask].reset_index(drop=True), samples.groups)
