"""A dataset divided as a protocol says: one division or many, and what leaks across them."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from agebench.config.cards.protocol import DEFAULT, Protocol
from agebench.data.digests import leakage_groups
from agebench.data.readers.patterns import to_text
from agebench.data.samples import Samples
from agebench.data.splits.split_files import read_split_files
from agebench.data.splits.splits import (
    SPLITS,
    Part,
    Split,
    assign_splits,
    carve_out_val,
    count_exact_duplicates,
    drop_cross_split_duplicates,
    drop_unassigned,
    encode_split_names,
    select,
    stratified_group_assign,
)
from agebench.errors import RejectReason, UserError


@dataclass(frozen=True)
class Folds:
    """The divisions of one dataset by one protocol.

    Attributes:
        protocol: its name.
        samples: what the protocol uses; what its ages or an official split leave out is in `samples.quarantined`.
        names: of the folds, in their order; one of no name where the dataset is divided once.
        parts: (folds, N) values of `Part`, for the rows of `samples`.
        straddling: images left out of earlier parts because their double stands in a later one, over all folds.
        drawn: whether any part was drawn at random, by `agebench.data.splits.splits.SPLIT_SCHEME`.
    """

    protocol: str
    samples: Samples
    names: tuple[str, ...]
    assignment: np.ndarray
    n_cross_split_removed: int = 0
    drawn: bool = False

    def __len__(self) -> int:
        return len(self.names)

    def split(self, fold: int) -> Split:
        """The samples of one fold."""
        chosen = {part: select(self.samples, self.assignment[fold] == number) for number, part in enumerate(SPLITS)}
        return Split(
            **chosen, duplicates=count_exact_duplicates(self.samples.table), straddling=self.n_cross_split_removed
        )

    def keep(self, samples: Samples) -> "Folds":
        """With only those rows that `samples`, a part of this one's, still has."""
        stays = self.samples.table["sample_id"].isin(samples.table["sample_id"]).to_numpy()
        return replace(self, samples=samples, assignment=self.assignment[:, stays])

    def to_frame(self) -> pd.DataFrame:
        """One row an image and one column a fold: train, val, test, or NA where the image is in no part."""
        columns = [f"fold {name}" if name else "part" for name in self.names]
        kind = pd.CategoricalDtype(list(SPLITS))
        words = [pd.Categorical.from_codes(list(parts), dtype=kind) for parts in self.assignment]
        return pd.DataFrame(dict(zip(columns, words, strict=True)))

    def train_val_samples(self) -> Samples:
        """Every image that trains or validates in any fold."""
        return select(self.samples, ((self.assignment == Part.TRAIN) | (self.assignment == Part.VAL)).any(axis=0))

    def count_leaks(self) -> dict[str, int]:
        """What stands on both sides, by digests and identities, whatever the protocol says.

        `duplicates`: test images that also stand in the train or val of their fold (same bytes or pixels), each counted
        once; `subjects`: people of whom images stand on both sides.
        """
        table = self.samples.table
        copies, people = np.zeros(len(table), dtype=bool), np.zeros(len(table), dtype=bool)
        keys = {column: pd.factorize(table[column])[0] for column in ("bytes_digest", "pixels_digest", "subject")}
        for parts in self.assignment:
            seen, tested = (parts == Part.TRAIN) | (parts == Part.VAL), parts == Part.TEST
            for column, codes in keys.items():
                there = np.zeros(codes.max(initial=-1) + 2, dtype=bool)  # the last place is NA's, code -1
                there[codes[seen]] = True
                there[-1] = False
                found = tested & there[codes]
                if column == "subject":
                    people |= found
                else:
                    copies |= found
        return {"duplicates": int(copies.sum()), "subjects": int(table["subject"][people].nunique())}


def make_folds(
    protocol: Protocol | None,
    samples: Samples,
    *,
    test: float,
    val: float,
    seed: int,
    source: str = "dataset",
    root: Path | None = None,
) -> Folds:
    """Divide audited samples.

    Args:
        protocol: of the dataset's card; None: the default one, see `agebench.data.splits.splits.make_split`.
        samples: with digests.
        test: share of the test where the protocol draws one and names no share.
        val: share of what is left, for validation, likewise.
        seed: of every draw.
        source: the dataset's name, for messages.
        root: the dataset's folder, in which list files are looked for.

    Raises:
        UserError: the protocol does not fit the samples: a column, an image or a person is lacking, or a part stays empty.
    """
    if protocol is None:
        samples = drop_unassigned(samples)
        parts, straddling, drawn = assign_splits(samples.table, test=test, val=val, seed=seed, source=source)
        return Folds(DEFAULT, samples, ("",), parts[None], straddling, drawn)
    label = f"protocol '{protocol.name}' of '{source}'"
    samples = _of_age(protocol, samples, label)
    if protocol.kind == "official":
        samples = drop_unassigned(samples, protocol.column or "split")
    table = samples.table
    groups = leakage_groups(table) if protocol.is_strict else np.arange(len(table))
    names, parts = _divide(protocol, samples, groups, protocol.test_share or test, seed, label, root)
    straddling, drawn = 0, protocol.kind == "holdout" or protocol.k is not None
    own = leakage_groups(
        table
    )  # a drawn val is never next to its training images, whatever the protocol says of the test
    for number, one in enumerate(parts):
        if protocol.is_strict:
            straddling += drop_cross_split_duplicates(one, groups)
        generator = np.random.default_rng([seed, 0x5917, number])
        together = groups if protocol.kind == "holdout" else own
        drawn |= carve_out_val(one, together, table["age"].to_numpy(), protocol.val_share or val, generator)
    folds = Folds(protocol.name, samples, names, parts, straddling, drawn)
    require_nonempty(folds, label)
    return folds


def require_nonempty(folds: Folds, label: str) -> None:
    """Raise a UserError that names the first part that is empty."""
    for number, part in enumerate(SPLITS):
        empty = np.flatnonzero(~(folds.assignment == number).any(axis=1))
        if len(empty):
            name = folds.names[empty[0]]
            where = f" in fold '{name}' ({len(empty)} of {len(folds)} folds are like that)" if name else ""
            raise UserError(
                f"{label}: nothing is left for {part}{where}; {len(folds.samples)} images, "
                f"{folds.samples.table['subject'].nunique()} known people"
            )


def _of_age(protocol: Protocol, samples: Samples, label: str) -> Samples:
    low, high = protocol.ages_from or 0.0, protocol.ages_below or float("inf")
    ages = samples.table["age"]
    end = f"{high:g})" if high < float("inf") else "…)"
    reason = "age " + ages.map("{:g}".format).astype("str") + f" is outside the protocol's [{low:g}, {end}"
    kept = samples.reject((ages < low) | (ages >= high), reason, RejectReason.OUTSIDE_PROTOCOL)
    if not len(kept):
        raise UserError(
            f"{label}: no image is within its ages [{low:g}, {end}; the dataset's are {ages.min():g} to {ages.max():g}"
        )
    return kept


def _divide(
    protocol: Protocol, samples: Samples, groups: np.ndarray, test: float, seed: int, label: str, root: Path | None
) -> tuple[tuple[str, ...], np.ndarray]:
    """Names and (folds, N) parts, as the protocol itself says: what it leaves to validation by chance is still train."""
    table = samples.table
    if protocol.kind == "lists":
        return ("",), read_split_files(protocol, samples, label, root)[None]
    if protocol.kind == "official":
        return ("",), encode_split_names(_column(table, protocol.column or "split", label), label)[None]
    ages, generator = table["age"].to_numpy(), np.random.default_rng([seed, 0x5917])
    if protocol.kind == "holdout":
        return ("",), (Part.TEST * stratified_group_assign(groups, ages, np.array([1 - test, test]), generator))[None]
    if protocol.k:
        return _drawn(protocol.k, groups, ages, generator, label)
    values = _column(table, protocol.column or "subject", label)
    if protocol.splits:
        maps = [rotation.parts() for rotation in protocol.splits]
        parts = np.stack([values.map(of).fillna(Part.NONE).to_numpy().astype(np.int64) for of in maps])
        return tuple(str(number + 1) for number in range(len(maps))), parts
    numbers = values.str.fullmatch(r"\d{1,15}").all()
    found = sorted(values.unique(), key=int if numbers else str)
    codes = pd.Categorical(values, categories=found).codes
    if len(found) < 3:
        raise UserError(
            f"{label}: its column '{values.name}' has {len(found)} values; train, val and test need three at least"
        )
    return tuple(map(str, found)), np.where(codes == np.arange(len(found))[:, None], Part.TEST, Part.TRAIN)


def _drawn(
    k: int, groups: np.ndarray, ages: np.ndarray, generator: np.random.Generator, label: str
) -> tuple[tuple[str, ...], np.ndarray]:
    count = len(np.unique(groups))
    if k > count:
        raise UserError(
            f"{label}: {k} folds of {count} groups of images (subjects, or images without their copies); give a smaller k"
        )
    member = stratified_group_assign(groups, ages, np.full(k, 1 / k), generator)
    parts = np.where(member == np.arange(k)[:, None], Part.TEST, Part.TRAIN)
    return tuple(str(number + 1) for number in range(k)), parts


def _column(table: pd.DataFrame, column: str, label: str) -> "pd.Series[str]":
    """A column as text.

    Raises:
        UserError: it is not there, or does not say something of every image.
    """
    known = ", ".join(name for name in table.columns if not name.endswith("_digest"))
    if column not in table or table[column].isna().all():
        raise UserError(f"{label}: the labels have no column '{column}'; there are: {known}")
    text = to_text(table[column])
    unknown = table.loc[text.isna(), "sample_id"]
    if len(unknown):
        raise UserError(f"{label}: {column} is unknown for {len(unknown)} images, the first is {unknown.iloc[0]}")
    return text
