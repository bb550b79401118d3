"""Readers, one module per source format. A reader converts a dataset's files to Samples and reads encoded images."""

import difflib
import inspect
import os
from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

from agebench._deprecated import renamed_methods
from agebench.config.toml_io import Settings
from agebench.data.samples import Samples
from agebench.errors import UserError
from agebench.registry.builtin import readers

__all__ = ["Reader", "open_reader", "option_names", "readers"]

_COMMON_PARAMETERS = ("self", "root", "groups")


@renamed_methods(open_source="download_source", fetch="download", stamp="version_token")
class Reader(ABC):
    """Base class of readers: one dataset in one source format.

    A subclass receives the card's `[options]` as keyword arguments of its `__init__`.

    Args:
        root: the folder, archive or table that contains the dataset; None for a reader that needs no files.
        groups: columns for subgroup metrics, from the card.
    """

    needs_files: ClassVar[bool] = True

    def __init__(self, root: Path | None, groups: tuple[str, ...] = ()) -> None:
        self.root = root
        self.groups = groups

    @classmethod
    def download_source(cls, options: Settings) -> str:
        """Describe the public source that `download` uses.

        Empty if there is none, as for most readers.

        Args:
            options: the card's `[options]`.
        """
        return ""

    @classmethod
    def source_difference(cls, root: Path, options: Settings) -> str:
        """Describe how the source that a downloaded copy records differs from the card's.

        Empty if it is the same, or if nothing is recorded.

        Args:
            root: the copy.
            options: the card's `[options]`.
        """
        return ""

    @classmethod
    def download(cls, target: Path, options: Settings) -> None:
        """Download a dataset.

        Args:
            target: the folder to create.
            options: the card's `[options]`.

        Raises:
            AgebenchError: the dataset does not exist or cannot be reached, or the disk is full.
        """
        raise NotImplementedError

    @abstractmethod
    def read(self) -> Samples:
        """Read all samples without decoding images.

        Unusable rows are in `Samples.rejected` with their reasons.

        Raises:
            UserError: `root` has another format. The message names the file and the value.
        """

    def image_bytes(self, path: str) -> bytes:
        """Read an encoded image.

        Args:
            path: path of the image, from the samples' column `path`.

        Raises:
            OSError: the image cannot be read now; a later attempt may succeed.
            ImageRejectedError: the content itself cannot be used.
        """
        assert self.root is not None
        with open(os.path.join(self.root, path), "rb") as file:
            return file.read()

    def whole_image(self, path: str) -> str:
        """Return the path of the whole image.

        It differs from `path` if the row is a part of an image.
        """
        return path

    def shows_face(self, path: str) -> bool:
        """Return whether the row at `path` shows a face; a row may be annotated as a body only."""
        return True

    def version_token(self, path: str) -> str:
        """Return a text that changes with the image at `path`: the file's size and modification time."""
        assert self.root is not None
        try:
            status = os.stat(os.path.join(self.root, path))
        except OSError:
            return "missing"
        return f"{status.st_size} {status.st_mtime_ns}"


def option_names(reader_class: type[Reader]) -> list[str] | None:
    """List the options of a reader; None if its `__init__` accepts any.

    A reader that passes `**options` on also has the options of its base class.

    Args:
        reader_class: the reader.
    """
    names: list[str] = []
    for base in (base for base in reader_class.__mro__ if "__init__" in vars(base)):
        parameters = list(inspect.signature(vars(base)["__init__"]).parameters.values())[len(_COMMON_PARAMETERS) :]
        accepts_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
        if base is Reader and "__init__" in vars(reader_class):  # reached through **options, which Reader does not have
            return None
        names += [parameter.name for parameter in parameters if parameter.kind is not parameter.VAR_KEYWORD]
        if not accepts_any:
            break
    return list(dict.fromkeys(names))


def open_reader(name: str, root: Path | None, groups: tuple[str, ...], options: Settings, *, source: str) -> Reader:
    """Create a reader by name.

    Args:
        name: name of the reader, as on a card.
        root: the folder, archive or table that contains the dataset; None for a reader that needs no files.
        groups: columns for subgroup metrics, from the card.
        options: the card's `[options]`.
        source: name of the card in error messages.

    Raises:
        UserError: no reader has this name, or it has no such option.
    """
    reader_class: type[Reader] = readers.get(name)
    known = option_names(reader_class)
    unknown = [] if known is None else sorted(set(options) - set(known))
    if unknown:
        similar = difflib.get_close_matches(unknown[0], known or (), n=1)
        suggestion = f"; did you mean '{similar[0]}'?" if similar else "."
        available = f" Its options: {', '.join(known)}." if known else " It has none."
        raise UserError(
            f"{source}: the options of reader '{name}' are wrong: it has no '{unknown[0]}'{suggestion}{available}"
        )
    try:
        return reader_class(root, groups, **options)
    except TypeError as error:
        raise UserError(f"{source}: the options of reader '{name}' are wrong: {error}") from error
