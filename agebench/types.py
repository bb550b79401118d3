"""Enumerations and small value types that several packages share. Imports nothing of agebench."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self


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
    def of_model(cls, model: Mapping[str, Any]) -> Self:
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
