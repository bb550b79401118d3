"""Protocols: the ways in which a dataset is divided into training, validation and test, as its card names them."""

from collections import Counter
from pathlib import PurePosixPath
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from agebench.types import Split

NAME = r"^[a-z0-9][a-z0-9._-]{0,99}$"  # names become parts of paths, of which a component has at most 255 bytes
DEFAULT = "default"
Part = Literal["train", "val", "test"]

# Which options mean something for which kind; `ages_from`, `ages_below`, `strict` and `val_share` serve all.
_OPTIONS: dict[str, set[str]] = {
    "holdout": {"test_share"},
    "official": {"column"},
    "folds": {"column", "k", "splits"},
    "leave-one-subject-out": {"column"},
    "lists": {"files", "column"},
}


class FoldAssignment(BaseModel):
    """One division by the values of a column, such as the numbers of ten folders."""

    model_config = ConfigDict(extra="forbid", frozen=True, coerce_numbers_to_str=True)

    train: tuple[str, ...] = Field(min_length=1)
    val: tuple[str, ...] = ()
    test: tuple[str, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _apart(self) -> "FoldAssignment":
        named = Counter([*self.train, *self.val, *self.test])
        twice = [value for value, times in named.items() if times > 1]
        if twice:
            raise ValueError(f"'{twice[0]}' stands in two parts")
        return self

    def parts(self) -> dict[str, int]:
        """Map each value of the column to its split, a value of `agebench.types.Split`."""
        splits = ((Split.TRAIN, self.train), (Split.VAL, self.val), (Split.TEST, self.test))
        return {value: split for split, values in splits for value in values}


class Protocol(BaseModel):
    """A named way to divide a dataset; `agebench run --protocol NAME` chooses it."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    name: str = Field(pattern=NAME)
    kind: Literal["holdout", "official", "folds", "leave-one-subject-out", "lists"]
    description: str = ""
    citation: str = ""
    test_share: float | None = Field(
        default=None, gt=0, lt=1, description="of holdout; unset: the run's data.test_share"
    )
    val_share: float | None = Field(
        default=None, gt=0, lt=1, description="of what is not tested, where no part is named val; unset: the run's"
    )
    column: str = Field(
        default="",
        description="official: says train, val, test (`split`); folds: whose values are the folds; "
        "leave-one-subject-out: the person (`subject`); lists: which column of a list names the images",
    )
    k: int | None = Field(default=None, ge=2, description="folds drawn by subject; each is the test once")
    splits: tuple[FoldAssignment, ...] = Field(
        default=(), description="folds: values of the column for each run's parts"
    )
    files: dict[Part, str] = Field(default_factory=dict, description="lists: part -> file")
    ages_from: float | None = Field(default=None, ge=0, description="younger images are put aside")
    ages_below: float | None = Field(default=None, gt=0, description="images of this age and older are put aside")
    strict: bool | None = Field(
        default=None,
        description="exact copies and subjects stay on one side; false: as published, leaks are counted and flagged. "
        "Unset: true for what is drawn here (holdout, folds with k), false for what others have fixed",
    )

    @model_validator(mode="after")
    def _fits_its_kind(self) -> "Protocol":
        known = _OPTIONS[self.kind]
        for option in sorted(set().union(*_OPTIONS.values()) - known):
            if getattr(self, option):
                raise ValueError(f"protocol '{self.name}': {option} means nothing for kind '{self.kind}'")
        if self.kind == "folds" and bool(self.k) == bool(self.column):
            raise ValueError(f"protocol '{self.name}': folds need either k or column")
        if self.splits and not self.column:
            raise ValueError(f"protocol '{self.name}': splits need column: whose values they name")
        if self.kind == "lists" and not {"train", "test"} <= set(self.files):
            raise ValueError(f"protocol '{self.name}': lists need files for train and test")
        for file in self.files.values():
            if PurePosixPath(file).is_absolute() or ".." in PurePosixPath(file).parts:
                raise ValueError(f"protocol '{self.name}': the list '{file}' leads out of its folder")
        if None not in (self.ages_from, self.ages_below) and not self.ages_from < self.ages_below:  # type: ignore[operator]
            raise ValueError(f"protocol '{self.name}': ages_from must be less than ages_below")
        return self

    @property
    def is_strict(self) -> bool:
        """Whether copies and subjects are kept on one side."""
        return self.kind == "holdout" or bool(self.k) if self.strict is None else self.strict

    def to_text(self) -> dict[str, Any]:
        """What the card says of it, without what it leaves unsaid."""
        return self.model_dump(mode="json", exclude_defaults=True)
