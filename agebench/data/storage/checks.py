"""Checks of one copy of a dataset: readable as its card specifies, complete, and read without suspicious rejections."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from agebench.config.cards.dataset import DatasetCard
from agebench.data.image_io import FORMATS
from agebench.data.readers import Reader, open_reader
from agebench.data.reject_reasons import TITLES, count_codes
from agebench.data.samples import COLUMNS, Samples
from agebench.errors import UserError
from agebench.types import RejectReason

# Images that are opened to verify a dataset.
VERIFY_SAMPLE_SIZE = 200
# A dataset in which a larger share of the rows is rejected for one reason was probably read incorrectly.
REJECTED_LIMIT = 0.02
# Largest ratio of the sides of an aligned crop; photographs are 4 : 3 and 3 : 2.
MAX_CROP_ASPECT = 1.25
# Largest share of images with a greater ratio of sides in a dataset of aligned crops.
OBLONG_LIMIT = 0.1


def open_copy(card: DatasetCard, root: Path | None) -> Reader:
    """Open the card's reader on a copy of the dataset.

    Args:
        card: the dataset's card.
        root: folder, archive or table of the copy; None for a dataset that needs no files.

    Raises:
        UserError: the card names a reader or an option that does not exist.
    """
    return open_reader(card.reader, root, card.groups, card.options, source=f"dataset card '{card.name}'")


def read_copy(card: DatasetCard, root: Path, *, source: str = "", allow_partial: bool = False) -> Samples:
    """Read the samples of a copy, and require that it is complete.

    A complete copy has the labels and the number of images that the card specifies.

    Args:
        card: the dataset's card.
        root: folder of the copy.
        source: name of the copy in error messages; empty for `root`.
        allow_partial: accept another number of images, and missing labels.

    Raises:
        UserError: the copy cannot be read, or is incomplete and `allow_partial` is false.
    """
    source = source or str(root)
    try:
        samples = open_copy(card, root).read()
    except UserError as error:
        if str(root) == source:
            raise
        raise UserError(str(error).replace(str(root), source)) from error
    if allow_partial:
        return samples
    for label in card.labels:
        is_read = label in COLUMNS or label in card.groups  # others describe what the source has
        if is_read and (label not in samples.table or samples.table[label].isna().all()):
            raise UserError(
                f"{source}: no image has {label}, which the card of '{card.name}' announces. "
                "Get a whole copy, or take this one with --allow-partial."
            )
    if card.count is not None and len(samples) != card.count:
        rejected = samples.rejected
        detail = f" ({len(rejected)} rejected, the first: {rejected['reason'].iloc[0]})" if len(rejected) else ""
        raise UserError(
            f"{source}: {len(samples)} usable images{detail}, but a whole copy of '{card.name}' has {card.count}. "
            "Get a whole copy, or take this one with --allow-partial."
        )
    return samples


def find_problems(card: DatasetCard, reader: Reader, samples: Samples) -> tuple[str, ...]:
    """Describe suspicious properties of a copy, the most frequent rejection reason first.

    Args:
        card: the dataset's card.
        reader: reader of the copy.
        samples: samples of the copy, with the rejected ones.

    Returns:
        One sentence per problem; empty for a good copy.
    """
    rejected = samples.rejected
    n_rows = len(samples) + len(rejected)
    is_complete = card.count is not None and len(samples) == card.count
    problems = []
    for code, count in () if is_complete else count_codes(rejected).items():
        if count > REJECTED_LIMIT * n_rows and code not in card.expected_rejections:
            first = rejected[rejected["code"] == code].iloc[0]
            problems.append(
                f"{count:,} of {n_rows:,} rows ({100 * count / n_rows:.1f} %) are rejected as {code} "
                f"({TITLES[RejectReason(code)]}), the first is {first['path']}: {first['reason']}"
            )
    if card.faces == "none" and not is_complete:
        problems += _framing_problem(reader, samples)
    return tuple(problems)


def _framing_problem(reader: Reader, samples: Samples) -> list[str]:
    """Detect whole photographs in a dataset of aligned crops: the center of a photograph does not frame a face."""
    paths = samples.table["path"].unique().tolist()
    checked_paths = [
        paths[row] for row in np.linspace(0, len(paths) - 1, min(VERIFY_SAMPLE_SIZE, len(paths))).astype(int)
    ]
    sizes = {path: size for path in checked_paths if (size := _image_size(reader, path)) is not None}
    oblong = [path for path, size in sizes.items() if max(size) > MAX_CROP_ASPECT * min(size)]
    if len(oblong) <= OBLONG_LIMIT * len(sizes):
        return []
    width, height = sizes[oblong[0]]
    return [
        f"{len(oblong)} of {len(sizes)} images looked at are not square, the first is {oblong[0]} with {width} x {height} "
        "pixels: these seem to be whole photographs, and faces = 'none' on the card announces aligned crops. Get the "
        'aligned and cropped faces, or let a detector find them: faces = "detect"'
    ]


def _image_size(reader: Reader, path: str) -> tuple[int, int] | None:
    """Return the stored width and height of an image without decoding it; None if the image cannot be read.

    Args:
        reader: reader of the dataset.
        path: path of the image, from the samples' column `path`.
    """
    try:
        with Image.open(io.BytesIO(reader.image_bytes(path)), formats=FORMATS) as image:
            return image.size
    except Exception:  # damaged images are reported by other checks
        return None
