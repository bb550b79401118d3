"""Cards of external models: their input, their output, and how they are called."""

import re
import shlex
from pathlib import Path, PurePosixPath
from typing import Literal, Self

from pydantic import Field, model_validator

from agebench.config.cards.base import Card, Name, is_unset
from agebench.config.cards.external_http import HttpRequest as HttpRequest
from agebench.config.cards.external_http import check_url
from agebench.config.cards.external_io import ExternalInput as ExternalInput
from agebench.config.cards.external_io import ExternalOutput as ExternalOutput
from agebench.config.cards.package import PACKAGE_FOLDER, EstimatorPackage
from agebench.errors import UserError

# A model of the Hugging Face hub at a commit.
HUB_MODEL = re.compile(r"([\w.-]+/[\w.-]+)@([0-9a-f]{40})")


class ExternalCard(Card):
    """A model that agebench did not train: a file, a Python callable or a command."""

    name: Name = Field(description="the name on the command line")
    kind: Literal["external"] = Field(default="external", description="required: the model is not trained by agebench")
    title: str = Field(description="the name in tables")
    format: Literal[
        "torchscript",
        "onnx",
        "torch-export",
        "tfjs",
        "tflite",
        "keras",
        "transformers",
        "callable",
        "command",
        "http",
    ] = Field(description="how the model is opened and called")
    source: str = Field(
        min_length=1,
        description="a file (beside the card, `package:path/in/it` of an installed package, or `{package}/path` of "
        "a fetched one); for a callable "
        "`package.module:function` or `file.py:function`; for a command its line, with {input}, {output} and {here}; for "
        "transformers a folder or OWNER/NAME@COMMIT; for http the address of the endpoint",
    )
    input: ExternalInput = ExternalInput()
    output: ExternalOutput = ExternalOutput()
    http: HttpRequest | None = Field(
        default=None, exclude_if=lambda value: value is None, description="of format http: request and answer"
    )
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
    licence: str = Field(description="the terms of use")
    homepage: str = Field(default="", description="the authors' page")
    citation: str = Field(default="", description="the paper to cite")

    @model_validator(mode="after")
    def _package_of_the_source(self) -> Self:
        if self.source.startswith(f"{PACKAGE_FOLDER}/") and ".." in PurePosixPath(self.source).parts:
            raise ValueError(f"source = {self.source!r} leaves the folder of the package")
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
        if self.input.kind == "photo":
            if self.format not in ("callable", "command", "http"):
                raise ValueError('input.kind = "photo" is for the formats callable, command and http')
            if self.output.kind != "age":
                raise ValueError('input.kind = "photo": the model gives ages itself, output.kind = "age"')
        if self.format == "command":
            shlex.split(self.source)  # raises ValueError where a quotation is left open
            if self.output.column is not None:
                raise ValueError(
                    "output.column is for files and callables; the CSV of a command has a column named age"
                )
        return self

    @model_validator(mode="after")
    def _request(self) -> Self:
        if (self.format == "http") != (self.http is not None):
            raise ValueError('the table [http] and format = "http" belong together')
        if self.http is not None:
            check_url(self.source, has_keys=bool(self.http.variables()))
            if self.output.kind != "age" or self.output.column is not None:
                raise ValueError(
                    'format = "http": output.kind = "age", without column; http.age is the place of the age'
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
        card = self
        if self.output.decode_function:
            decode = _located_function(self.output.decode, folder)
            card = self.model_copy(update={"output": self.output.model_copy(update={"decode": decode})})
        return card._with_located_source(folder)

    def _with_located_source(self, folder: Path) -> "ExternalCard":
        if self.format == "command":
            return self.model_copy(update={"source": self.source.replace("{here}", str(folder))})
        if self.source.startswith(f"{PACKAGE_FOLDER}/"):
            return self
        path, colon, function = self.source.rpartition(":") if self.format == "callable" else (self.source, "", "")
        if self.format == "callable" and not path.endswith(".py"):
            return self
        if self.format != "callable" and self.in_package() is not None:
            return self
        if self.format == "http" or (self.format == "transformers" and HUB_MODEL.fullmatch(self.source)):
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


def _located_function(reference: str, folder: Path) -> str:
    """Return `file.py:function` with the file's path relative to a folder resolved; another reference as it is."""
    path, _, function = reference.rpartition(":")
    return f"{folder / path}:{function}" if path.endswith(".py") else reference
