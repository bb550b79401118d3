"""Evaluation protocols applied to a dataset: one or more folds."""

from pathlib import Path

import numpy as np
import pandas as pd

from agebench.config.cards.protocol import DEFAULT, Protocol
from agebench.data.digests import leakage_groups
from agebench.data.readers.patterns import to_text
from agebench.data.samples import Samples
from agebench.data.splits.folds import Folds
from agebench.data.splits.split_files import read_split_files
from agebench.data.splits.splits import (
    ASSIGNED,
    assign_splits,
    carve_out_val,
    drop_cross_split_duplicates,
    drop_unassigned,
    encode_split_names,
    id_order,
    stratified_group_assign,
)
from agebench.errors import UserError
from agebench.types import RejectReason, Split


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
    """Split a dataset as a protocol defines.

    The order of the samples does not matter.

    Args:
        protocol: a protocol of the dataset's card; None for the default, `agebench.data.splits.splits.make_split`.
        samples: samples with digests.
        test: share of the images for the test split, used if the protocol draws it and sets no share.
        val: share of the remaining images for the val split, used if the protocol draws it and sets no share.
        seed: seed of every random assignment.
        source: name of the dataset in error messages.
        root: the dataset's folder, which contains the split files that the protocol names.

    Raises:
        UserError: the protocol does not fit the samples: a column or an image is missing, a subject is unknown, or a
            split is empty.
    """
    if protocol is None:
        samples = drop_unassigned(samples)
        splits, n_removed, is_random = assign_splits(samples.table, test=test, val=val, seed=seed, source=source)
        return Folds(DEFAULT, samples, ("",), splits[None], n_removed, is_random)
    label = f"protocol '{protocol.name}' of '{source}'"
    samples = _drop_other_ages(protocol, samples, label)
    if protocol.kind == "official":
        samples = drop_unassigned(samples, protocol.column or "split")
    order = id_order(samples.table)
    ordered = Samples(samples.table.iloc[order].reset_index(drop=True), samples.groups, samples.rejected)
    table = ordered.table
    strict_groups = leakage_groups(table)
    groups = strict_groups if protocol.is_strict else np.arange(len(table))
    names, assignment = _assign_folds(protocol, ordered, groups, protocol.test_share or test, seed, label, root)
    n_removed, is_random = 0, protocol.kind == "holdout" or protocol.k is not None
    # A random val split never shares groups with train, even if the protocol allows the test split to.
    val_groups = groups if protocol.kind == "holdout" else strict_groups
    for fold, splits in enumerate(assignment):
        if protocol.is_strict:
            n_removed += drop_cross_split_duplicates(splits, groups)
        rng = np.random.default_rng([seed, 0x5917, fold])
        is_random |= carve_out_val(splits, val_groups, table["age"].to_numpy(), protocol.val_share or val, rng)
    folds = Folds(protocol.name, samples, names, assignment[:, np.argsort(order)], n_removed, is_random)
    _require_nonempty(folds, label)
    return folds


def _require_nonempty(folds: Folds, label: str) -> None:
    """Raise a UserError that names the first empty split.

    Args:
        folds: the folds to check.
        label: name of the protocol in the error message.
    """
    for split in ASSIGNED:
        empty_folds = np.flatnonzero(~(folds.assignment == split).any(axis=1))
        if len(empty_folds):
            name = folds.names[empty_folds[0]]
            suffix = f" in {len(empty_folds)} of {len(folds)} folds, the first is '{name}'" if name else ""
            raise UserError(
                f"{label}: nothing is left for {split.label}{suffix}; {len(folds.samples)} images, "
                f"{folds.samples.table['subject'].nunique()} known people"
            )


def _drop_other_ages(protocol: Protocol, samples: Samples, label: str) -> Samples:
    """Reject the samples outside the protocol's ages."""
    low, high = protocol.ages_from or 0.0, protocol.ages_below or float("inf")
    ages = samples.table["age"]
    end = f"{high:g})" if high < float("inf") else "…)"
    reasons = "age " + ages.map("{:g}".format).astype("str") + f" is outside the protocol's [{low:g}, {end}"
    remaining = samples.reject((ages < low) | (ages >= high), reasons, RejectReason.OUTSIDE_PROTOCOL)
    if not len(remaining):
        raise UserError(
            f"{label}: no image is within its ages [{low:g}, {end}; the dataset's are {ages.min():g} to {ages.max():g}"
        )
    return remaining


def _assign_folds(
    protocol: Protocol, samples: Samples, groups: np.ndarray, test: float, seed: int, label: str, root: Path | None
) -> tuple[tuple[str, ...], np.ndarray]:
    """Return fold names and the (folds, N) assignment before val is drawn from train."""
    table = samples.table
    if protocol.kind == "lists":
        return ("",), read_split_files(protocol, samples, label, root)[None]
    if protocol.kind == "official":
        return ("",), encode_split_names(_text_column(table, protocol.column or "split", label), label)[None]
    ages, rng = table["age"].to_numpy(), np.random.default_rng([seed, 0x5917])
    if protocol.kind == "holdout":
        is_test = stratified_group_assign(groups, ages, np.array([1 - test, test]), rng).astype(bool)
        return ("",), np.where(is_test, Split.TEST, Split.TRAIN)[None]
    if protocol.k:
        return _random_folds(protocol.k, groups, ages, rng, label)
    values = _text_column(table, protocol.column or "subject", label)
    if protocol.splits:
        mappings = [fold.parts() for fold in protocol.splits]
        assignment = np.stack(
            [values.map(mapping).fillna(Split.NONE).to_numpy().astype(np.int64) for mapping in mappings]
        )
        return tuple(str(number) for number in range(1, len(mappings) + 1)), assignment
    are_integers = values.str.fullmatch(r"\d{1,15}").all()
    categories = sorted(values.unique(), key=int if are_integers else str)
    codes = pd.Categorical(values, categories=categories).codes
    if len(categories) < len(ASSIGNED):
        raise UserError(
            f"{label}: its column '{values.name}' has {len(categories)} values; train, val and test need at least three"
        )
    is_test = codes == np.arange(len(categories))[:, None]
    return tuple(map(str, categories)), np.where(is_test, Split.TEST, Split.TRAIN)


def _random_folds(
    k: int, groups: np.ndarray, ages: np.ndarray, rng: np.random.Generator, label: str
) -> tuple[tuple[str, ...], np.ndarray]:
    """Draw k folds of whole groups; each fold is the test split once."""
    n_groups = len(np.unique(groups))
    if k > n_groups:
        raise UserError(
            f"{label}: {k} folds of {n_groups} groups of images (subjects, or images with their copies). Use a smaller k."
        )
    test_fold = stratified_group_assign(groups, ages, np.full(k, 1 / k), rng)
    is_test = test_fold == np.arange(k)[:, None]
    return tuple(str(number) for number in range(1, k + 1)), np.where(is_test, Split.TEST, Split.TRAIN)


def _text_column(table: pd.DataFrame, column: str, label: str) -> "pd.Series[str]":
    """Return a column as text.

    Raises:
        UserError: the column is missing, or has no value for an image.
    """
    available = ", ".join(name for name in table.columns if not name.endswith("_digest"))
    if column not in table or table[column].isna().all():
        raise UserError(f"{label}: the labels have no column '{column}'; there are: {available}")
    text = to_text(table[column])
    unknown = table.loc[text.isna(), "sample_id"]
    if len(unknown):
        raise UserError(f"{label}: {column} is unknown for {len(unknown)} images, the first is {unknown.iloc[0]}")
    return text
