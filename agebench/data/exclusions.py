"""Exclusion lists: CSV files of sample ids to leave out, as `agebench data audit` writes them."""

import hashlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypedDict

import pandas as pd

from agebench.data.samples import Samples
from agebench.errors import UserError
from agebench.types import RejectReason
from agebench.utils.io import csv_origin, read_limited

_MAX_BYTES = 256 << 20


class ExclusionEntry(TypedDict):
    """Manifest entry of an exclusion list.

    Attributes:
        sha256: digest of the file.
        images: number of images that it excluded.
    """

    sha256: str
    images: int


def drop_excluded(
    samples: Mapping[str, Samples], files: Sequence[str], *, complete: bool = True
) -> tuple[dict[str, Samples], dict[str, ExclusionEntry]]:
    """Reject the samples that exclusion lists name, with the reason 'excluded by FILE'.

    A list is a CSV file with a column `sample_id`. With a column `dataset`, an id applies to that dataset only, and rows of
    datasets that are not in `samples` are ignored; without it, an id applies to every dataset that contains it.

    Args:
        samples: dataset name -> its samples.
        files: paths of the lists.
        complete: whether `samples` has all datasets that the lists are for. If false, an id without a dataset may belong to
            another dataset.

    Returns:
        The remaining samples, and file name -> manifest entry.

    Raises:
        UserError: a file cannot be read, has no column `sample_id`, is for other datasets only, or names an unknown image;
            or two files have the same name.
    """
    remaining: dict[str, Samples] = dict(samples)
    entries: dict[str, ExclusionEntry] = {}
    for file in files:
        name = Path(file).name
        if name in entries:
            raise UserError(
                f"--exclude {file}: another list has the name {name} too, and records identify lists by name; rename one of the two"
            )
        content, table = _read(Path(file))
        ids_by_dataset = {dataset: _ids_for(dataset, known, table) for dataset, known in samples.items()}
        if complete or "dataset" in table:
            _require_known(file, table, samples, ids_by_dataset)
        n_excluded = 0
        for dataset, ids in ids_by_dataset.items():
            is_excluded = remaining[dataset].table["sample_id"].isin(ids)
            n_excluded += int(is_excluded.sum())
            remaining[dataset] = remaining[dataset].reject(is_excluded, f"excluded by {name}", RejectReason.EXCLUDED)
        entries[name] = {"sha256": hashlib.sha256(content).hexdigest(), "images": n_excluded}
    return remaining, entries


def _read(file: Path) -> tuple[bytes, pd.DataFrame]:
    try:
        content = read_limited(file, _MAX_BYTES)
        table = pd.read_csv(io.BytesIO(content), dtype="str", keep_default_na=False).rename(columns=str.strip)
    except (OSError, ValueError) as error:  # pandas raises a ValueError if the file is not a table
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise UserError(f"--exclude {file}: not a readable CSV file: {reason}") from error
    if "sample_id" not in table:
        columns = ", ".join(map(repr, table.columns[:8]))
        raise UserError(f"--exclude {file}: no column 'sample_id' (there are {columns}). Give one sample id per line.")
    return content, table.drop_duplicates()


def _ids_for(dataset: str, samples: Samples, table: pd.DataFrame) -> "pd.Series[str]":
    """Return the ids that a list has for a dataset; unknown ids are decoded as `csv_cell` encodes them."""
    ids = table["sample_id"] if "dataset" not in table else table.loc[table["dataset"] == dataset, "sample_id"]
    return ids.where(ids.isin(_all_ids(samples)), ids.map(csv_origin))


def _require_known(
    file: str, table: pd.DataFrame, samples: Mapping[str, Samples], ids_by_dataset: Mapping[str, "pd.Series[str]"]
) -> None:
    """Refuse a list that names unknown images: because of a typing error they would stay in unnoticed."""
    is_known = {dataset: ids.isin(_all_ids(samples[dataset])) for dataset, ids in ids_by_dataset.items()}
    if "dataset" not in table:
        is_known_anywhere = pd.concat(is_known.values(), axis=1).any(axis=1)
        missing = {", ".join(samples): table.loc[~is_known_anywhere, "sample_id"]}
        totals = {", ".join(samples): len(table)}
    else:
        missing = {dataset: ids[~is_known[dataset]] for dataset, ids in ids_by_dataset.items()}
        totals = {dataset: len(ids) for dataset, ids in ids_by_dataset.items()}
    problems = [
        f"{dataset} lacks {len(ids)} of its {totals[dataset]} ids, for example '{ids.iloc[0]}'"
        for dataset, ids in missing.items()
        if len(ids)
    ]
    if problems:
        raise UserError(
            f"--exclude {file}: {'; '.join(problems)}. A list names images by sample_id, as predictions and "
            "`agebench data audit` do; is it the right file?"
        )
    others = sorted(set(table.get("dataset", pd.Series(dtype="str"))) - set(samples))
    if others and not sum(totals.values()):
        raise UserError(
            f"--exclude {file}: none of its {len(table)} ids is for {', '.join(samples)}: it is for "
            f"{', '.join(others[:3])}. Is it the right file?"
        )


def _all_ids(samples: Samples) -> "pd.Series[str]":
    ids: pd.Series[str] = pd.concat([samples.table["sample_id"], samples.rejected["sample_id"]])
    return ids
