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

    name: Name
    title: str
    reader: str = Field(description="the source format's reader, see `agebench list`")
    options: dict[str, Any] = Field(default_factory=dict, description="passed to the reader")
    homepage: str = ""
    licence: str
    citation: str = ""
    verified: bool = Field(default=False, description="true: the facts on this card were checked against the data")
    how_to_get: str = Field(default="", description="a sentence for a person who has not got the data")
    url: str = Field(default="", description="an open source that `agebench data get` may download")
    sha256: str = Field(default="", pattern=r"^([0-9a-f]{64})?$", description="of the file at `url`")
    count: int | None = Field(default=None, ge=1, description="images that a whole copy has")
    labels: tuple[str, ...] = Field(default=("age",), description="what is annotated")
    groups: tuple[str, ...] = Field(default=(), description="columns that fairness tables use")
    faces: Literal["none", "landmarks", "detect", "boxes"] = Field(
        default="detect",
        description="how a face is brought to the template: already there, by annotated points, by detection; "
        "or cut out by its annotated box",
    )
    landmark_points: tuple[int, ...] = Field(
        default=(),
        description="for faces = landmarks: which points are the image-left eye, the image-right eye, the nose base",
    )
    detector: str = Field(default="", description="what finds the faces, see `agebench list detectors`; empty: dlib")
    vocabulary: dict[str, str] = Field(default_factory=dict, description="what a column's values mean in this source")
    estimates_public: bool = Field(
        default=False,
        description="whether its terms allow to publish what a model estimated for its images, without labels or names",
    )
    expected_rejections: tuple[RejectReason, ...] = Field(
        default=(),
        description="codes of reasons for which a good copy has many rejected rows, see `agebench data check`",
    )
    protocols: tuple[Protocol, ...] = Field(default=(), description="ways to divide it, for `agebench run --protocol`")

    @field_validator("groups")
    @classmethod
    def _no_group_called_like_the_bands(cls, groups: tuple[str, ...]) -> tuple[str, ...]:
        if AGE_BAND_COLUMN in groups:
            raise ValueError(
                f"'{AGE_BAND_COLUMN}' is what the bands of the true age are called; give the column another name, e.g. by "
                f'options.columns = {{own_band = "{AGE_BAND_COLUMN}"}}'
            )
        return groups

    @model_validator(mode="after")
    def _protocols_differ(self) -> "DatasetCard":
        names = Counter([DEFAULT, *(protocol.name for protocol in self.protocols)])
        twice = [name for name, times in names.items() if times > 1]
        if twice:
            why = " (what a run does without --protocol)" if twice[0] == DEFAULT else ""
            raise ValueError(f"two protocols are called '{twice[0]}'{why}; rename one")
        return self

    @model_validator(mode="after")
    def _options_have_patterns(self) -> "DatasetCard":
        check_options(self.reader, self.options)
        return self

    def protocol(self, name: str) -> Protocol | None:
        """The protocol called `name`; None for the default one, which needs no card.

        Raises:
            UserError: there is none; the closest names are given.
        """
        if name in ("", DEFAULT):
            return None
        known = {protocol.name: protocol for protocol in self.protocols}
        if name not in known:
            raise UserError(f"dataset '{self.name}' has no protocol '{name}'{did_you_mean(name, [*known, DEFAULT])}")
        return known[name]

    def located(self, folder: Path) -> "DatasetCard":
        """With the list files of its protocols that stand beside the card named from the root."""
        protocols = []
        for protocol in self.protocols:
            files = {
                part: str((folder / file).resolve()) if (folder / file).is_file() else file
                for part, file in protocol.files.items()
            }
            protocols.append(protocol.model_copy(update={"files": files}))
        return self.model_copy(update={"protocols": tuple(protocols)})
