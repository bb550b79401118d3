"""Readers: one file a source format. A reader turns a dataset's files into Samples and reads its images' bytes."""

import difflib
import inspect
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar

from agebench._deprecated import renamed_methods
from agebench.data.samples import Samples
from agebench.errors import UserError
from agebench.registry.builtin import readers

__all__ = ["Reader", "open_reader", "option_names", "readers"]

_OWN = ("self", "root", "groups")


@renamed_methods(open_source="download_source", fetch="download", stamp="version_token")
class Reader(ABC):
    """One dataset in one source format.

    Args:
        root: the folder, archive or table file that holds the dataset; None for a reader that needs no files.
        groups: the columns that the card names as groups.
        options: the card's `[options]`, keyword arguments of the subclass's own `__init__`.
    """

    needs_files: ClassVar[bool] = True

    def __init__(self, root: Path | None, groups: tuple[str, ...] = ()) -> None:
        self.root = root
        self.groups = groups

    @classmethod
    def download_source(cls, options: dict[str, Any]) -> str:
        """What `fetch` gets for a card with these options, in a few words; empty: nothing, which is the rule."""
        return ""

    @classmethod
    def download(cls, target: Path, options: dict[str, Any]) -> None:
        """Get the dataset that the options name into the new folder `target`.

        Raises:
            AgebenchError: it does not exist, cannot be reached, or the disk is full.
        """
        raise NotImplementedError

    @abstractmethod
    def read(self) -> Samples:
        """All samples; what cannot be used is in `quarantined` with its reason. No pixel is read.

        Raises:
            UserError: nothing in `root` has this format; the message names the file and the value.
        """

    def image_bytes(self, path: str) -> bytes:
        """The encoded image of the row whose `path` this is."""
        assert self.root is not None
        return (self.root / path).read_bytes()

    def whole_image(self, path: str) -> str:
        """The path of the whole image, where the row at `path` is a part of one."""
        return path

    def shows_face(self, path: str) -> bool:
        """Whether the row at `path` has a face: it may be annotated that only a body is seen."""
        return True

    def version_token(self, path: str) -> str:
        """What changes when the image at `path` does; here the file's size and time of change."""
        assert self.root is not None
        try:
            status = (self.root / path).stat()
        except OSError:
            return "missing"
        return f"{status.st_size} {status.st_mtime_ns}"


def option_names(kind: type[Reader]) -> list[str] | None:
    """The names of a reader's options; None where its `__init__` takes any.

    A reader that passes `**options` on has its base's options, too.
    """
    names: list[str] = []
    for base in (base for base in kind.__mro__ if "__init__" in vars(base)):
        parameters = list(inspect.signature(vars(base)["__init__"]).parameters.values())[len(_OWN) :]
        takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
        if base is Reader and "__init__" in vars(kind):  # reached through **options, of which Reader takes none
            return None
        names += [parameter.name for parameter in parameters if parameter.kind is not parameter.VAR_KEYWORD]
        if not takes_any:
            break
    return list(dict.fromkeys(names))


def open_reader(
    name: str, root: Path | None, groups: tuple[str, ...], options: dict[str, Any], *, source: str
) -> Reader:
    """The reader `name` over `root`.

    Raises:
        UserError: no such reader, or an option it does not have; `source` names the card.
    """
    kind: type[Reader] = readers.get(name)
    known = option_names(kind)
    unknown = [] if known is None else sorted(set(options) - set(known))
    if unknown:
        close = difflib.get_close_matches(unknown[0], known or (), n=1)
        closest = f"; did you mean '{close[0]}'?" if close else "."
        there = f" Its options: {', '.join(known)}." if known else " It has none."
        raise UserError(f"{source}: the options of reader '{name}' are wrong: it has no '{unknown[0]}'{closest}{there}")
    try:
        return kind(root, groups, **options)
    except TypeError as error:
        raise UserError(f"{source}: the options of reader '{name}' are wrong: {error}") from error
