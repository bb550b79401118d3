"""Protocols: how a dataset is split into training, validation and test, as its card specifies."""

from collections import Counter
from pathlib import PurePosixPath
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from agebench.types import Split

NAME = r"^[a-z0-9][a-z0-9._-]{0,99}$"  # names become parts of paths, of which a component has at most 255 bytes
DEFAULT = "default"
Part = Literal["train", "val", "test"]

# Kind -> its options; `ages_from`, `ages_below`, `strict` and `val_share` apply to all kinds.
_OPTIONS: dict[str, set[str]] = {
    "holdout": {"test_share"},
    "official": {"column"},
    "folds": {"column", "k", "splits"},
    "leave-one-subject-out": {"column"},
    "lists": {"files", "column"},
}


class FoldAssignment(BaseModel):
    """One fold: which values of a column are in which split."""

    model_config = ConfigDict(extra="forbid", frozen=True, coerce_numbers_to_str=True)

    train: tuple[str, ...] = Field(min_length=1, description="values of the column that are trained on")
    val: tuple[str, ...] = Field(default=(), description="values for validation; empty: drawn from train")
    test: tuple[str, ...] = Field(min_length=1, description="values that are tested on")

    @model_validator(mode="after")
    def _apart(self) -> "FoldAssignment":
        values = Counter([*self.train, *self.val, *self.test])
        duplicates = [value for value, count in values.items() if count > 1]
        if duplicates:
            raise ValueError(f"'{duplicates[0]}' is in two splits")
        return self

    def parts(self) -> dict[str, int]:
        """Map each value of the column to its split, a value of `agebench.types.Split`."""
        splits = ((Split.TRAIN, self.train), (Split.VAL, self.val), (Split.TEST, self.test))
        return {value: split for split, values in splits for value in values}


class Protocol(BaseModel):
    """A named split of a dataset; `agebench run --protocol NAME` selects it."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    name: str = Field(pattern=NAME, description="the name for `--protocol`")
    kind: Literal["holdout", "official", "folds", "leave-one-subject-out", "lists"] = Field(
        description="holdout: a random share; official: a column; folds: cross-validation; lists: files of image names"
    )
    description: str = Field(default="", description="a sentence for reports")
    citation: str = Field(default="", description="the paper that defines it")
    test_share: float | None = Field(
        default=None, gt=0, lt=1, description="of holdout; unset: the run's data.test_share"
    )
    val_share: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="of the images that are not tested, where no split is named val; unset: the run's data.val_share",
    )
    column: str = Field(
        default="",
        description="official: contains train, val, test (`split`); folds: its values are the folds; "
        "leave-one-subject-out: the subject (`subject`); lists: the column of a list that names the images",
    )
    k: int | None = Field(
        default=None, ge=2, description="number of random folds by subject; each is the test set once"
    )
    splits: tuple[FoldAssignment, ...] = Field(default=(), description="folds: values of the column in each split")
    files: dict[Part, str] = Field(default_factory=dict, description="lists: split -> file")
    ages_from: float | None = Field(default=None, ge=0, description="younger images are left out")
    ages_below: float | None = Field(default=None, gt=0, description="images of this age and older are left out")
    strict: bool | None = Field(
        default=None,
        description="exact copies and subjects stay in one split; false: as published, leaks are counted and flagged. "
        "Unset: true for random splits (holdout, folds with k), false for published ones",
    )

    @model_validator(mode="after")
    def _fits_its_kind(self) -> "Protocol":
        known = _OPTIONS[self.kind]
        for option in sorted(set().union(*_OPTIONS.values()) - known):
            if getattr(self, option):
                raise ValueError(f"protocol '{self.name}': {option} does not apply to kind '{self.kind}'")
        if self.kind == "folds" and bool(self.k) == bool(self.column):
            raise ValueError(f"protocol '{self.name}': folds need either k or column")
        if self.splits and not self.column:
            raise ValueError(f"protocol '{self.name}': splits need the column whose values they name")
        if self.kind == "lists" and not {"train", "test"} <= set(self.files):
            raise ValueError(f"protocol '{self.name}': lists need files for train and test")
        for file in self.files.values():
            if PurePosixPath(file).is_absolute() or ".." in PurePosixPath(file).parts:
                raise ValueError(f"protocol '{self.name}': the list '{file}' is outside of its folder")
        if None not in (self.ages_from, self.ages_below) and not self.ages_from < self.ages_below:  # type: ignore[operator]
            raise ValueError(f"protocol '{self.name}': ages_from must be less than ages_below")
        return self

    @property
    def is_strict(self) -> bool:
        """Return whether copies and subjects are kept in one split."""
        return self.kind == "holdout" or bool(self.k) if self.strict is None else self.strict

    def to_text(self) -> dict[str, object]:
        """Return the protocol as a table without its defaults."""
        return self.model_dump(mode="json", exclude_defaults=True)
