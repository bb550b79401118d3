"""Verification of datasets on this machine: labels are read again and images opened."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from agebench.config.cards.dataset import DatasetCard
from agebench.data.image_io import open_image
from agebench.data.readers import Reader
from agebench.data.reject_reasons import count_codes
from agebench.data.storage.checks import VERIFY_SAMPLE_SIZE, find_problems, open_copy
from agebench.data.storage.locate import locate
from agebench.errors import ImageRejectedError, UserError
from agebench.utils.parallel import parallel_map
from agebench.utils.progress import progress


@dataclass(frozen=True)
class VerifyReport:
    """Result of `verify_dataset`.

    Attributes:
        name: name of the dataset.
        root: folder of the dataset; None for a dataset that needs no files.
        images: number of usable images by their labels.
        expected: number of images in a whole copy, from the card; None if the card does not specify it.
        rejected: rejection code -> number of rejected images.
        details: rejection code -> detail of the first image.
        decoded: number of images that were opened.
        unreadable: path -> why the image cannot be opened.
        problems: one sentence per problem; empty for a good copy.
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


def verify_dataset(card: DatasetCard, *, full: bool = False) -> VerifyReport:
    """Read a dataset's labels again and open its images.

    Args:
        card: the dataset's card.
        full: open all images; otherwise `VERIFY_SAMPLE_SIZE` of them, evenly spaced.

    Raises:
        DatasetNotFoundError: the dataset is not on this machine.
    """
    root = locate(card)
    try:
        reader = open_copy(card, root)
        samples = reader.read()
    except UserError as error:
        return VerifyReport(card.name, root, expected=card.count, problems=(str(error),))
    paths = samples.table["path"].tolist()
    if not full and len(paths) > VERIFY_SAMPLE_SIZE:
        paths = [paths[row] for row in np.linspace(0, len(paths) - 1, VERIFY_SAMPLE_SIZE).astype(int)]
    unreadable = _find_unreadable(reader, paths, card.name)
    problems = [*find_problems(card, reader, samples)]
    if card.count is not None and len(samples) != card.count:
        problems.append(f"{len(samples)} usable images, a whole copy has {card.count}")
    if unreadable:
        path, reason = next(iter(unreadable.items()))
        problems.append(f"{len(unreadable)} of {len(paths)} images cannot be opened, the first is {path}: {reason}")
    details = samples.rejected.groupby("code")["reason"].first()
    return VerifyReport(
        name=card.name,
        root=root,
        images=len(samples),
        expected=card.count,
        rejected=count_codes(samples.rejected),
        details={str(code): str(reason) for code, reason in details.items()},
        decoded=len(paths),
        unreadable=unreadable,
        problems=tuple(problems),
    )


def _find_unreadable(reader: Reader, paths: Sequence[str], name: str) -> dict[str, str]:
    """Map the path of each image that cannot be opened to the reason."""
    unreadable: dict[str, str] = {}
    with progress(total=len(paths), label=f"{name}: opening images", unit="img") as bar:
        for reasons in parallel_map(partial(_open_images, reader), list(paths)):
            unreadable.update(reasons)
            bar.update(1)
    return unreadable


def _open_images(reader: Reader, paths: Sequence[str]) -> dict[str, str]:
    reasons = {}
    for path in paths:
        try:
            open_image(reader.image_bytes(path))
        except ImageRejectedError as rejection:
            reasons[path] = str(rejection)
        except OSError as error:
            reasons[path] = f"cannot be read: {error.strerror or error}"
    return reasons
