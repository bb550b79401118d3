"""Lists of images that a person wants left out: CSV files of sample ids, such as an audit writes."""

import hashlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from agebench.data.samples import Samples
from agebench.errors import RejectReason, UserError
from agebench.utils.io import csv_origin, read_limited

_LARGEST = 256 << 20  # bytes


def drop_excluded(
    samples: Mapping[str, Samples], files: Sequence[str], *, complete: bool = True
) -> tuple[dict[str, Samples], dict[str, dict[str, Any]]]:
    """`samples` (dataset -> its samples) less what `files` name, which goes to quarantine with 'excluded by FILE'.

    A file has a column `sample_id`. Where it has a column `dataset` too, an id counts for that dataset only, and rows of
    datasets that are not here are passed over; else it counts for whichever dataset has it.

    Args:
        samples: dataset -> its samples.
        files: the lists.
        complete: whether the lists are for no other datasets; if not, an id without a dataset may be of one of these.

    Returns:
        The samples, and for each file: sha256, and images (put aside because of it).

    Raises:
        UserError: a file that cannot be read, has no such column, is for other datasets altogether, or names an image that is
            not here; or two files of one name.
    """
    kept, found = dict(samples), {}
    for file in files:
        name = Path(file).name
        if name in found:
            raise UserError(
                f"--exclude {file}: another list is called {name} too, and records tell lists by name; rename one"
            )
        content, table = _read(Path(file))
        ids = {dataset: _ids_for(dataset, part, table) for dataset, part in samples.items()}
        if complete or "dataset" in table:
            _require_known(file, table, samples, ids)
        images = 0
        for dataset, own in ids.items():
            drop = kept[dataset].table["sample_id"].isin(own)
            images += int(drop.sum())
            kept[dataset] = kept[dataset].reject(drop, f"excluded by {name}", RejectReason.EXCLUDED)
        found[name] = {"sha256": hashlib.sha256(content).hexdigest(), "images": images}
    return kept, found


def _read(file: Path) -> tuple[bytes, pd.DataFrame]:
    try:
        content = read_limited(file, _LARGEST)
        table = pd.read_csv(io.BytesIO(content), dtype="str", keep_default_na=False).rename(columns=str.strip)
    except (OSError, ValueError) as error:  # pandas: a ValueError for whatever is no table
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise UserError(f"--exclude {file}: not a readable CSV file: {reason}") from error
    if "sample_id" not in table:
        there = ", ".join(map(repr, table.columns[:8]))
        raise UserError(
            f"--exclude {file}: it has no column 'sample_id' (there are {there}); name one image's id a line there"
        )
    return content, table.drop_duplicates()


def _ids_for(dataset: str, samples: Samples, table: pd.DataFrame) -> "pd.Series[str]":
    """The ids that a list has for a dataset; those that it does not have were written as `csv_cell` writes them."""
    own = table["sample_id"] if "dataset" not in table else table.loc[table["dataset"] == dataset, "sample_id"]
    return own.where(own.isin(_all_ids(samples)), own.map(csv_origin))


def _require_known(
    file: str, table: pd.DataFrame, samples: Mapping[str, Samples], ids: Mapping[str, "pd.Series[str]"]
) -> None:
    """Refuse a list that names images which are not here: a typing error would leave them in unseen."""
    known = {dataset: own.isin(_all_ids(samples[dataset])) for dataset, own in ids.items()}
    if "dataset" not in table:
        anywhere = pd.concat(known.values(), axis=1).any(axis=1)
        missing = {", ".join(samples): table.loc[~anywhere, "sample_id"]}
        total = {", ".join(samples): len(table)}
    else:
        missing = {dataset: own[~known[dataset]] for dataset, own in ids.items()}
        total = {dataset: len(own) for dataset, own in ids.items()}
    lacking = [
        f"{dataset} lacks {len(absent)} of its {total[dataset]} ids, for example '{absent.iloc[0]}'"
        for dataset, absent in missing.items()
        if len(absent)
    ]
    if lacking:
        raise UserError(
            f"--exclude {file}: {'; '.join(lacking)}. A list names images by sample_id, as predictions and "
            "`agebench data audit` do; is it the right file?"
        )
    others = sorted(set(table.get("dataset", pd.Series(dtype="str"))) - set(samples))
    if others and not sum(total.values()):
        raise UserError(
            f"--exclude {file}: none of its {len(table)} ids is for {', '.join(samples)}: it is for {', '.join(others[:3])}. "
            "Is it the right file?"
        )


def _all_ids(samples: Samples) -> "pd.Series[str]":
    ids: pd.Series[str] = pd.concat([samples.table["sample_id"], samples.rejected["sample_id"]])
    return ids
