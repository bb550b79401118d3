"""Staging folders of a dataset: a new copy is complete and checked before it replaces the old one.

An import that is killed leaves its staging folder behind; `settle` then restores or finishes it, so that a good copy is
never lost.
"""

import logging
import os
import re
import shutil
from contextlib import suppress
from pathlib import Path

from agebench.config.cards.dataset import DatasetCard
from agebench.data.storage.checks import read_copy
from agebench.errors import UserError

logger = logging.getLogger(__name__)

# Names inside a staging folder: the old copy, a marker that the new copy was checked, and an old copy to be deleted.
REPLACED, CHECKED, _DISCARDED = ".replaced", ".examined", ".discarded"


def lock_file(home: Path) -> Path:
    """Return the lock file of the dataset folder `home`."""
    return home.parent / f".{home.name}.lock"


def staging_folders(home: Path) -> list[Path]:
    """List the staging folders of the dataset folder `home`.

    Those of a dataset `NAME.x` are not included.
    """
    pattern = re.compile(rf"\.{re.escape(home.name)}\.[^.]+\.adding")
    try:
        return sorted(path for path in home.parent.iterdir() if pattern.fullmatch(path.name))
    except OSError:
        return []


def path_exists(path: Path) -> bool:
    """Return whether a path exists, broken links included."""
    return path.is_symlink() or path.exists()


def settle(card: DatasetCard, home: Path, staging: Path) -> None:
    """Remove a staging folder.

    Restore a copy first if an import stopped between its two renames.

    The new copy is used if it was checked and can be read, else the old one. The caller holds the dataset's lock.

    Args:
        card: the dataset's card.
        home: the dataset's folder.
        staging: the staging folder to remove.
    """
    new_copy, replaced, checked = staging / card.name, staging / REPLACED, staging / CHECKED
    if not path_exists(home):
        if checked.exists() and path_exists(new_copy) and _is_readable(card, new_copy):
            with suppress(OSError):
                new_copy.rename(home)
                _report(card, f"the new copy had been read and found good; it is now at {home}")
        if not path_exists(home) and path_exists(replaced):
            replaced.rename(home)
            _report(card, f"the copy that was there before is back at {home}; add the new one again")
    if path_exists(replaced):
        getattr(os, "sync", lambda: None)()  # the old copy is deleted only after the new one has reached the disk
        replaced.rename(staging / _DISCARDED)  # a half deleted copy must never be restored
    with suppress(OSError):
        checked.unlink(missing_ok=True)
    shutil.rmtree(staging, ignore_errors=True)


def _is_readable(card: DatasetCard, root: Path) -> bool:
    with suppress(UserError, OSError):
        return len(read_copy(card, root, allow_partial=True)) > 0
    return False


def _report(card: DatasetCard, outcome: str) -> None:
    logger.warning("dataset '%s': an import was interrupted before it ended: %s", card.name, outcome)
