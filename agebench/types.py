"""Enumerations and small value types that several packages share. Imports nothing of agebench."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Self


class Split(IntEnum):
    """The split that an image belongs to; the values in `Folds.assignment`.

    A later split takes precedence where exact copies or the images of one subject would be in two.
    """

    NONE = -1
    TRAIN = 0
    VAL = 1
    TEST = 2

    @property
    def label(self) -> str:
        """The name in tables, files and columns: train, val or test."""
        return self.name.lower()


class TrackerName(StrEnum):
    """A tracker of experiments that receives the curves of a run."""

    TENSORBOARD = "tensorboard"
    WANDB = "wandb"
    MLFLOW = "mlflow"


class RejectReason(StrEnum):
    """Why a row or an image of a dataset was rejected; a detail message accompanies the code.

    The values are written to run manifests, records and `samples/quarantined.parquet`; they must never be renamed.
    """

    # The image cannot be processed.
    UNREADABLE = "unreadable"
    NOT_AN_IMAGE = "not-an-image"
    DAMAGED_IMAGE = "damaged-image"
    IMAGE_TOO_LARGE = "image-too-large"
    PIXEL_FORMAT = "pixel-format"
    UNREACHABLE_URL = "unreachable-url"
    NO_FACE = "no-face"
    NO_ESTIMATE = "no-estimate"
    NO_LANDMARKS = "no-landmarks"
    BAD_LANDMARKS = "bad-landmarks"
    BAD_BODY_BOX = "bad-body-box"
    BAD_FACE_BOX = "bad-face-box"
    # The source does not fit: a row without an image, or an image without a usable label.
    NO_AGE = "no-age"
    BAD_AGE = "bad-age"
    AGE_OUT_OF_RANGE = "age-out-of-range"
    CONFLICTING_LABELS = "conflicting-labels"
    DUPLICATE_ROW = "duplicate-row"
    DUPLICATE_ID = "duplicate-id"
    MISSING_FILE = "missing-file"
    OUTSIDE_FOLDER = "outside-folder"
    NOT_UTF8_NAME = "not-utf8-name"
    NAME_PATTERN = "name-pattern"
    NO_IMAGE = "no-image"
    NO_FACE_BOX = "no-face-box"
    BAD_LABEL_FILE = "bad-label-file"
    BODY_IMAGE = "body-image"
    # The image is left out on purpose.
    NOT_LISTED = "not-listed"
    NO_SPLIT = "no-split"
    OUTSIDE_PROTOCOL = "outside-protocol"
    EXCLUDED = "excluded"
    IN_TRAINING_SET = "in-training-set"
    OTHER = "other"


class RunState(StrEnum):
    """The state of one run of a suite, as its folder shows it."""

    PENDING = "pending"  # nothing was trained yet
    INCOMPLETE = "incomplete"  # stopped after an epoch, or another process works on it
    STALE = "stale"  # finished, but its data or weights have changed since
    FAILED = "failed"
    DONE = "done"


class ExitReason(StrEnum):
    """Why a run's process ended."""

    FINISHED = "finished"
    STOPPED = "stopped"  # interrupted or terminated by a user
    LOCKED = "locked"  # another process works on the same run
    FAILED = "failed"


class WeightsKind(StrEnum):
    """The kinds of origin of a model's initial weights."""

    RANDOM = "random"
    FILE = "file"
    PACKAGE = "package"
    TIMM = "timm"
    PUBLISHED = "published"
    UNKNOWN = "unknown"


_WEIGHTS = re.compile(
    r"(?P<random>random)$|file (?P<file>[^,]+)|package (?P<package>.+)|timm (?P<timm>.+)"
    r"|its authors' weights, file (?P<published>[^:]+):",
    re.DOTALL,
)


@dataclass(frozen=True)
class WeightsSource:
    """The origin of a model's initial weights.

    Attributes:
        kind: the kind of origin.
        identifier: the file's name, the package and its version, or timm's version and the architecture's tag.
        detail: what was taken from there, in words; not part of the identity.
    """

    kind: WeightsKind
    identifier: str = ""
    detail: str = ""

    def __str__(self) -> str:
        if self.kind is WeightsKind.PUBLISHED:
            return f"its authors' weights, file {self.identifier}: {self.detail}"
        name = f"{self.kind} {self.identifier}".rstrip()
        return f"{name}, {self.detail}" if self.detail else name

    def record(self) -> dict[str, str]:
        """Return the kind and the identifier for the manifest, beside the text of `str()` in `weights`."""
        return {"kind": str(self.kind), "identifier": self.identifier}

    @classmethod
    def of_model(cls, model: Mapping[str, object]) -> Self:
        """Read the origin from the table `model` of a manifest or record, also of one from before codes existed.

        Args:
            model: the table; its values are not trusted.
        """
        source, text = model.get("weights_source"), str(model.get("weights") or "")
        if isinstance(source, Mapping) and source.get("kind") in set(WeightsKind):
            return cls(WeightsKind(source["kind"]), str(source.get("identifier") or ""))
        match = _WEIGHTS.match(text)
        if match is None or match.lastgroup is None:
            return cls(WeightsKind.UNKNOWN, text)
        kind = WeightsKind(match.lastgroup)
        return cls(kind, "" if kind is WeightsKind.RANDOM else match[match.lastgroup])

    def is_same(self, other: Self) -> bool:
        """Return whether two origins have the same kind and identifier."""
        return (self.kind, self.identifier) == (other.kind, other.identifier)
