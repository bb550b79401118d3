"""The folds of a dataset: which image is in which split, and leakage counts across the splits."""

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from agebench.data.samples import Samples
from agebench.data.splits.splits import ASSIGNED, SPLITS, DatasetSplits, count_exact_duplicates, select
from agebench.types import Split


@dataclass(frozen=True)
class Folds:
    """The folds of one dataset by one protocol.

    Attributes:
        protocol: name of the protocol.
        samples: the samples that the protocol uses. `samples.rejected` has those outside its ages or its official split.
        names: names of the folds, in order; one empty name for a dataset that is split once.
        assignment: (folds, N) values of `Split` for the rows of `samples`.
        n_cross_split_removed: images left out of an earlier split because a duplicate or an image of the subject is in a
            later one, summed over all folds.
        is_random: whether any split was drawn at random, by `agebench.data.splits.splits.SPLIT_SCHEME`.
    """

    protocol: str
    samples: Samples
    names: tuple[str, ...]
    assignment: np.ndarray
    n_cross_split_removed: int = 0
    is_random: bool = False

    def __len__(self) -> int:
        return len(self.names)

    def split(self, fold: int) -> DatasetSplits:
        """Return the samples of each split of one fold, by the fold's index."""
        train, val, test = (select(self.samples, self.assignment[fold] == split) for split in ASSIGNED)
        n_duplicates = count_exact_duplicates(self.samples.table)
        return DatasetSplits(train, val, test, n_duplicates, self.n_cross_split_removed)

    def keep(self, samples: Samples) -> "Folds":
        """Return these folds restricted to a subset of their samples."""
        is_kept = self.samples.table["sample_id"].isin(samples.table["sample_id"]).to_numpy()
        return replace(self, samples=samples, assignment=self.assignment[:, is_kept])

    def to_frame(self) -> pd.DataFrame:
        """Return the split names, one row per image and one column per fold.

        The names are train, val and test; NA for an image in no split.
        """
        columns = [f"fold {name}" if name else "part" for name in self.names]
        dtype = pd.CategoricalDtype(list(SPLITS))
        names = [pd.Categorical.from_codes(list(splits), dtype=dtype) for splits in self.assignment]
        return pd.DataFrame(dict(zip(columns, names, strict=True)))

    def train_val_samples(self) -> Samples:
        """Return the images that are in train or val of any fold."""
        is_used = (self.assignment == Split.TRAIN) | (self.assignment == Split.VAL)
        return select(self.samples, is_used.any(axis=0))

    def count_leaks(self) -> dict[str, int]:
        """Count duplicates and subjects on both sides of the test split.

        The counts are independent of the protocol.

        Returns:
            `duplicates`: test images that are also in train or val of their fold (same bytes or pixels), each counted
            once. `subjects`: people with images on both sides.
        """
        table = self.samples.table
        is_duplicate, shares_subject = np.zeros(len(table), dtype=bool), np.zeros(len(table), dtype=bool)
        keys = {column: pd.factorize(table[column])[0] for column in ("bytes_digest", "pixels_digest", "subject")}
        for splits in self.assignment:
            train_mask, test_mask = np.isin(splits, (Split.TRAIN, Split.VAL)), splits == Split.TEST
            for column, codes in keys.items():
                in_train = np.zeros(codes.max(initial=-1) + 2, dtype=bool)  # the last element is for NA, code -1
                in_train[codes[train_mask]] = True
                in_train[-1] = False
                is_leak = test_mask & in_train[codes]
                if column == "subject":
                    shares_subject |= is_leak
                else:
                    is_duplicate |= is_leak
        return {"duplicates": int(is_duplicate.sum()), "subjects": int(table["subject"][shares_subject].nunique())}
