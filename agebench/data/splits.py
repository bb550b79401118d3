"""Who trains, who validates, who tests: without leakage."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from agebench.data.audit import same_side
from agebench.data.samples import Samples
from agebench.errors import UserError

PARTS = ("train", "val", "test")


@dataclass(frozen=True)
class Split:
    """Three disjoint parts of one dataset, and what was kept out of them.

    Attributes:
        train, val, test: samples; no two parts share an image (bytes or pixels) or a subject.
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
    out of train.

    Raises:
        UserError: too few groups to fill three parts.
    """
    table = samples.table
    groups = same_side(table)
    generator = np.random.default_rng([seed, 0x5917])
    official = table["split"] if "split" in table else pd.Series([None] * len(table))
    if official.notna().all() and len(table):
        parts, straddling = _official(official.astype("str"), groups, table["age"], val, generator, source)
    else:
        shares = np.array([(1 - test) * (1 - val), (1 - test) * val, test])
        parts, straddling = _draw(groups, table["age"].to_numpy(), shares, generator), 0
    chosen = {part: _rows(samples, parts == number) for number, part in enumerate(PARTS)}
    for part, members in chosen.items():
        if not len(members):
            raise UserError(
                f"{source}: {len(np.unique(groups))} groups of images (subjects, or images without their copies) are too few to "
                f"fill train, val and test: nothing is left for {part}. Give more images, or other shares with "
                "--set data.test_share=…"
            )
    return Split(**chosen, duplicates=exact_copies(table), straddling=straddling)


def exact_copies(table: pd.DataFrame) -> int:
    """How many rows repeat the bytes or the pixels of an earlier row."""
    return int((table["bytes_digest"].duplicated() | table["pixels_digest"].duplicated()).sum())


def without_overlap(samples: Samples, seen: list[Samples]) -> tuple[Samples, int]:
    """`samples` less the images that also stand in `seen` (same bytes or pixels), which go to quarantine; and how many."""
    doubled = pd.Series(False, index=samples.table.index)
    for other in seen:
        for digest in ("bytes_digest", "pixels_digest"):
            doubled |= samples.table[digest].isin(other.table[digest])
    return samples.without(doubled, "also in the training set"), int(doubled.sum())


def _draw(groups: np.ndarray, ages: np.ndarray, shares: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """(N,) 0 train, 1 val, 2 test: groups in order of mean age, each to the part that is furthest behind its share."""
    sizes = np.bincount(groups)
    mean_age = np.bincount(groups, weights=ages) / sizes
    order = np.lexsort((generator.random(len(sizes)), mean_age))
    # A random head start decides which part the first of each run of ages goes to.
    behind = generator.random(3)
    part_of = np.empty(len(sizes), dtype=np.int64)
    for group in order:
        behind += shares * sizes[group]
        part = int(behind.argmax())
        behind[part] -= sizes[group]
        part_of[group] = part
    assigned: np.ndarray = part_of[groups]
    return assigned


def _official(
    official: pd.Series, groups: np.ndarray, ages: pd.Series, val: float, generator: np.random.Generator, source: str
) -> tuple[np.ndarray, int]:
    """The source's own parts; of a group that straddles, the earlier part's rows are left out (-1): the test stays whole."""
    unknown = sorted(set(official) - set(PARTS))
    if unknown:
        raise UserError(f"{source}: the official split says '{unknown[0]}'; it must say train, val or test")
    parts = official.map({part: number for number, part in enumerate(PARTS)}).to_numpy().astype(np.int64)
    latest = np.full(groups.max() + 1, -1)
    np.maximum.at(latest, groups, parts)
    straddling = parts < latest[groups]
    parts[straddling] = -1
    if not (parts == 1).any():
        rows = np.flatnonzero(parts == 0)
        _, compact = np.unique(groups[rows], return_inverse=True)
        parts[rows] = _draw(compact, ages.to_numpy()[rows], np.array([1 - val, val, 0.0]), generator)
    return parts, int(straddling.sum())


def _rows(samples: Samples, chosen: np.ndarray) -> Samples:
    return Samples(samples.table[chosen].reset_index(drop=True), samples.groups)  # quarantine stays with the whole
