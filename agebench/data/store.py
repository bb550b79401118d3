"""Where datasets live on this machine."""

from pathlib import Path

from agebench.data.readers import Reader, open_reader, readers
from agebench.errors import DatasetMissing
from agebench.paths import data_home
from agebench.registry.cards import DatasetCard


def home_of(card: DatasetCard) -> Path:
    """Where a dataset's files belong: a folder of the dataset's name under `AGEBENCH_DATA`."""
    return data_home() / card.name


def locate(card: DatasetCard) -> Path | None:
    """The folder that holds the dataset; None for one that needs no files.

    Raises:
        DatasetMissing: it is not there; the message says where it was looked for, how to get it and under what licence.
    """
    if not readers.get(card.reader).needs_files:
        return None
    home = home_of(card)
    if home.is_dir():
        return home
    ways = [f"`agebench data add {card.name} PATH` takes an archive or a folder you have"]
    if card.url:
        ways.insert(0, f"`agebench data get {card.name}` downloads it from {card.url}")
    if card.how_to_get:
        ways.append(card.how_to_get)
    where = f" ({card.homepage})" if card.homepage else ""
    raise DatasetMissing(
        f"dataset '{card.name}' ({card.title}) is not at {home}. To get it: {'; '.join(ways)}{where}. Licence: {card.licence}."
    )


def reader_for(card: DatasetCard) -> Reader:
    """The card's reader over the dataset's files.

    Raises:
        DatasetMissing: see `locate`.
        UserError: the card names a reader or an option that does not exist.
    """
    return open_reader(card.reader, locate(card), card.groups, card.options, source=f"dataset card '{card.name}'")
