"""The contract of datasets: the card describes the data, and the reader returns Samples."""

import pickle
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from agebench.config.cards.dataset import DatasetCard
from agebench.data.image_io import open_image
from agebench.data.readers import Reader, open_reader, readers
from agebench.data.readers.vocabulary import VOCABULARY
from agebench.data.samples import AGE_LIMITS, COLUMNS, QUARANTINE, Samples
from agebench.data.storage.locate import dataset_dir
from agebench.errors import AgebenchError, UserError
from agebench.plugins.testing.violation import violation
from agebench.registry.catalog import load_catalog

IMAGES = 32


def check_dataset(dataset: str | DatasetCard, *, root: Path | None = None) -> str:
    """Check the card of a dataset, and its samples and images if they are on this machine.

    Args:
        dataset: name of a dataset, or its card.
        root: folder of the data; None: the folder of `agebench data import`. Without data only the card is checked.

    Returns:
        A description of the checks.

    Raises:
        ContractViolation: a rule of the contract is violated.
    """
    card = load_catalog().datasets.get(dataset) if isinstance(dataset, str) else dataset
    for problem in _card(card):
        raise violation("dataset", card.name, problem)
    root = (root or dataset_dir(card)) if readers.get(card.reader).needs_files else None
    try:
        reader = open_reader(card.reader, root, card.groups, card.options, source="its card")
        if root is not None and not root.exists():
            return "only the card: the data are not on this machine"
        samples = reader.read()
    except Exception as error:  # a third party's reader may raise anything
        kind = "" if isinstance(error, AgebenchError) else f"{type(error).__name__}: "
        raise violation("dataset", card.name, f"its samples cannot be read: {kind}{error}") from error
    for problem in _samples(card, reader, samples):
        raise violation("dataset", card.name, problem)
    n_opened = 0
    for problem in _images(reader, samples):
        if problem:
            raise violation("dataset", card.name, problem)
        n_opened += 1
    return f"{len(samples)} samples, {n_opened} images opened"


def _card(card: DatasetCard) -> Iterator[str]:
    try:
        kind: Any = readers.get(card.reader)
    except UserError as error:
        yield str(error)
        return
    if not (isinstance(kind, type) and issubclass(kind, Reader)):
        yield f"its reader '{card.reader}' is no subclass of agebench.data.readers.Reader: derive it from there"
        return
    if not card.licence.strip():
        yield "the card's licence is empty; write the terms, or `unknown`"
    if kind.needs_files and not (card.how_to_get or card.url or card.homepage):
        yield "the card does not describe how to get the data: fill in how_to_get, url or homepage"
    if card.url and not card.sha256 and not card.url.startswith("https://"):
        yield f"url = {card.url!r} is neither https nor guarded by a sha256: give one"
    if "age" not in card.labels:
        yield f"labels = {list(card.labels)} does not contain age, which every dataset must have"
    if card.faces == "landmarks" and len(card.landmark_points) != 3:
        yield (
            f"faces = 'landmarks' needs three landmark_points (image-left eye, image-right eye, nose base), "
            f"there are {len(card.landmark_points)}"
        )


def _samples(card: DatasetCard, reader: Reader, samples: Any) -> Iterator[str]:
    if not isinstance(samples, Samples):
        yield f"read returns {type(samples).__name__}; it must be agebench.data.samples.Samples, see validate_samples there"
        return
    table = samples.table
    missing = [column for column in ("sample_id", "path", "age", *card.groups) if column not in table]
    if missing:
        yield f"samples have no column {missing[0]}; make them with validate_samples, and list only existing columns in groups"
        return
    if not len(table):
        yield "there is no sample"
        return
    if not table["sample_id"].is_unique:
        yield f"sample_id '{table.loc[table['sample_id'].duplicated(), 'sample_id'].iloc[0]}' occurs twice; ids must be unique"
    ages = table["age"].to_numpy()
    if ages.dtype != np.float64 or not ((ages >= AGE_LIMITS[0]) & (ages <= AGE_LIMITS[1])).all():
        yield f"ages are not all float64 within {AGE_LIMITS}; reject other rows, see validate_samples"
    wrong = [
        path for path in table["path"] if "\\" in path or PurePosixPath(path).is_absolute() or ".." in path.split("/")
    ]
    if wrong:
        yield f"path {wrong[0]!r} is not relative to the dataset's root with forward slashes; a copy elsewhere would not find it"
    for column, known in VOCABULARY.items():
        unknown = set(table[column].dropna()) - set(known.values()) if column in table else set()
        if unknown:
            yield f"{column} '{min(map(str, unknown))}' is none of {', '.join(dict.fromkeys(known.values()))}: translate it"
    for label in card.labels:
        is_read = label in COLUMNS or label in card.groups  # others describe what the source has
        if is_read and (label not in table or table[label].isna().all()):
            yield f"the card announces the label {label}, and no sample has it: take it out of labels, or read it"
    for group in card.groups:
        if table[group].isna().all():
            yield f"the card announces the group {group}, and no sample has it: take it out of groups, or read it"
    if {"age_low", "age_high"} <= set(table) and (table["age_low"] > table["age_high"]).any():
        yield "age_low is above age_high in a sample: they are the ends of the label's range"
    if list(samples.rejected.columns) != [*QUARANTINE]:
        yield f"rejected must have the columns {', '.join(QUARANTINE)}; make it with agebench.data.samples.rejected_rows"
    if list(reader.read().table["sample_id"]) != list(table["sample_id"]):
        yield "a second read gives other samples or another order: sort what the file system lists, draw from a fixed seed"
    if card.count is not None and len(samples) > card.count:
        yield f"{len(samples)} samples, but the card's count is {card.count}: that is the number of a whole copy"


def _images(reader: Reader, samples: Samples) -> Iterator[str]:
    """Yield "" for each image that could be opened, else its problem."""
    try:
        reader = pickle.loads(pickle.dumps(reader))
    except Exception as error:  # attributes of the reader may be of any type
        yield f"its reader cannot be pickled, and images are read in several processes: {error}"
        return
    paths = samples.table["path"].tolist()
    for row in np.unique(np.linspace(0, len(paths) - 1, min(IMAGES, len(paths))).astype(int)):
        path = paths[row]
        try:
            content: Any = reader.image_bytes(path)
        except Exception as error:
            yield f"image_bytes({path!r}) raises {type(error).__name__}: {error}; it must return the file's bytes"
            return
        if not isinstance(content, bytes):
            yield f"image_bytes({path!r}) gives {type(content).__name__}; it must be the encoded image's bytes"
            return
        try:
            open_image(content)
        except AgebenchError as error:
            yield f"{path} is listed as a usable image and cannot be opened: {error}"
            return
        if reader.version_token(path) != reader.version_token(path):
            yield f"version_token({path!r}) changes from call to call; it must change only when the image does"
        yield ""
