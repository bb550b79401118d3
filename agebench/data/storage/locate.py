"""Locations of datasets on this machine, and their readers."""

from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from agebench.config.cards.dataset import DatasetCard
from agebench.data.readers import Reader, readers
from agebench.data.storage.checks import open_copy
from agebench.data.storage.staging import lock_file, settle, staging_folders
from agebench.errors import DatasetNotFoundError
from agebench.utils.paths import data_home


def dataset_dir(card: DatasetCard) -> Path:
    """Return the folder for a dataset's files, which need not exist.

    It is a folder of the dataset's name under `AGEBENCH_DATA`.
    """
    return data_home() / card.name


def needs_files(card: DatasetCard) -> bool:
    """Return whether the dataset is read from files.

    A synthetic one is rendered when it is read.
    """
    reader_class: type[Reader] = readers.get(card.reader)
    return reader_class.needs_files


def download_source(card: DatasetCard) -> str:
    """Return the public source that a dataset can be downloaded from; empty if there is none."""
    reader_class: type[Reader] = readers.get(card.reader)
    return card.url or reader_class.download_source(card.options)


def access_instructions(card: DatasetCard) -> str:
    """Describe how to get a dataset, with its home page if the card names one."""
    page = f" ({card.homepage})" if card.homepage else ""
    return f"{card.how_to_get or 'get it from its owners'}{page}"


def locate(card: DatasetCard) -> Path | None:
    """Return the folder (or linked table) that contains a dataset.

    None for a dataset that needs no files.

    Args:
        card: the dataset's card.

    Raises:
        DatasetNotFoundError: the dataset is not on this machine. The message names the expected folder, how to get the
            dataset, and its license.
    """
    if not needs_files(card):
        return None
    recover(card)
    home = dataset_dir(card)
    if home.exists():
        return home
    if home.is_symlink():
        raise DatasetNotFoundError(
            f"dataset '{card.name}': {home} links to {home.readlink()}, which is gone. "
            f"Put it back, or `agebench data import {card.name} PATH` with its new place."
        )
    download = f"`agebench data download {card.name}` downloads it; or " if download_source(card) else ""
    raise DatasetNotFoundError(
        f"dataset '{card.name}' ({card.title}) is not on this machine: looked in {home}.\n"
        f"{download}{access_instructions(card)}, then `agebench data import {card.name} PATH`. Licence: {card.licence}."
    )


def recover(card: DatasetCard) -> None:
    """Restore a copy that an interrupted import had moved.

    The staging folders of interrupted imports are removed.

    An import that is still running is left alone. A possibly only copy is never deleted. A restored copy is reported on
    standard error.

    Args:
        card: the dataset's card.
    """
    home = dataset_dir(card)
    if not staging_folders(home):
        return
    # Timeout: an import is running. OSError: the folder is read-only.
    with suppress(Timeout, OSError), FileLock(lock_file(home), timeout=0):
        for staging in staging_folders(home):
            settle(card, home, staging)


def open_dataset_reader(card: DatasetCard) -> Reader:
    """Open the card's reader on the dataset's files.

    Args:
        card: the dataset's card.

    Raises:
        DatasetNotFoundError: the dataset is not on this machine.
        UserError: the card names a reader or an option that does not exist.
    """
    return open_copy(card, locate(card))
