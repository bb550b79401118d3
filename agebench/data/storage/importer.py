"""Where datasets live on this machine, how they get there, and whether they are whole."""

import io
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout
from PIL import Image

from agebench.config.cards.base import DatasetCard
from agebench.data.image_io import FORMATS, open_image
from agebench.data.readers import Reader, open_reader, readers
from agebench.data.readers.base import walk_files
from agebench.data.readers.patterns import to_text
from agebench.data.readers.table_io import TABLES
from agebench.data.reject_reasons import TITLES, count_codes
from agebench.data.samples import COLUMNS, Samples
from agebench.data.storage.archives import CorruptArchiveError, extract, write_failure
from agebench.data.storage.download import download
from agebench.errors import DatasetNotFoundError, ImageRejectedError, RejectReason, UserError
from agebench.utils.locks import held
from agebench.utils.parallel import parallel_map
from agebench.utils.paths import cache_home, data_home
from agebench.utils.progress import progress

VERIFY_SAMPLE_SIZE = 200
# Inside a staging folder: the copy that makes room for the new one, and a mark that the new one was read and is good.
_REPLACED, _EXAMINED, _DISCARDED = ".replaced", ".examined", ".discarded"
# A dataset of which more rows are rejected for one reason was probably read wrongly.
REJECTED_LIMIT = 0.02
# Sides of a crop differ by no more; photographs are 4 : 3 and 3 : 2.
MOST_OBLONG = 1.25
OBLONG_LIMIT = 0.1


@dataclass(frozen=True)
class ImportReport:
    """What `add` did.

    Attributes:
        name: the dataset.
        root: where it lives now.
        images: usable images.
        put_aside: images in quarantine.
        already: it was there before, and nothing was done.
        problems: what is wrong with the copy, a sentence each; see `VerifyReport`.
    """

    name: str
    root: Path
    images: int
    rejected: int
    was_present: bool = False
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class VerifyReport:
    """What `check` found.

    Attributes:
        name: the dataset.
        root: where it lives; None for one that needs no files.
        images: usable images by their labels.
        expected: images that a whole copy has, by the card; None if the card does not say.
        put_aside: code of a reason -> how many images are in quarantine for it.
        details: code of a reason -> its sentence for the first image.
        decoded: images that were opened.
        unreadable: path -> why it cannot be opened.
        problems: what is wrong, a sentence each; empty for a good copy.
    """

    name: str
    root: Path | None
    images: int = 0
    expected: int | None = None
    rejected: dict[str, int] = field(default_factory=dict)
    details: dict[str, str] = field(default_factory=dict)
    decoded: int = 0
    unreadable: dict[str, str] = field(default_factory=dict)
    problems: tuple[str, ...] = ()


def dataset_dir(card: DatasetCard) -> Path:
    """Where a dataset's files belong: a folder of the dataset's name under `AGEBENCH_DATA`."""
    return data_home() / card.name


def needs_files(card: DatasetCard) -> bool:
    """Whether the dataset is read from files, and not made as it is read."""
    kind: type[Reader] = readers.get(card.reader)
    return kind.needs_files


def locate(card: DatasetCard) -> Path | None:
    """The folder (or linked table) that holds the dataset; None for one that needs no files.

    Raises:
        DatasetNotFoundError: it is not there; the message says where it was looked for, how to get it and under what licence.
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
            f"Put it back, or `agebench data add {card.name} PATH` with its new place."
        )
    get = f"`agebench data get {card.name}` downloads it; or " if download_source(card) else ""
    how = card.how_to_get or "get it from its owners"
    page = f" ({card.homepage})" if card.homepage else ""
    raise DatasetNotFoundError(
        f"dataset '{card.name}' ({card.title}) is not on this machine: looked in {home}.\n"
        f"{get}{how}{page}, then `agebench data add {card.name} PATH`. Licence: {card.licence}."
    )


def recover(card: DatasetCard) -> None:
    """Put a copy back that a killed `add` or `get` had moved, and remove that call's staging folders.

    A call that is still at work is left alone. Nothing is deleted that may be the only copy; what was put back is
    reported on standard error.
    """
    home = dataset_dir(card)
    if not _staging_folders(home):
        return
    with suppress(Timeout, OSError), FileLock(_lock_file(home), timeout=0):  # at work, or a folder that is only read
        for staging in _staging_folders(home):
            _settle(card, home, staging)


def open_dataset_reader(card: DatasetCard) -> Reader:
    """The card's reader over the dataset's files.

    Raises:
        DatasetNotFoundError: see `locate`.
        UserError: the card names a reader or an option that does not exist.
    """
    return _reader(card, locate(card))


def import_dataset(
    card: DatasetCard, source: Path, *, link: bool = False, allow_partial: bool = False, replace: bool = False
) -> ImportReport:
    """Bring a dataset to where agebench looks for it: extract an archive, copy a folder, or link to a folder.

    What arrives is read with the card's reader before it takes its place. A copy that is there and good stays, unless
    `replace`; one that is there and not good is replaced.

    Args:
        card: the dataset.
        source: a tar or zip archive, a folder, or (with `link`) a table beside its images.
        link: leave a folder where it is and only point to it.
        allow_partial: accept another number of images, and fewer labels, than the card announces.
        replace: also replace a good copy.

    Raises:
        UserError: the source is missing, unsafe, damaged, of another format or of another size than the card says.
        AgebenchError: the disk is full, or the place cannot be written.
    """
    if not needs_files(card):
        raise UserError(f"dataset '{card.name}' is made as it is read: there is nothing to add")
    source, home = source.expanduser().resolve(), dataset_dir(card)
    if not source.exists():
        raise UserError(f"{source}: no such file or folder")
    _reader(card, source)  # a wrong option is found before gigabytes are copied
    if source != home.resolve() and source.is_relative_to(home.resolve()) and not home.is_symlink():
        raise UserError(
            f"{source}: lies inside {home}, the copy that it would replace, and would be deleted with it; move it elsewhere first"
        )
    keep = not (replace and home.resolve() != source)
    report = _take(card, partial(_bring, source, link=link), str(source), allow_partial, keep=keep)
    if report.was_present and home.resolve() != source:
        _refuse_other(card, source, home)
    return report


def download_source(card: DatasetCard) -> str:
    """The open source that `get` gets the dataset from; empty if there is none."""
    kind: type[Reader] = readers.get(card.reader)
    return card.url or kind.download_source(card.options)


def download_dataset(card: DatasetCard, *, allow_partial: bool = False) -> ImportReport:
    """Download a dataset from the open source that its card names, and add it; a good copy that is there stays.

    Raises:
        UserError: the card names no open source; the message says how the dataset is got.
        AgebenchError: the download failed; what was received is kept and the same call continues.
    """
    source = download_source(card)
    if not source:
        how = card.how_to_get or "get it from its owners"
        raise UserError(
            f"dataset '{card.name}' has no open source: {how}{f' ({card.homepage})' if card.homepage else ''}, "
            f"then `agebench data add {card.name} PATH`. Licence: {card.licence}."
        )
    recover(card)
    present = _present(card, dataset_dir(card), allow_partial)
    if present:
        return present
    if not card.url:
        kind: type[Reader] = readers.get(card.reader)
        return _take(card, partial(kind.download, options=card.options), source, allow_partial, keep=True)
    archive = download(card.url, cache_home() / "downloads" / card.name, sha256=card.sha256)
    try:
        report = import_dataset(card, archive, allow_partial=allow_partial)
    except CorruptArchiveError:
        archive.unlink(missing_ok=True)  # the next call downloads it anew
        raise
    archive.unlink(missing_ok=True)  # another call may have had it too
    return report


def verify_dataset(card: DatasetCard, *, full: bool = False) -> VerifyReport:
    """Read a dataset's labels again and open its images: `SAMPLE` of them, evenly spaced, or all if `full`.

    Raises:
        DatasetNotFoundError: it is not there.
    """
    root = locate(card)
    try:
        reader = _reader(card, root)
        samples = reader.read()
    except UserError as error:
        return VerifyReport(card.name, root, expected=card.count, problems=(str(error),))
    paths = samples.table["path"].tolist()
    if not full and len(paths) > VERIFY_SAMPLE_SIZE:
        paths = [paths[row] for row in np.linspace(0, len(paths) - 1, VERIFY_SAMPLE_SIZE).astype(int)]
    unreadable = _unreadable(reader, paths, card.name)
    problems = []
    if card.count is not None and len(samples) != card.count:
        problems.append(f"{len(samples)} usable images, a whole copy has {card.count}")
    if unreadable:
        path, reason = next(iter(unreadable.items()))
        problems.append(f"{len(unreadable)} of {len(paths)} images cannot be opened, the first is {path}: {reason}")
    problems = [*_problems(card, reader, samples), *problems]
    aside = samples.rejected
    details = {str(code): str(reason) for code, reason in aside.groupby("code")["reason"].first().items()}
    return VerifyReport(
        card.name,
        root,
        len(samples),
        card.count,
        count_codes(aside),
        details,
        len(paths),
        unreadable,
        tuple(problems),
    )


def _reader(card: DatasetCard, root: Path | None) -> Reader:
    return open_reader(card.reader, root, card.groups, card.options, source=f"dataset card '{card.name}'")


def _take(
    card: DatasetCard, bring: Callable[[Path], None], source: str, allow_partial: bool, *, keep: bool
) -> ImportReport:
    """Let `bring` make the dataset's folder aside, read it, and put it in its place; with `keep` a good copy stays."""
    home = dataset_dir(card)
    try:
        home.parent.mkdir(parents=True, exist_ok=True)
        with held(_lock_file(home), f"adding {card.name}"):
            for leftover in _staging_folders(home):
                _settle(card, home, leftover)  # of a call that was killed: this one holds the lock
            present = _present(card, home, allow_partial) if keep else None
            if present:
                return present
            staging = Path(tempfile.mkdtemp(dir=home.parent, prefix=f".{card.name}.", suffix=".adding"))
            try:
                arrived = staging / card.name
                bring(arrived)
                samples = _examine(card, arrived, source, allow_partial)
                (staging / _EXAMINED).touch()
                if _is_there(home):
                    home.rename(staging / _REPLACED)
                arrived.rename(home)
            finally:
                _settle(card, home, staging)
    except OSError as error:
        raise write_failure(home, error) from error
    problems = _problems(card, _reader(card, home), samples)
    return ImportReport(card.name, home, len(samples), len(samples.rejected), problems=problems)


def _lock_file(home: Path) -> Path:
    return home.parent / f".{home.name}.lock"


def _staging_folders(home: Path) -> list[Path]:
    """What calls for this dataset left or work in; the dot keeps `a` apart from a dataset called `a.b`."""
    pattern = re.compile(rf"\.{re.escape(home.name)}\.[^.]+\.adding")
    try:
        return sorted(path for path in home.parent.iterdir() if pattern.fullmatch(path.name))
    except OSError:
        return []


def _is_there(path: Path) -> bool:
    return path.is_symlink() or path.exists()


def _settle(card: DatasetCard, home: Path, staging: Path) -> None:
    """Remove a staging folder; first, where a call stopped between its two renames, put a copy in its place.

    The new copy if the call had found it good and it can be read, else the one that was there before.
    """
    arrived, replaced, examined = staging / card.name, staging / _REPLACED, staging / _EXAMINED
    if not _is_there(home):
        if examined.exists() and _is_there(arrived) and _is_readable(card, arrived):
            with suppress(OSError):
                arrived.rename(home)
                _report(card, f"the new copy had been read and found good; it is now at {home}")
        if not _is_there(home) and _is_there(replaced):
            replaced.rename(home)
            _report(card, f"the copy that was there before is back at {home}; add the new one again")
    if _is_there(replaced):
        getattr(os, "sync", lambda: None)()  # the old copy goes only when the new one has reached the disk
        replaced.rename(staging / _DISCARDED)  # half deleted, it must never be taken for a copy
    with suppress(OSError):
        examined.unlink(missing_ok=True)
    shutil.rmtree(staging, ignore_errors=True)


def _is_readable(card: DatasetCard, root: Path) -> bool:
    with suppress(UserError, OSError):
        return len(_examine(card, root, str(root), allow_partial=True)) > 0
    return False


def _report(card: DatasetCard, outcome: str) -> None:
    print(
        f"agebench: dataset '{card.name}': a call that put a copy in place was stopped before it ended: {outcome}",
        file=sys.stderr,
    )


def _present(card: DatasetCard, home: Path, allow_partial: bool) -> ImportReport | None:
    """The report on a good copy that is there already."""
    if home.exists():
        with suppress(UserError):
            samples = _examine(card, home, str(home), allow_partial)
            problems = _problems(card, _reader(card, home), samples)
            return ImportReport(
                card.name, home, len(samples), len(samples.rejected), was_present=True, problems=problems
            )
    return None


def _bring(source: Path, arrived: Path, *, link: bool) -> None:
    if link:
        try:
            arrived.symlink_to(source, target_is_directory=source.is_dir())
        except (OSError, NotImplementedError) as error:
            raise UserError(f"{arrived}: links cannot be made here ({error}); leave out --link to copy") from error
    elif source.is_dir():
        _copy(source, arrived)
    else:
        extract(source, arrived)


def _copy(source: Path, arrived: Path) -> None:
    files, outward = walk_files(source)
    if outward:
        raise UserError(
            f"{source}: {outward[0]} is a link that leads out of the folder; put the file itself there, "
            "or add the folder that it leads to"
        )
    for path in progress(files, label=f"copying {source.name}", unit="file"):
        target = arrived / path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / path, target)


def _examine(card: DatasetCard, root: Path, source: str, allow_partial: bool) -> Samples:
    """The samples in `root`, if it is what the card announces; messages speak of `source`."""
    try:
        samples = _reader(card, root).read()
    except UserError as error:
        if str(root) == source:
            raise
        raise UserError(str(error).replace(str(root), source)) from error
    if allow_partial:
        return samples
    for label in card.labels:
        if label in COLUMNS and (label not in samples.table or samples.table[label].isna().all()):
            raise UserError(
                f"{source}: no image has {label}, which the card of '{card.name}' announces. "
                "Get a whole copy, or take this one with --allow-partial."
            )
    if card.count is not None and len(samples) != card.count:
        aside = samples.rejected
        why = f" ({len(aside)} put aside, the first: {aside['reason'].iloc[0]})" if len(aside) else ""
        raise UserError(
            f"{source}: {len(samples)} usable images{why}, but a whole copy of '{card.name}' has {card.count}. "
            "Get a whole copy, or take this one with --allow-partial."
        )
    return samples


def _problems(card: DatasetCard, reader: Reader, samples: Samples) -> tuple[str, ...]:
    """What makes a dataset doubtful as a whole, the most frequent reason first."""
    aside = samples.rejected
    rows = len(samples) + len(aside)
    is_whole = card.count is not None and len(samples) == card.count
    problems = []
    for code, count in () if is_whole else count_codes(aside).items():
        if count > REJECTED_LIMIT * rows and code not in card.expected_rejections:
            first = aside[aside["code"] == code].iloc[0]
            problems.append(
                f"{count:,} of {rows:,} rows ({100 * count / rows:.1f} %) are rejected as {code} "
                f"({TITLES[RejectReason(code)]}), the first is {first['path']}: {first['reason']}"
            )
    return (*problems, *_framing_problem(card, reader, samples, is_whole=is_whole))


def _framing_problem(card: DatasetCard, reader: Reader, samples: Samples, *, is_whole: bool) -> list[str]:
    """Whole photographs where the card announces aligned crops: what the center of the photograph shows is no face."""
    if card.faces != "none" or is_whole:
        return []
    paths = samples.table["path"].unique().tolist()
    chosen = [paths[row] for row in np.linspace(0, len(paths) - 1, min(VERIFY_SAMPLE_SIZE, len(paths))).astype(int)]
    sizes = {path: size for path in chosen if (size := image_size(reader, path)) is not None}
    oblong = [path for path, (width, height) in sizes.items() if max(width, height) > MOST_OBLONG * min(width, height)]
    if len(oblong) <= OBLONG_LIMIT * len(sizes):
        return []
    width, height = sizes[oblong[0]]
    return [
        f"{len(oblong)} of {len(sizes)} images looked at are not square, the first is {oblong[0]} with {width} x {height} "
        "pixels: these seem to be whole photographs, and faces = 'none' on the card announces aligned crops. Get the "
        'aligned and cropped faces, or let a detector find them: faces = "detect"'
    ]


def image_size(reader: Reader, path: str) -> tuple[int, int] | None:
    """Width and height as stored, without decoding the image; None where it cannot be read."""
    try:
        with Image.open(io.BytesIO(reader.image_bytes(path)), formats=FORMATS) as image:
            return image.size
    except Exception:  # a damaged image is another finding
        return None


def _refuse_other(card: DatasetCard, source: Path, home: Path) -> None:
    """Refuse a source whose labels or images differ from the copy that is there and stays.

    Raises:
        UserError: it differs; the message says where first, and how to replace the copy.
    """
    if source.is_file() and source.suffix.lower() not in TABLES:
        with tempfile.TemporaryDirectory(dir=home.parent, prefix=f".{card.name}.", suffix=".adding") as folder:
            extract(source, Path(folder) / card.name)
            difference = _difference(card, Path(folder) / card.name, home)
    else:
        difference = _difference(card, source, home)
    if difference:
        raise UserError(
            f"dataset '{card.name}' is there already, and {source} differs from it: {difference}. Nothing was changed; "
            f"`agebench data add {card.name} {source} --replace` takes the new copy"
        )


def _difference(card: DatasetCard, source: Path, home: Path) -> str:
    """The first difference between two copies, as a part of a sentence; empty for none."""
    readers = [_reader(card, root) for root in (home, source)]
    old, new = (reader.read().table.set_index("sample_id") for reader in readers)
    added, gone = new.index.difference(old.index), old.index.difference(new.index)
    if len(added) or len(gone):
        example = f"'{added[0]}' is new" if len(added) else f"'{gone[0]}' is gone"
        return f"{len(added)} images more and {len(gone)} fewer, {example}"
    new = new.loc[old.index]
    for column in dict.fromkeys([*new.columns.difference(["path"]), *old.columns.difference(["path"])]):
        before, after = (to_text(table[column]) if column in table else None for table in (old, new))
        if before is None or after is None:
            return f"the column {column} is {'new' if before is None else 'gone'}"
        changed = (before.fillna("") != after.fillna("")).to_numpy()
        if changed.any():
            row = int(np.flatnonzero(changed)[0])
            return (
                f"{int(changed.sum())} values of {column} changed, the first is '{old.index[row]}': "
                f"{before.iloc[row]} there, {after.iloc[row]} in the new copy"
            )
    sizes = [
        [_file_size(reader, path) for path in table["path"]] for reader, table in zip(readers, (old, new), strict=True)
    ]
    other = [name for name, before, after in zip(old.index, *sizes, strict=True) if before != after]
    return f"{len(other)} images changed, the first is '{other[0]}'" if other else ""


def _file_size(reader: Reader, path: str) -> int | None:
    file = reader.root / path if reader.root is not None else None
    return file.stat().st_size if file is not None and file.is_file() else None


def _unreadable(reader: Reader, paths: Sequence[str], name: str) -> dict[str, str]:
    found: dict[str, str] = {}
    with progress(total=len(paths), label=f"{name}: opening images", unit="img") as bar:
        for part in parallel_map(partial(_open_all, reader), list(paths)):
            found.update(part)
            bar.update(1)
    return found


def _open_all(reader: Reader, paths: Sequence[str]) -> dict[str, str]:
    found = {}
    for path in paths:
        try:
            open_image(reader.image_bytes(path))
        except ImageRejectedError as refusal:
            found[path] = str(refusal)
        except OSError as error:
            found[path] = f"cannot be read: {error.strerror or error}"
    return found
