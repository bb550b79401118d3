"""Who trains, who validates, who tests: without leakage."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from agebench.data.audit import same_side
from agebench.data.samples import Samples
from agebench.errors import RejectReason, UserError

PARTS = ("train", "val", "test")


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


def split(samples: Samples, *, test: float, val: float, seed: int, source: str = "dataset") -> Split:
    """Split by group, stratified by age, from a seed; or as the source itself does where it has an official split.

    `test` is the share of all images, `val` the share of what is left (the tutorial's 80/20, then 85/15).
    Exact copies and the images of one subject stay together. A source that marks train and test but no val gets its val
    out of train. Images that an official split says nothing of are in no part: see `in_official_split`.

    Raises:
        UserError: too few groups to fill three parts, or an official split that leaves one empty.
    """
    parts, straddling = split_parts(samples.table, test=test, val=val, seed=seed, source=source)
    chosen = {part: rows(samples, parts == number) for number, part in enumerate(PARTS)}
    return Split(**chosen, duplicates=exact_copies(samples.table), straddling=straddling)


def split_parts(
    table: pd.DataFrame, *, test: float, val: float, seed: int, source: str = "dataset"
) -> tuple[np.ndarray, int]:
    """As `split`: (N,) 0 train, 1 val, 2 test, -1 left out; and how many are left out because they straddle."""
    groups = same_side(table)
    generator = np.random.default_rng([seed, 0x5917])
    marked = table["split"].notna().to_numpy() if "split" in table else np.zeros(len(table), dtype=bool)
    straddling = 0
    if marked.any():
        parts = np.full(len(table), -1, dtype=np.int64)
        parts[marked] = named_parts(table.loc[marked, "split"], source)
        straddling = leave_out_straddling(parts, groups)
        add_val(parts, groups, table["age"].to_numpy(), val, generator)
    else:
        shares = np.array([(1 - test) * (1 - val), (1 - test) * val, test])
        parts = deal(groups, table["age"].to_numpy(), shares, generator)
    for number, part in enumerate(PARTS):
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
    return parts, straddling


def in_official_split(samples: Samples, column: str = "split") -> Samples:
    """`samples` less those that an official split says nothing of, which go to quarantine; all where it says nothing of any.

    One empty cell among thousands must neither undo what the others say nor be filled by chance.
    """
    if column not in samples.table or samples.table[column].isna().all():
        return samples
    return samples.without(samples.table[column].isna(), "in no part of the official split", RejectReason.NO_SPLIT)


def exact_copies(table: pd.DataFrame) -> int:
    """How many rows repeat the bytes or the pixels of an earlier row."""
    return int((table["bytes_digest"].duplicated() | table["pixels_digest"].duplicated()).sum())


def without_overlap(samples: Samples, seen: list[Samples]) -> tuple[Samples, int]:
    """`samples` less the images that also stand in `seen` (same bytes or pixels), which go to quarantine; and how many."""
    doubled = pd.Series(False, index=samples.table.index)
    for other in seen:
        for digest in ("bytes_digest", "pixels_digest"):
            doubled |= samples.table[digest].isin(other.table[digest])
    return samples.without(doubled, "also in the training set", RejectReason.IN_TRAINING_SET), int(doubled.sum())


def deal(groups: np.ndarray, ages: np.ndarray, shares: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """(N,) part 0, 1, … of each row: groups in order of mean age, each to the part that is furthest behind its share."""
    sizes = np.bincount(groups)
    mean_age = np.bincount(groups, weights=ages) / sizes
    order = np.lexsort((generator.random(len(sizes)), mean_age))
    # A random head start decides which part the first of each run of ages goes to.
    behind = generator.random(len(shares))
    behind[shares == 0] = -np.inf  # its head start would bring a part that is to get nothing its first group
    part_of = np.empty(len(sizes), dtype=np.int64)
    for group in order:
        behind += shares * sizes[group]
        part = int(behind.argmax())
        behind[part] -= sizes[group]
        part_of[group] = part
    assigned: np.ndarray = part_of[groups]
    return assigned


def named_parts(names: "pd.Series[str]", source: str) -> np.ndarray:
    """(N,) 0 train, 1 val, 2 test, from a column that says so in every row.

    Raises:
        UserError: it says something else.
    """
    unknown = sorted(set(names.astype("str")) - set(PARTS))
    if unknown:
        raise UserError(f"{source}: the official split says '{unknown[0]}'; it must say train, val or test")
    numbers = names.astype("str").map({part: number for number, part in enumerate(PARTS)})
    return numbers.to_numpy().astype(np.int64)


def leave_out_straddling(parts: np.ndarray, groups: np.ndarray) -> int:
    """Of a group that straddles, set the earlier parts' rows to -1 in place, so that the test stays whole; how many."""
    latest = np.full(groups.max() + 1, -1)
    np.maximum.at(latest, groups, parts)
    straddling = (parts >= 0) & (parts < latest[groups])
    parts[straddling] = -1
    return int(straddling.sum())


def add_val(
    parts: np.ndarray, groups: np.ndarray, ages: np.ndarray, val: float, generator: np.random.Generator
) -> None:
    """Where no row validates, move the share `val` of the training rows there, in place and by group."""
    if (parts == 1).any():
        return
    chosen = np.flatnonzero(parts == 0)
    if not len(chosen):
        return
    _, compact = np.unique(groups[chosen], return_inverse=True)
    dealt = deal(compact, ages[chosen], np.array([1 - val, val, 0.0]), generator)
    if not (dealt == 1).any() and compact.max() > 0:  # few groups, the share smaller than any of them
        dealt[compact == np.bincount(compact).argmin()] = 1
    parts[chosen] = dealt


def rows(samples: Samples, chosen: np.ndarray) -> Samples:
    """The rows where `chosen` holds; the quarantine stays with the whole."""
    return Samples(samples.table[chosen].reset_index(drop=True), samples.groups)
