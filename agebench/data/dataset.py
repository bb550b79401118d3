"""Datasets in Python: a card, its samples as a data frame, its images as arrays, and its faces as a torch dataset."""

import html
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from agebench.config.cards.dataset import DatasetCard
from agebench.data.digests import add_digests
from agebench.data.faces.alignment import AlignmentSpec
from agebench.data.faces.cache import load_or_build_face_cache
from agebench.data.faces.detectors.base import default_detector
from agebench.data.image_io import open_image
from agebench.data.readers import Reader
from agebench.data.samples import Samples
from agebench.data.storage.locate import open_dataset_reader
from agebench.registry.catalog import Catalog, load_catalog

if TYPE_CHECKING:
    import datasets

    from agebench.data.torch_dataset import TorchFaceDataset


@dataclass(frozen=True, repr=False)
class Dataset:
    """A dataset on this machine, as `load_dataset` opens it.

    Attributes:
        card: the dataset's card: title, license, citation, face preparation.
        reader: reader of the dataset's files.
        samples: the usable samples with digests, and the rejected ones with their reasons.
    """

    card: DatasetCard
    reader: Reader
    samples: Samples

    @property
    def name(self) -> str:
        """Name of the dataset."""
        return self.card.name

    @property
    def frame(self) -> pd.DataFrame:
        """Usable samples, one row per image.

        The columns are those of `Samples.table`: sample_id, path, age (years), gender, ….

        The frame is shared with the dataset; copy it before changing it.
        """
        return self.samples.table

    @property
    def rejected(self) -> pd.DataFrame:
        """Rejected images: sample_id, path, code (a `RejectReason`), reason (a sentence)."""
        return self.samples.rejected

    def __len__(self) -> int:
        return len(self.samples)

    def __repr__(self) -> str:
        return f"<Dataset '{self.name}': {len(self)} images, {len(self.rejected)} rejected>"

    def _repr_html_(self) -> str:
        ages = self.frame["age"]
        rows = {
            "images": f"{len(self):,}",
            "rejected": f"{len(self.rejected):,}",
            "ages": f"{ages.min():g} to {ages.max():g} years, mean {ages.mean():.1f}" if len(self) else "none",
            "subjects": f"{self.frame['subject'].nunique():,}",
            "group columns": ", ".join(self.samples.groups) or "none",
            "license": self.card.licence,
        }
        cells = "".join(f"<tr><th>{title}</th><td>{html.escape(value)}</td></tr>" for title, value in rows.items())
        title = html.escape(f"{self.card.title} ({self.name})")
        return f"<table><caption>{title}</caption>{cells}</table>"

    def image(self, index: int) -> np.ndarray:
        """Decode one image.

        Args:
            index: row of `frame`.

        Returns:
            (height, width, 3) uint8 RGB, upright by its EXIF orientation.

        Raises:
            ImageRejectedError: the image changed since the dataset was opened and cannot be decoded.
        """
        return np.array(open_image(self.reader.image_bytes(self.frame["path"].iloc[index])))

    def to_hf(self) -> "datasets.Dataset":
        """Return the usable images as a dataset of the library `datasets`, for its tools or for a push to the hub.

        The columns are `image` (the file as it is, decoded on access), `age` (years), `sample_id`, and `subject` and the groups as
        far as the dataset has them. They are written once to agebench's cache. Whether they may be passed on depends on the
        license of the images.

        Returns:
            The dataset, in the order of `frame`.

        Raises:
            AgebenchError: the cache cannot be written.

        Examples:
            >>> import agebench as ab
            >>> ab.load_dataset("synth").to_hf().column_names
            ['image', 'age', 'sample_id', 'subject', 'gender', 'race']
        """
        from agebench.data.hf_dataset import build_hf_dataset

        return build_hf_dataset(self.reader, self.samples, name=self.name)

    def to_torch(self, size: int = 224, *, workers: int | None = None) -> "TorchFaceDataset":
        """Return the aligned faces as a map-style torch dataset of (image, age).

        Faces are prepared once, as the card specifies, and read from the cache afterwards. Samples without a usable face
        are not in the torch dataset; its `samples.rejected` lists them.

        Args:
            size: side of the faces, pixels.
            workers: processes that prepare faces; None for one per core.

        Returns:
            A torch dataset whose items are a uint8 tensor (3, size, size), RGB, and the age in years as a float.

        Raises:
            UserError: the card's detector is not installed.
            AgebenchError: the cache cannot be written, or the detector fails.
        """
        from agebench.data.torch_dataset import TorchFaceDataset

        card = self.card
        spec = AlignmentSpec(
            card.faces, size, landmark_points=card.landmark_points, detector=card.detector or default_detector()
        )
        cache = load_or_build_face_cache(self.reader, self.samples, spec, name=self.name, workers=workers)
        return TorchFaceDataset(cache, cache.drop_rejected(self.samples))


def open_dataset(card: DatasetCard, *, workers: int | None = None) -> Dataset:
    """Locate and read a dataset, and reject its unreadable images.

    Args:
        card: the dataset's card.
        workers: processes that read images; None for one per core.

    Raises:
        DatasetNotFoundError: the dataset is not on this machine.
        AgebenchError: more than a tenth of the images cannot be read.
    """
    reader = open_dataset_reader(card)
    return Dataset(card, reader, add_digests(reader, reader.read(), name=card.name, workers=workers))


def load_dataset(name_or_card: str | DatasetCard, *, catalog: Catalog | None = None) -> Dataset:
    """Load a dataset by name or card.

    Args:
        name_or_card: name of a dataset, as `agebench list datasets` shows it, or a card.
        catalog: the cards to search; None for the shipped ones, those of plugins and of `AGEBENCH_REGISTRY`.

    Returns:
        The dataset; its `frame` has one row per usable image.

    Raises:
        UserError: no dataset has this name.
        DatasetNotFoundError: the dataset is not on this machine. The message describes how to get it.
        AgebenchError: more than a tenth of the images cannot be read.
    """
    if isinstance(name_or_card, DatasetCard):
        return open_dataset(name_or_card)
    return open_dataset((catalog or load_catalog()).datasets.get(name_or_card))
