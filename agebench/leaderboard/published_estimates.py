"""Estimates beside a record, by a pseudonym of each image: neither labels nor names that contain one are published."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pydantic import JsonValue

from agebench.config.cards.dataset import DatasetCard
from agebench.data.digests import add_digests
from agebench.data.samples import Samples, dataset_fingerprint
from agebench.data.storage.locate import locate, needs_files, open_dataset_reader
from agebench.errors import DatasetNotFoundError, UserError
from agebench.metrics.prediction_format import FOLD
from agebench.registry.builtin import heads, readers
from agebench.registry.catalog import Catalog
from agebench.utils.integrity import read_table
from agebench.utils.io import atomic_write
from agebench.utils.text import did_you_mean


def pseudonym_keys(table: pd.DataFrame) -> "np.ndarray[Any, np.dtype[np.uint64]]":
    """Return (n,) pseudonyms of audited samples, which only the owner of an image can compute.

    File names are unsuitable: those of UTKFace and FG-NET contain the age, and a hash of so few names is soon guessed.

    Args:
        table: audited samples, with `sample_id` and `bytes_digest`.
    """
    words = zip(table["sample_id"], table["bytes_digest"], strict=True)
    digests = (hashlib.sha256(f"{name}\n{image}".encode()).digest()[:8] for name, image in words)
    return np.array([int.from_bytes(digest, "little") for digest in digests], dtype=np.uint64)


def estimates_of(run: Path, test: str) -> pd.DataFrame | None:
    """Return a run's estimates without labels: key, age_pred and, where known, age_std and the fold, sorted by key.

    Args:
        run: the run's folder.
        test: name of the test set.

    Returns:
        The table; None for a run that did not keep its samples' digests.
    """
    # A run of several folds keeps all samples in one file.
    names = [f"samples/{test}-{part}.parquet" for part in ("test", "folds")]
    samples = next((read_table(run, name) for name in names if (run / name).exists()), None)
    if samples is None or "bytes_digest" not in samples:
        return None
    made = read_table(run, f"predictions/{test}.parquet")
    return pseudonymize(made, samples)


def pseudonymize(predictions: pd.DataFrame, samples: pd.DataFrame) -> pd.DataFrame:
    """Replace the names of predictions by pseudonyms, and drop their labels.

    Args:
        predictions: predictions of a test set.
        samples: its audited samples.
    """
    kept = ["sample_id", *(name for name in ("age_pred", "age_std", FOLD) if name in predictions)]
    table = predictions[kept].merge(samples[["sample_id", "bytes_digest"]], on="sample_id", validate="many_to_one")
    table.insert(0, "key", pseudonym_keys(table))
    for column in ("age_pred", "age_std"):
        # Networks answer in float32: half the size, and not one bit lost.
        if column in table and (table[column].astype(np.float32) == table[column]).all():
            table[column] = table[column].astype(np.float32)
    if FOLD in table:  # the folds' own order is kept by that of the categories
        table[FOLD] = pd.Categorical(table[FOLD], categories=table[FOLD].unique())
    by = ["key", FOLD] if FOLD in table else ["key"]
    return table.drop(columns=["sample_id", "bytes_digest"]).sort_values(by, ignore_index=True)


def estimates_digest(table: pd.DataFrame) -> str:
    """Compute the SHA-256 of keys and estimates, independent of the file format."""
    ordered = table.sort_values(["key", FOLD] if FOLD in table else ["key"])
    content = ordered["key"].to_numpy("<u8").tobytes() + ordered["age_pred"].to_numpy("<f8").tobytes()
    folds = "\n".join(ordered[FOLD].astype("str")) if FOLD in table else ""
    return hashlib.sha256(content + folds.encode()).hexdigest()


def write_estimates(path: Path, table: pd.DataFrame) -> None:
    """Write estimates as a compressed Parquet file."""
    with atomic_write(path) as temporary:
        table.to_parquet(temporary, index=False, compression="zstd")


def read_estimates(path: Path) -> pd.DataFrame:
    """Read the estimates that `write_estimates` wrote.

    Raises:
        UserError: it is damaged, or something else.
    """
    try:
        table = pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not a readable Parquet file: {error}") from error
    if not {"key", "age_pred"} <= set(table) or table["key"].dtype != np.uint64:
        raise UserError(f"{path}: holds no estimates: a column 'key' of uint64 and a column 'age_pred' are expected")
    if table.duplicated(["key", FOLD] if FOLD in table else ["key"]).any():
        raise UserError(f"{path}: an image is in it twice")
    if not np.isfinite(pd.to_numeric(table["age_pred"], errors="coerce")).all():
        raise UserError(f"{path}: an estimate is not a finite number")
    return table


class LocalDatasets:
    """The datasets of this machine, each read and audited once, on first use."""

    def __init__(self, catalogue: Catalog) -> None:
        self._cards = catalogue.datasets
        self._read: dict[str, Samples | None] = {}

    def samples(self, name: str) -> Samples | None:
        """Return the audited samples of a dataset; None without a card of that name or without data."""
        if name not in self._read:
            self._read[name] = None
            if name in self._cards.names():
                card = self._cards.get(name)
                try:
                    locate(card)
                    reader = open_dataset_reader(card)
                    self._read[name] = add_digests(reader, reader.read(), name=card.name)
                except DatasetNotFoundError:
                    pass
        return self._read[name]

    def has_public_estimates(self, name: str) -> bool:
        """Return whether the card of a dataset allows estimates to be published; false without a card of that name."""
        return name in self._cards.names() and self._cards.get(name).estimates_public

    def fingerprint(self, name: str) -> str | None:
        """Return the fingerprint of a dataset's samples; None without samples."""
        samples = self.samples(name)
        return None if samples is None else dataset_fingerprint(samples)

    def labeled_estimates(self, file: Path, name: str, fingerprint: str | None) -> pd.DataFrame | None:
        """Return the estimates of a record with the labels of the dataset.

        Args:
            file: the file of the estimates.
            name: the dataset.
            fingerprint: the dataset's fingerprint in the record.

        Returns:
            The predictions; None where the file or the dataset is missing, or where the dataset is another copy.
        """
        samples = self.samples(name) if file.exists() else None
        if samples is None or fingerprint != self.fingerprint(name):
            return None
        return join_labels(read_estimates(file), samples)

    def unknown(self, names: Iterable[str]) -> Iterator[str]:
        """Yield a sentence for each dataset that has no card here.

        Args:
            names: names of datasets.
        """
        for name in dict.fromkeys(names):
            if name not in self._cards.names():
                close = did_you_mean(name, self._cards.names())
                yield f"there is no dataset called '{name}'{close}; --registry DIR names a folder that has its card"


def join_labels(estimates: pd.DataFrame, samples: Samples) -> pd.DataFrame | None:
    """Join estimates with labels and groups, as a run has them: fold by fold, in the dataset's order.

    The order matters: resamples are drawn by row.

    Returns:
        The predictions; None where an image is missing.
    """
    table = samples.table.assign(key=pseudonym_keys(samples.table))
    given = [name for name in ("age_low", "age_high", "subject", *samples.groups) if name in table]
    labels = table[["key", "sample_id", "age", *dict.fromkeys(given)]]
    folds = estimates[FOLD].astype("category").cat.categories if FOLD in estimates else [None]
    parts = [estimates if fold is None else estimates[estimates[FOLD] == fold] for fold in folds]
    kept = pd.concat([labels.merge(part, on="key", validate="one_to_one") for part in parts], ignore_index=True)
    if len(kept) < len(estimates):
        return None
    if FOLD in kept:
        kept[FOLD] = kept[FOLD].astype("str")
    return kept.drop(columns="key").astype({"age_pred": np.float64})


def describe_dataset(card: DatasetCard) -> dict[str, JsonValue]:
    """Describe a dataset for a record: what decides a metric, its terms, and whether others can get the data."""
    kept = {"title", "reader", "options", "faces", "landmark_points", "count", "licence", "citation"}
    reachable = bool(card.url or card.homepage or card.how_to_get) or not needs_files(card)
    return card.model_dump(mode="json", include=kept) | {"public": reachable}


def plugins_of(head: str | None, described: Mapping[str, Mapping[str, JsonValue]]) -> dict[str, str]:
    """Describe third-party heads and readers for a record: their origin and their package's version."""
    asked = [(heads, head), *((readers, str(of["reader"])) for of in described.values())]
    found = {}
    for registry, name in asked:
        if name is None or name not in registry.names():
            continue
        origin = registry.origin(name)
        package = origin.rpartition(" of ")[2] if " of " in origin else ""
        if not origin.startswith("agebench."):
            found[f"{registry.kind} {name}"] = f"{origin} {version(package)}" if package else origin
    return found
