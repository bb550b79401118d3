"""Cards of external models: their input, their output, and how they are called."""

import shlex
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from agebench.config.cards.base import Card, Name, is_unset
from agebench.config.cards.package import PACKAGE_FOLDER, EstimatorPackage
from agebench.errors import UserError


class ExternalInput(Card):
    """The input of a model: the aligned face as an array."""

    size: int = Field(default=112, ge=16, le=1024, description="side of the square input, pixels")
    coverage: float = Field(
        default=1.0,
        gt=0.2,
        le=4,
        description="crop scale: 1 is the framing of UTKFace's crops, 1.5 shows half as much again",
    )
    offset: float = Field(
        default=0.0,
        ge=-0.5,
        le=0.5,
        exclude_if=is_unset,
        description="share of the side by which the face lies lower than in UTKFace's crops; negative: higher",
    )
    channels: Literal["rgb", "bgr", "grey"] = Field(
        default="rgb", description="order of the channels, also of mean and std"
    )
    layout: Literal["nchw", "nhwc"] = "nchw"
    dtype: Literal["float32", "float16", "uint8"] = Field(
        default="float32",
        description="float16: computed in float32, then rounded; uint8: the bytes as they are, without value_range, mean and std",
    )
    value_range: tuple[float, float] = Field(
        default=(0.0, 1.0), description="values of black and white, before mean and std"
    )
    mean: tuple[float, ...] = Field(default=(0.0,), description="subtracted; one value, or one per channel")
    std: tuple[float, ...] = Field(default=(1.0,), description="divided by; one value, or one per channel")

    @model_validator(mode="after")
    def _widths(self) -> Self:
        allowed = {1} if self.channels == "grey" else {1, 3}
        for key, values in (("mean", self.mean), ("std", self.std)):
            if len(values) not in allowed:
                raise ValueError(f"{key} has {len(values)} numbers; it takes one, or one for each channel")
        if 0 in self.std:
            raise ValueError("std must not be 0")
        return self


class ExternalOutput(Card):
    """The output of a model, and how an age is read from it."""

    kind: Literal["age", "distribution"] = "age"
    name: str = Field(
        default="",
        description="name or index from 0 of the output to read; empty: the only one",
    )
    column: int | None = Field(
        default=None,
        ge=0,
        # Left out of config.toml while unset, so that earlier tests keep their config.
        exclude_if=lambda value: value is None,
        description="of kind age: index from 0 of the age, where the output has several numbers per face",
    )
    scale: float = Field(default=1.0, description="of kind age: years = offset + scale * output")
    offset: float = 0.0
    ages: tuple[float, ...] = Field(
        default=(), description="of kind distribution: the age of each class; empty: 0, 1, 2, …"
    )
    logits: bool = Field(default=False, description="of kind distribution: the output needs a softmax")

    @field_validator("name", mode="before")
    @classmethod
    def _number_as_text(cls, name: object) -> object:
        return str(name) if isinstance(name, int) and not isinstance(name, bool) else name

    @model_validator(mode="after")
    def _column_of_an_age(self) -> Self:
        if self.column is not None and self.kind != "age":
            raise ValueError('column is for kind = "age"; a distribution is read by its ages')
        return self


class ExternalCard(Card):
    """A model that agebench did not train: a file, a Python callable or a command."""

    name: Name
    kind: Literal["external"] = "external"
    title: str
    format: Literal["torchscript", "onnx", "torch-export", "callable", "command"]
    source: str = Field(
        min_length=1,
        description="a file (beside the card, `package:path/in/it` of an installed package, or `{package}/path` of a fetched "
        "one); for a callable "
        "`package.module:function` or `file.py:function`; for a command its line, with {input}, {output} and {here}",
    )
    input: ExternalInput = ExternalInput()
    output: ExternalOutput = ExternalOutput()
    batch_size: int = Field(default=64, ge=1, description="faces per call; 1 for files that were exported for one")
    timeout: float = Field(
        default=600.0, gt=0, description="seconds: of a callable for one batch, of a command for a whole test set"
    )
    training_data: str = Field(
        default="unknown",
        min_length=1,
        description="its training data, in words; a text that begins with `unknown` marks every report",
    )
    trained_on: tuple[Name, ...] = Field(
        default=(), description="agebench datasets with images that are known to be in its training data"
    )
    package: EstimatorPackage | None = Field(
        default=None,
        exclude_if=is_unset,
        description="where `agebench estimators get` fetches the files; `source` begins with {package}/",
    )
    about: str = Field(
        default="",
        exclude_if=is_unset,
        description="where the card's settings come from, and what to know of the model",
    )
    verified: bool = Field(
        default=True,
        exclude_if=bool,
        description="false: the card follows the model's code or papers, but was not run with its weights",
    )
    licence: str
    homepage: str = ""
    citation: str = ""

    @model_validator(mode="after")
    def _package_of_the_source(self) -> Self:
        if PACKAGE_FOLDER in self.source and self.package is None:
            raise ValueError(f"source = {self.source!r} needs a [package] table")
        return self

    @model_validator(mode="after")
    def _reference(self) -> Self:
        if self.format == "callable" and not all(self.source.rpartition(":")[::2]):
            raise ValueError(
                f"source = {self.source!r}: write a callable as package.module:function or file.py:function"
            )
        if self.format == "command" and not ("{input}" in self.source and "{output}" in self.source):
            raise ValueError(f"source = {self.source!r}: a command names {{input}} and {{output}}, the CSV files")
        if self.format == "command":
            shlex.split(self.source)  # raises ValueError where a quotation is left open
            if self.output.column is not None:
                raise ValueError(
                    "output.column is for files and callables; the CSV of a command has a column named age"
                )
        return self

    @property
    def size(self) -> int:
        """Side of the square input, pixels."""
        return self.input.size

    @property
    def bodies(self) -> bool:
        """False: external models take no body crops."""
        return False

    @property
    def letterbox(self) -> bool:
        """False: external models take aligned faces."""
        return False

    @property
    def mask_bodies(self) -> bool:
        """False: external models take no body crops."""
        return False

    def located(self, folder: Path) -> "ExternalCard":
        """Return the card with its source resolved relative to the card's file.

        Args:
            folder: the folder of the card's file.

        Raises:
            UserError: the source begins with `~name` of an unknown user.
        """
        if self.format == "command":
            return self.model_copy(update={"source": self.source.replace("{here}", str(folder))})
        if self.source.startswith(f"{PACKAGE_FOLDER}/"):
            return self
        path, colon, function = self.source.rpartition(":") if self.format == "callable" else (self.source, "", "")
        if self.format == "callable" and not path.endswith(".py"):
            return self
        if self.format != "callable" and self.in_package() is not None:
            return self
        try:
            source = folder / Path(path).expanduser()
        except RuntimeError as error:  # `~name/…` of an unknown user
            raise UserError(f"source = {self.source!r}: {str(error).rstrip('.')}; write the path without ~") from None
        return self.model_copy(update={"source": f"{source}{colon}{function}"})

    def in_package(self) -> tuple[str, str] | None:
        """Return (package, path within it) of a source in an installed package, else None."""
        package, colon, path = self.source.partition(":")
        named = len(package) > 1 and all(part.isidentifier() for part in package.split("."))
        return (package, path) if colon and path and named else None
