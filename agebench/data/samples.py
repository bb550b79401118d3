"""Samples: one row per image, the common representation of a dataset before its pixels are read."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import NamedTuple

import numpy as np
import pandas as pd

from agebench.errors import AgebenchError
from agebench.types import RejectReason

AGE_LIMITS = (0.0, 120.0)
COLUMNS = (
    "sample_id",
    "path",
    "age",
    "age_low",
    "age_high",
    "gender",
    "race",
    "subject",
    "split",
    "landmarks",
    "bbox",
    "body_path",
    "body_bbox",
)
# Column that identifies the photograph of a row's image, if several rows show parts of one photograph.
PHOTOGRAPH = "photograph"
# Positions within images; they are not labels, and are not stored with a run.
GEOMETRY_COLUMNS = ("landmarks", "bbox", "body_bbox", "body_path", "face_bbox", "body_masked")


# Columns of the table of rejected images: `code` is a RejectReason, `reason` a sentence with the image's own values.
QUARANTINE = ("sample_id", "path", "code", "reason")


class Rejected(NamedTuple):
    """One rejected image or row.

    Attributes:
        sample_id: id of the image, or its name in the source.
        path: path of the image, or its description in the source.
        code: the reason as a code, for counts.
        reason: the reason as a sentence with file and value.
    """

    sample_id: str
    path: str
    code: RejectReason
    reason: str


@dataclass(frozen=True)
class Samples:
    """Images and labels of a dataset, and its rejected images.

    Attributes:
        table: one row per image, with the columns in `COLUMNS` and group columns. `sample_id` is unique. `path` is relative
            to the dataset's root, with forward slashes. `age` is in years, as a float; `age_low` and `age_high` exist if
            the label is a range. `gender`, `race` and group columns are categories or NA. `landmarks` is a list of 2k
            floats (x0, y0, x1, y1, … pixels of the stored image), or None. `bbox` is a list of 4 (left, top, right, bottom),
            pixels. `body_bbox` has the same form for the whole person, in the image at `body_path`, or at `path` if there
            is no `body_path`. `face_bbox` is the annotated face in the whole image. `body_masked` lists the regions to
            blacken in the body (`agebench.data.faces.body_crops.Mask`).
        groups: columns of `table` for subgroup metrics.
        rejected: one row per rejected image, with the columns in `QUARANTINE`. No image is dropped without a row here. A
            table without `code`, as plugins for version 0.1 create it, gets the code `other`.
    """

    table: pd.DataFrame
    groups: tuple[str, ...] = ()
    rejected: pd.DataFrame = field(default_factory=lambda: rejected_rows([]))

    def __post_init__(self) -> None:
        if "code" not in self.rejected:
            table = self.rejected.assign(code=str(RejectReason.OTHER))
            object.__setattr__(self, "rejected", table.reindex(columns=list(QUARANTINE)))

    def __len__(self) -> int:
        return len(self.table)

    def reject(
        self,
        mask: "pd.Series[bool]",
        reason: "str | pd.Series[str]",
        code: "RejectReason | pd.Series[str]" = RejectReason.OTHER,
    ) -> "Samples":
        """Return these samples with some rows moved to the rejected ones.

        Args:
            mask: rows of `table` to reject.
            reason: sentence for all rejected rows, or one per row of `table`.
            code: code for all rejected rows, or one per row of `table`.
        """
        rows = self.table.loc[mask, ["sample_id", "path"]].assign(
            code=str(code) if isinstance(code, str) else code[mask],
            reason=reason if isinstance(reason, str) else reason[mask],
        )
        rejected = pd.concat([self.rejected, rows], ignore_index=True) if len(rows) else self.rejected
        return Samples(self.table[~mask].reset_index(drop=True), self.groups, rejected)


def validate_samples(
    table: pd.DataFrame, *, groups: Sequence[str] = (), rejected: pd.DataFrame | None = None, source: str = "samples"
) -> Samples:
    """Check and normalize a reader's table; reject rows with an age outside [0, 120].

    Args:
        table: one row per image; `sample_id`, `path`, `age` (years) and the group columns are required.
        groups: columns for subgroup metrics.
        rejected: rows that the reader rejected, with the columns in `QUARANTINE`.
        source: name of the table in error messages.

    Raises:
        AgebenchError: a column is missing, an age is NaN, or a sample_id is not unique. The message names the rows.
    """
    table = table.reset_index(drop=True)
    missing = [column for column in ("sample_id", "path", "age", *groups) if column not in table]
    if missing:
        raise AgebenchError(f"{source}: the reader gave no column {', '.join(missing)}")
    table = table.assign(
        sample_id=table["sample_id"].astype("str"), path=table["path"].astype("str"), age=table["age"].astype("float64")
    )
    ids_without_age = table.loc[table["age"].isna(), "sample_id"]
    if len(ids_without_age):
        raise AgebenchError(
            f"{source}: {len(ids_without_age)} samples have no age, the first is {ids_without_age.iloc[0]}"
        )
    repeated_ids = table.loc[table["sample_id"].duplicated(), "sample_id"]
    if len(repeated_ids):
        raise AgebenchError(f"{source}: sample_id '{repeated_ids.iloc[0]}' is repeated")
    for column in dict.fromkeys(["gender", "race", *groups]):
        table[column] = table[column].astype("category") if column in table else pd.Categorical([None] * len(table))
    if "subject" not in table:
        table["subject"] = pd.Series([None] * len(table), dtype="str")
    samples = Samples(table, tuple(groups), rejected if rejected is not None else rejected_rows([]))
    low, high = AGE_LIMITS
    is_outside = (table["age"] < low) | (table["age"] > high) | ~np.isfinite(table["age"])
    reasons = "age " + table["age"].map("{:g}".format).astype("str") + f" is outside [{low:g}, {high:g}]"
    return samples.reject(is_outside, reasons, RejectReason.AGE_OUT_OF_RANGE)


def rejected_rows(rows: Sequence[Rejected | tuple[str, str, str]]) -> pd.DataFrame:
    """Build the table of rejected images.

    Args:
        rows: one entry per image; (sample_id, path, reason) without a code gets the code `other`.
    """
    if not rows:
        return _no_rejected_rows().copy()
    complete_rows = [row if len(row) == len(QUARANTINE) else (*row[:2], RejectReason.OTHER, row[2]) for row in rows]
    return pd.DataFrame([tuple(map(str, row)) for row in complete_rows], columns=list(QUARANTINE)).astype("str")


@cache
def _no_rejected_rows() -> pd.DataFrame:
    """Build the empty table once: every part of a split has one, and building it takes a millisecond."""
    return pd.DataFrame([], columns=list(QUARANTINE)).astype("str")


def evenly_spaced(samples: Samples, limit: int | None) -> Samples:
    """Return at most `limit` of the samples, evenly spaced; all of them if `limit` is None."""
    if limit is None or limit >= len(samples):
        return samples
    rows = np.unique(np.linspace(0, len(samples) - 1, limit).astype(int))
    return Samples(samples.table.iloc[rows].reset_index(drop=True), samples.groups, samples.rejected)


def dataset_fingerprint(samples: Samples) -> str:
    """Return 16 hexadecimal digits that identify samples with digests.

    They change with any image or label, the card's own group columns included, and not with the order of the samples.
    """
    own_groups = [group for group in samples.groups if group not in COLUMNS]
    columns = [column for column in COLUMNS if column in samples.table and column not in (*GEOMETRY_COLUMNS, "path")]
    table = samples.table[[*columns, *own_groups, "bytes_digest"]].sort_values("sample_id")
    return hashlib.sha256(table.to_csv(index=False).encode()).hexdigest()[:16]
