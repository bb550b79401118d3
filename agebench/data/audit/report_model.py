"""Result of an audit, and the exclusion lists derived from it."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

# Columns that name the two images of a pair.
PAIR = ("dataset", "sample_id", "other_dataset", "other_id")


@dataclass(frozen=True)
class AuditResult:
    """Findings of an audit, one table per kind.

    Every row names its images by dataset and sample_id.

    Attributes:
        name: name of the audited dataset.
        against: names of the datasets that it was compared with.
        images: number of readable images in the audited dataset.
        rejected: rejected images of the audited dataset, as `Samples.rejected`.
        copies: pairs with the same bytes or pixels; `same` is `bytes` or `pixels`.
        near_duplicates: pairs that differ only in encoding, size, mirroring or a crop, with `likeness` (correlation of fine
            detail, at most 1) and `mirrored`.
        label_conflicts: pairs of either kind with different labels: `label`, `value`, `other_value`, `difference` (years,
            for ages).
        implausible_ages: images with an implausible age, and the reason.
        quality: images in which a face is hard to see: `problem`, `value`.
        subjects: subjects with contradictory labels or splits.
        n_examined: number of images in which a detector searched for faces.
    """

    name: str
    against: tuple[str, ...]
    images: int
    rejected: pd.DataFrame
    copies: pd.DataFrame
    near_duplicates: pd.DataFrame
    label_conflicts: pd.DataFrame
    implausible_ages: pd.DataFrame
    quality: pd.DataFrame
    subjects: pd.DataFrame
    n_examined: int = 0

    def exclusions(self) -> dict[str, pd.DataFrame]:
        """Propose lists for `agebench run --exclude`.

        Returns:
            File name without its ending -> table with dataset, sample_id and reason. `copies`: all but the first image of
            each set of copies. `conflicts`: every image of which a copy has another age. `against`: images that are also
            in another dataset. `ages`: implausible ages. `quality`: images in which a face is hard to see, except gray ones.
        """
        pairs = pd.concat([self.copies[[*PAIR]], self.near_duplicates[[*PAIR]]])
        is_own = pairs["dataset"] == self.name
        internal = pairs[is_own & (pairs["other_dataset"] == self.name)]
        external = pairs[is_own & (pairs["other_dataset"] != self.name)]
        also_in = list(zip(external["sample_id"], external["other_dataset"], strict=True))
        # `copies` pairs an image of another dataset with the first of its copies only; the others are in that dataset too.
        exact = self.copies[(self.copies["dataset"] == self.name) & (self.copies["other_dataset"] == self.name)]
        first_copies = _first_copies(exact)
        dataset_by_first = {first_copies.get(sample_id, sample_id): dataset for sample_id, dataset in reversed(also_in)}
        also_in += [
            (copy, dataset_by_first[first]) for copy, first in first_copies.items() if first in dataset_by_first
        ]
        conflicts = self.label_conflicts
        age_conflicts = conflicts[(conflicts["label"] == "age") & (conflicts["other_dataset"] == self.name)]
        conflicting_ids = pd.concat([age_conflicts["sample_id"], age_conflicts["other_id"]]).drop_duplicates()
        unusable = self.quality[self.quality["problem"] != "grey"]
        rows_by_kind = {
            "copies": [
                (copy, f"a copy of {first}") for copy, first in _first_copies(internal).items() if copy != first
            ],
            "conflicts": [(sample_id, "a copy of it has another age") for sample_id in conflicting_ids],
            "against": [(sample_id, f"also in {dataset}") for sample_id, dataset in also_in],
            "ages": list(zip(self.implausible_ages["sample_id"], self.implausible_ages["reason"], strict=True)),
            "quality": list(zip(unusable["sample_id"], unusable["problem"], strict=True)),
        }
        tables = {}
        for kind, rows in rows_by_kind.items():
            table = pd.DataFrame(rows, columns=["sample_id", "reason"]).drop_duplicates("sample_id")
            table.insert(0, "dataset", self.name)
            tables[kind] = table
        return tables


def name_pairs(table: pd.DataFrame, pairs: pd.DataFrame) -> pd.DataFrame:
    """Replace the row numbers of pairs by the names of dataset and image.

    Args:
        table: the images, with `dataset` and `sample_id`.
        pairs: `first` and `second` (rows of `table`), and further columns.

    Returns:
        The columns of `PAIR` and the further columns of `pairs`.
    """
    first, second = (table.iloc[pairs[side]].reset_index(drop=True) for side in ("first", "second"))
    names = pd.DataFrame(
        dict(zip(PAIR, (first["dataset"], first["sample_id"], second["dataset"], second["sample_id"]), strict=True))
    )
    return pd.concat([names, pairs.drop(columns=["first", "second"]).reset_index(drop=True)], axis=1)


def _first_copies(pairs: pd.DataFrame) -> dict[str, str]:
    """Map each sample_id to the first of its direct and indirect copies."""
    ids = pd.unique(pd.concat([pairs["sample_id"], pairs["other_id"]]))
    index = {sample_id: i for i, sample_id in enumerate(ids)}
    edges = (np.ones(len(pairs)), (pairs["sample_id"].map(index).to_numpy(), pairs["other_id"].map(index).to_numpy()))
    _, components = connected_components(coo_array(edges, shape=(len(ids), len(ids))), directed=False)
    return {sample_id: min(members) for members in _members(ids, components) for sample_id in members}


def _members(ids: np.ndarray, components: np.ndarray) -> Iterator[list[str]]:
    order = np.argsort(components, kind="stable")
    for _, indices in itertools.groupby(order, key=lambda i: components[i]):
        yield [str(ids[i]) for i in indices]
