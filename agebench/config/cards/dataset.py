"""Cards of datasets: where images and labels come from, what they mean, and under which terms."""

from collections import Counter
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from agebench.config.cards.base import Card, Name
from agebench.config.cards.protocol import DEFAULT, Protocol
from agebench.config.patterns import check_options
from agebench.errors import RejectReason, UserError
from agebench.utils.text import did_you_mean

# The column of the true age's bands in every table of groups.
AGE_BAND_COLUMN = "age_band"


class DatasetCard(Card):
    """A dataset: where its images and labels come from, what they mean, and under what terms."""

    name: Name = Field(description="the name on the command line: lower-case letters, digits, `.`, `_`, `-`")
    title: str = Field(description="the name in tables")
    reader: str = Field(description="the source format's reader, see `agebench list`")
    options: dict[str, Any] = Field(default_factory=dict, description="passed to the reader")
    homepage: str = Field(default="", description="the owners' page")
    licence: str = Field(description="the terms of use")
    citation: str = Field(default="", description="the paper to cite")
    verified: bool = Field(default=False, description="true: the facts on this card were checked against the data")
    how_to_get: str = Field(default="", description="a sentence for a user who does not have the data")
    url: str = Field(default="", description="a public file that `agebench data download` may download")
    sha256: str = Field(default="", pattern=r"^([0-9a-f]{64})?$", description="of the file at `url`")
    count: int | None = Field(default=None, ge=1, description="number of images of a complete copy")
    labels: tuple[str, ...] = Field(default=("age",), description="what is annotated")
    groups: tuple[str, ...] = Field(default=(), description="columns that fairness tables use")
    people: str = Field(
        default="",
        description="a name that cards of one source share if `subject` means the same people in them: "
        "people that one of them trains on are not tested in another",
    )
    faces: Literal["none", "landmarks", "detect", "boxes"] = Field(
        default="detect",
        description="how faces are aligned: already aligned, by annotated points, by detection; or cropped to the annotated box",
    )
    landmark_points: tuple[int, ...] = Field(
        default=(),
        description="for faces = landmarks: which points are the image-left eye, the image-right eye, the nose base",
    )
    detector: str = Field(
        default="", description="the face detector, see `agebench list detectors`; empty: the default one"
    )
    vocabulary: dict[str, str] = Field(default_factory=dict, description="meaning of a column's values in this source")
    estimates_public: bool = Field(
        default=False,
        description="whether its terms allow publishing estimates for its images, without labels or names",
    )
    expected_rejections: tuple[RejectReason, ...] = Field(
        default=(),
        description="reasons for which an intact copy has many rejected rows, see `agebench data verify`",
    )
    protocols: tuple[Protocol, ...] = Field(default=(), description="split protocols, for `agebench run --protocol`")

    @field_validator("groups")
    @classmethod
    def _no_group_called_like_the_bands(cls, groups: tuple[str, ...]) -> tuple[str, ...]:
        if AGE_BAND_COLUMN in groups:
            raise ValueError(
                f"'{AGE_BAND_COLUMN}' is the name of the bands of the true age; give the column another name, e.g. by "
                f'options.columns = {{own_band = "{AGE_BAND_COLUMN}"}}'
            )
        return groups

    @model_validator(mode="after")
    def _protocols_differ(self) -> "DatasetCard":
        names = Counter([DEFAULT, *(protocol.name for protocol in self.protocols)])
        duplicates = [name for name, count in names.items() if count > 1]
        if duplicates:
            note = " (the name of the protocol without --protocol)" if duplicates[0] == DEFAULT else ""
            raise ValueError(f"two protocols are called '{duplicates[0]}'{note}; rename one")
        return self

    @model_validator(mode="after")
    def _options_have_patterns(self) -> "DatasetCard":
        check_options(self.reader, self.options)
        return self

    def shares_people(self, other: "DatasetCard") -> bool:
        """Return whether a value of `subject` means the same person in both datasets.

        Args:
            other: the card of the other dataset.
        """
        return self.name == other.name or (self.people != "" and self.people == other.people)

    def protocol(self, name: str) -> Protocol | None:
        """Return a protocol of the dataset; None for the default one, which needs no entry on the card.

        Args:
            name: the protocol's name.

        Raises:
            UserError: the protocol is unknown; the message lists the closest names.
        """
        if name in ("", DEFAULT):
            return None
        known = {protocol.name: protocol for protocol in self.protocols}
        if name not in known:
            raise UserError(f"dataset '{self.name}' has no protocol '{name}'{did_you_mean(name, [*known, DEFAULT])}")
        return known[name]

    def located(self, folder: Path) -> "DatasetCard":
        """Return the card with absolute paths of those split files that exist beside it.

        Args:
            folder: the folder of the card's file.
        """
        protocols = []
        for protocol in self.protocols:
            files = {
                part: str((folder / file).resolve()) if (folder / file).is_file() else file
                for part, file in protocol.files.items()
            }
            protocols.append(protocol.model_copy(update={"files": files}))
        return self.model_copy(update={"protocols": tuple(protocols)})
