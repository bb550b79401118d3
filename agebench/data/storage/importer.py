"""Import of datasets: from archives, folders and public sources into the folder where agebench finds them."""

import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from agebench.config.cards.dataset import DatasetCard
from agebench.data.readers import Reader, readers
from agebench.data.readers.base import walk_files
from agebench.data.readers.patterns import to_text
from agebench.data.readers.table_io import TABLES
from agebench.data.storage.archives import CorruptArchiveError, extract, write_failure
from agebench.data.storage.checks import find_problems, open_copy, read_copy
from agebench.data.storage.download import download
from agebench.data.storage.locate import access_instructions, dataset_dir, download_source, needs_files, recover
from agebench.data.storage.staging import CHECKED, REPLACED, lock_file, path_exists, settle, staging_folders
from agebench.errors import ImageRejectedError, UserError
from agebench.utils.locks import held
from agebench.utils.paths import cache_home
from agebench.utils.progress import progress

# Images, evenly spaced, whose content is compared with that of an existing copy; all are compared by size.
CONTENT_SAMPLE_SIZE = 2000
# Bytes that are copied at once.
_COPY_BUFFER = 1 << 20


@dataclass(frozen=True)
class ImportReport:
    """Result of an import.

    Attributes:
        name: name of the dataset.
        root: folder of the dataset.
        images: number of usable images.
        rejected: number of rejected images.
        was_present: whether a good copy existed, so that nothing was done.
        problems: one sentence per problem with the copy, as in `VerifyReport`.
    """

    name: str
    root: Path
    images: int
    rejected: int
    was_present: bool = False
    problems: tuple[str, ...] = ()


def import_dataset(
    card: DatasetCard, source: Path, *, link: bool = False, allow_partial: bool = False, replace: bool = False
) -> ImportReport:
    """Import a dataset: extract an archive, copy a folder, or link to a folder.

    The new copy is read with the card's reader before it replaces another one. An existing good copy is kept unless
    `replace` is set; an existing copy with errors is replaced.

    Args:
        card: the dataset's card.
        source: a tar or zip archive, a folder, or (with `link`) a table beside its images.
        link: link to the folder instead of copying it.
        allow_partial: accept another number of images, and fewer labels, than the card specifies.
        replace: also replace a good copy.

    Raises:
        UserError: the source is missing, unsafe, damaged, of another format, or of another size than the card specifies.
        AgebenchError: the disk is full, or the dataset's folder cannot be written.
    """
    if not needs_files(card):
        raise UserError(f"dataset '{card.name}' is made as it is read: there is nothing to add")
    source, home = source.expanduser().resolve(), dataset_dir(card)
    if not source.exists():
        raise UserError(f"{source}: no such file or folder")
    open_copy(card, source)  # reports a wrong reader option before gigabytes are copied
    is_same_folder = home.resolve() == source
    if not is_same_folder and source.is_relative_to(home.resolve()) and not home.is_symlink():
        raise UserError(
            f"{source}: lies inside {home}, the copy that it would replace, and would be deleted with it; "
            "move it elsewhere first"
        )
    keep_existing = is_same_folder or not replace
    report = _install(card, partial(_fetch_local, source, link=link), str(source), allow_partial, keep_existing)
    if report.was_present and not is_same_folder:
        _require_same_content(card, source, home)
    return report


def download_dataset(card: DatasetCard, *, allow_partial: bool = False) -> ImportReport:
    """Download a dataset from the public source on its card and import it.

    An existing good copy is kept; one whose recorded source is another one than the card's is refused.

    Args:
        card: the dataset's card.
        allow_partial: accept another number of images, and fewer labels, than the card specifies.

    Raises:
        UserError: the card names no public source, and the message describes how to get the dataset; or a copy from another
            source is there.
        AgebenchError: the download failed. What was received is kept, and the same call continues the download.
    """
    source = download_source(card)
    if not source:
        raise UserError(
            f"dataset '{card.name}' has no open source: {access_instructions(card)}, "
            f"then `agebench data import {card.name} PATH`. Licence: {card.licence}."
        )
    recover(card)
    reader_class: type[Reader] = readers.get(card.reader)
    existing = _existing_copy(card, dataset_dir(card), allow_partial)
    if existing:
        difference = "" if card.url else reader_class.source_difference(existing.root, card.options)
        if difference:
            raise UserError(
                f"dataset '{card.name}' is there already, from another source: {difference}. Nothing was changed; to take the "
                f"card's, delete {existing.root}, then `agebench data download {card.name}`"
            )
        return existing
    if not card.url:
        return _install(card, partial(reader_class.download, options=card.options), source, allow_partial, True)
    archive = download(card.url, cache_home() / "downloads" / card.name, sha256=card.sha256)
    try:
        report = import_dataset(card, archive, allow_partial=allow_partial)
    except CorruptArchiveError:
        archive.unlink(missing_ok=True)  # the next call downloads it again
        raise
    archive.unlink(missing_ok=True)  # a concurrent call may have deleted it
    return report


def _install(
    card: DatasetCard, fetch: Callable[[Path], None], source: str, allow_partial: bool, keep_existing: bool
) -> ImportReport:
    """Create a copy in a staging folder with `fetch`, check it, and move it to the dataset's folder."""
    home = dataset_dir(card)
    try:
        home.parent.mkdir(parents=True, exist_ok=True)
        with held(lock_file(home), f"adding {card.name}"):
            for interrupted in staging_folders(home):  # its import was killed, because this one holds the lock
                settle(card, home, interrupted)
            existing = _existing_copy(card, home, allow_partial) if keep_existing else None
            if existing:
                return existing
            staging = Path(tempfile.mkdtemp(dir=home.parent, prefix=f".{card.name}.", suffix=".adding"))
            try:
                new_copy = staging / card.name
                fetch(new_copy)
                samples = read_copy(card, new_copy, source=source, allow_partial=allow_partial)
                (staging / CHECKED).touch()
                if path_exists(home):
                    home.rename(staging / REPLACED)
                new_copy.rename(home)
            finally:
                settle(card, home, staging)
    except OSError as error:
        raise write_failure(home, error) from error
    problems = find_problems(card, open_copy(card, home), samples)
    return ImportReport(card.name, home, len(samples), len(samples.rejected), problems=problems)


def _existing_copy(card: DatasetCard, home: Path, allow_partial: bool) -> ImportReport | None:
    """Report on an existing good copy; None if there is none."""
    if home.exists():
        with suppress(UserError):
            samples = read_copy(card, home, allow_partial=allow_partial)
            problems = find_problems(card, open_copy(card, home), samples)
            return ImportReport(
                card.name, home, len(samples), len(samples.rejected), was_present=True, problems=problems
            )
    return None


def _fetch_local(source: Path, target: Path, *, link: bool) -> None:
    """Link, copy or extract a local source to `target`."""
    if link:
        try:
            target.symlink_to(source, target_is_directory=source.is_dir())
        except (OSError, NotImplementedError) as error:
            raise UserError(f"{target}: links cannot be made here ({error}); leave out --link to copy") from error
    elif source.is_dir():
        _copy_folder(source, target)
    else:
        extract(source, target)


def _copy_folder(source: Path, target: Path) -> None:
    files, outward_links = walk_files(source)
    if outward_links:
        raise UserError(
            f"{source}: {outward_links[0]} is a link that leads out of the folder; put the file itself there, "
            "or add the folder that it leads to"
        )
    for folder in {os.path.dirname(path) for path in files}:
        os.makedirs(os.path.join(target, folder), exist_ok=True)
    for path in progress(files, label=f"copying {source.name}", unit="file"):
        # shutil.copyfile examines both files five times, which takes a third of the time of a small image
        with (
            open(os.path.join(source, path), "rb", buffering=0) as original,
            open(os.path.join(target, path), "wb") as copy,
        ):
            shutil.copyfileobj(original, copy, _COPY_BUFFER)


def _require_same_content(card: DatasetCard, source: Path, home: Path) -> None:
    """Refuse a source whose labels or images differ from the existing copy.

    Raises:
        UserError: the source differs. The message contains the first difference and how to replace the copy.
    """
    if source.is_file() and source.suffix.lower() not in TABLES:
        with tempfile.TemporaryDirectory(dir=home.parent, prefix=f".{card.name}.", suffix=".adding") as folder:
            extract(source, Path(folder) / card.name)
            difference = _first_difference(card, Path(folder) / card.name, home)
    else:
        difference = _first_difference(card, source, home)
    if difference:
        raise UserError(
            f"dataset '{card.name}' is there already, and {source} differs from it: {difference}. Nothing was changed; "
            f"`agebench data import {card.name} {source} --replace` takes the new copy"
        )


def _first_difference(card: DatasetCard, source: Path, home: Path) -> str:
    """Describe the first difference between two copies, as a sentence fragment; empty if they are equal."""
    copies = [open_copy(card, root) for root in (home, source)]
    old, new = (reader.read().table.set_index("sample_id") for reader in copies)
    added, removed = new.index.difference(old.index), old.index.difference(new.index)
    if len(added) or len(removed):
        example = f"'{added[0]}' is new" if len(added) else f"'{removed[0]}' is gone"
        return f"{len(added)} images more and {len(removed)} fewer, {example}"
    new = new.loc[old.index]
    for column in dict.fromkeys([*new.columns.difference(["path"]), *old.columns.difference(["path"])]):
        before, after = (to_text(table[column]) if column in table else None for table in (old, new))
        if before is None or after is None:
            return f"the column {column} is {'new' if before is None else 'gone'}"
        is_changed = (before.fillna("") != after.fillna("")).to_numpy()
        if is_changed.any():
            row = int(np.flatnonzero(is_changed)[0])
            return (
                f"{int(is_changed.sum())} values of {column} changed, the first is '{old.index[row]}': "
                f"{before.iloc[row]} there, {after.iloc[row]} in the new copy"
            )
    sizes = [
        [_file_size(reader, path) for path in table["path"]] for reader, table in zip(copies, (old, new), strict=True)
    ]
    changed_ids = [name for name, before, after in zip(old.index, *sizes, strict=True) if before != after]
    if changed_ids:
        return f"{len(changed_ids)} images changed, the first is '{changed_ids[0]}'"
    sample = np.unique(np.linspace(0, len(old) - 1, min(CONTENT_SAMPLE_SIZE, len(old))).astype(int))
    paths = list(zip(old["path"].iloc[sample], new["path"].iloc[sample], strict=True))
    changed_ids = [
        name
        for name, pair in zip(old.index[sample], progress(paths, label="comparing images", unit="img"), strict=True)
        if _has_other_content(copies, pair)
    ]
    return (
        f"{len(changed_ids)} of {len(sample)} compared images changed, the first is '{changed_ids[0]}'"
        if changed_ids
        else ""
    )


def _has_other_content(copies: Sequence[Reader], paths: tuple[str, str]) -> bool:
    """Return whether an image differs between two copies; a part of an image is compared with the whole one."""
    if len({reader.version_token(path) for reader, path in zip(copies, paths, strict=True)}) == 1:
        return False
    return len({_content(reader, reader.whole_image(path)) for reader, path in zip(copies, paths, strict=True)}) > 1


def _content(reader: Reader, path: str) -> bytes | None:
    """Read an encoded image; None if it cannot be read, which verification reports."""
    try:
        return reader.image_bytes(path)
    except (ImageRejectedError, OSError):
        return None


def _file_size(reader: Reader, path: str) -> int | None:
    file = reader.root / path if reader.root is not None else None
    return file.stat().st_size if file is not None and file.is_file() else None
