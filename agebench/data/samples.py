"""Samples: one row an image; the one shape in which data moves before pixels are read."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import pandas as pd

from agebench.errors import AgebenchError, RejectReason

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
# The photograph that a row's image is a part of, where several rows show parts of one.
PHOTOGRAPH = "photograph"
# Where things are in the pictures: neither labels nor flat, so not kept with a run.
GEOMETRY_COLUMNS = ("landmarks", "bbox", "body_bbox", "body_path", "face_bbox", "body_masked")


# Columns of the table of rejected images: `code` is a RejectReason, `reason` the sentence with the image's own values.
QUARANTINE = ("sample_id", "path", "code", "reason")


class Rejected(NamedTuple):
    """One rejected image or row.

    Attributes:
        sample_id: its id, or what the source calls it.
        path: its path, or what the source says of it.
        code: the reason, as it is counted.
        reason: the reason as a sentence, with the file, the value and the like.
    """

    sample_id: str
    path: str
    code: RejectReason
    reason: str


@dataclass(frozen=True)
class Samples:
    """A dataset's images and labels, and what had to be put aside.

    Attributes:
        table: one row an image, columns as in `COLUMNS` plus group columns. `sample_id` is unique; `path` is relative to
            the dataset's root, with forward slashes; `age` is float years; `age_low`/`age_high` are there where the label
            is a range; `gender`, `race` and further group columns are categories or NA; `landmarks` is a list of 2k
            floats (x0, y0, x1, y1, … pixels in the image as stored), or None; `bbox` a list of 4 (left, top, right, bottom);
            `body_bbox` likewise, the whole person, in the image at `path` or, where it is given, at `body_path`;
            `face_bbox` the face as annotated, in the whole image; `body_masked` what to blacken in the body
            (`agebench.data.faces.body_crops.Mask`).
        groups: the columns of `table` that fairness tables use.
        rejected: the columns `QUARANTINE`, one row an image that was put aside. Nothing is dropped silently. A table
            without `code`, as plugins for version 0.1 make it, gets the code `other`.
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
        drop: "pd.Series[bool]",
        reason: "str | pd.Series[str]",
        code: "RejectReason | pd.Series[str]" = RejectReason.OTHER,
    ) -> "Samples":
        """These samples less those where `drop` holds, which go to quarantine with `code` and `reason`."""
        dropped = self.table.loc[drop, ["sample_id", "path"]].assign(
            code=str(code) if isinstance(code, str) else code[drop],
            reason=reason if isinstance(reason, str) else reason[drop],
        )
        moved = pd.concat([self.rejected, dropped], ignore_index=True) if len(dropped) else self.rejected
        return Samples(self.table[~drop].reset_index(drop=True), self.groups, moved)


def validate_samples(
    table: pd.DataFrame, *, groups: Sequence[str] = (), quarantined: pd.DataFrame | None = None, source: str = "samples"
) -> Samples:
    """Check and normalise a reader's table; rows with an age outside [0, 120] go to quarantine.

    Raises:
        AgebenchError: a column is missing, an age is NaN, or a sample_id stands twice; the message names the rows.
    """
    table = table.reset_index(drop=True)
    wanted = ["sample_id", "path", "age", *groups]
    missing = [column for column in wanted if column not in table]
    if missing:
        raise AgebenchError(f"{source}: the reader gave no column {', '.join(missing)}")
    table = table.assign(
        sample_id=table["sample_id"].astype("str"), path=table["path"].astype("str"), age=table["age"].astype("float64")
    )
    unlabelled = table.loc[table["age"].isna(), "sample_id"]
    if len(unlabelled):
        raise AgebenchError(f"{source}: {len(unlabelled)} samples have no age, the first is {unlabelled.iloc[0]}")
    twice = table.loc[table["sample_id"].duplicated(), "sample_id"]
    if len(twice):
        raise AgebenchError(f"{source}: sample_id '{twice.iloc[0]}' stands twice")
    for column in dict.fromkeys(["gender", "race", *groups]):
        table[column] = table[column].astype("category") if column in table else pd.Categorical([None] * len(table))
    if "subject" not in table:
        table["subject"] = pd.Series([None] * len(table), dtype="str")
    samples = Samples(table, tuple(groups), quarantined if quarantined is not None else rejected_rows([]))
    low, high = AGE_LIMITS
    outside = (table["age"] < low) | (table["age"] > high) | ~np.isfinite(table["age"])
    reasons = "age " + table["age"].map("{:g}".format).astype("str") + f" is outside [{low:g}, {high:g}]"
    return samples.reject(outside, reasons, RejectReason.AGE_OUT_OF_RANGE)


def rejected_rows(rows: Sequence[Rejected | tuple[str, str, str]]) -> pd.DataFrame:
    """Build the table of rejected images; (sample_id, path, reason) without a code gets the code `other`."""
    full = [row if len(row) == len(QUARANTINE) else (*row[:2], RejectReason.OTHER, row[2]) for row in rows]
    return pd.DataFrame([tuple(map(str, row)) for row in full], columns=list(QUARANTINE)).astype("str")


def dataset_fingerprint(samples: Samples) -> str:
    """Sixteen hexadecimal digits that change when any image or label of these audited samples does."""
    columns = [column for column in COLUMNS if column in samples.table and column not in (*GEOMETRY_COLUMNS, "path")]
    table = samples.table[[*columns, "bytes_digest"]].sort_values("sample_id")
    return hashlib.sha256(table.to_csv(index=False).encode()).hexdigest()[:16]
