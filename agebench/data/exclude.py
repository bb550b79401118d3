"""Lists of images that a person wants left out: CSV files of sample ids, such as an audit writes."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from agebench.data.samples import Samples
from agebench.errors import RejectReason, UserError


def without_excluded(
    samples: Mapping[str, Samples], files: Sequence[str]
) -> tuple[dict[str, Samples], dict[str, dict[str, Any]]]:
    """`samples` (dataset -> its samples) less what `files` name, which goes to quarantine with 'excluded by FILE'.

    A file has a column `sample_id`. Where it has a column `dataset` too, an id counts for that dataset only, and rows of
    datasets that are not here are passed over; else it counts for whichever dataset has it.

    Returns:
        The samples, and for each file: sha256, images (put aside because of it), unknown (ids that no sample has).

    Raises:
        UserError: a file that cannot be read, has no such column, is for other datasets altogether, or names no image that is here.
    """
    kept, found = dict(samples), {}
    for file in files:
        content, table = _read(Path(file))
        images, matched = 0, pd.Series(False, index=table.index)
        for name, part in samples.items():
            own = table["sample_id"] if "dataset" not in table else table.loc[table["dataset"] == name, "sample_id"]
            matched |= table.index.isin(own.index[own.isin(_all_ids(part))])
            drop = kept[name].table["sample_id"].isin(own)
            images += int(drop.sum())
            kept[name] = kept[name].without(drop, f"excluded by {Path(file).name}", RejectReason.EXCLUDED)
        _require_sense(file, table, samples, int(matched.sum()))
        here = table["dataset"].isin(list(samples)) if "dataset" in table else pd.Series(True, index=table.index)
        unknown = int((here & ~matched).sum())
        found[Path(file).name] = {"sha256": hashlib.sha256(content).hexdigest(), "images": images, "unknown": unknown}
    return kept, found


def _read(file: Path) -> tuple[bytes, pd.DataFrame]:
    try:
        content = file.read_bytes()
        table = pd.read_csv(file, dtype="str", keep_default_na=False).rename(columns=str.strip)
    except (OSError, ValueError) as error:  # pandas: a ValueError for whatever is no table
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise UserError(f"--exclude {file}: not a readable CSV file: {reason}") from error
    if "sample_id" not in table:
        there = ", ".join(map(repr, table.columns[:8]))
        raise UserError(
            f"--exclude {file}: it has no column 'sample_id' (there are {there}); name one image's id a line there"
        )
    return content, table.drop_duplicates()


def _require_sense(file: str, table: pd.DataFrame, samples: Mapping[str, Samples], matched: int) -> None:
    if not len(table) or matched:  # an audit that found nothing leaves an empty list
        return
    others = sorted(set(table.get("dataset", pd.Series(dtype="str"))) - set(samples))
    whose = f"it is for {', '.join(others[:3])}" if others else f"its first id is '{table['sample_id'].iloc[0]}'"
    raise UserError(
        f"--exclude {file}: none of its {len(table)} ids is in {', '.join(samples)}: {whose}. Is it the right file?"
    )


def _all_ids(samples: Samples) -> "pd.Series[str]":
    ids: pd.Series[str] = pd.concat([samples.table["sample_id"], samples.quarantined["sample_id"]])
    return ids
