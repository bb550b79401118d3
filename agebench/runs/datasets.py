"""The datasets of a run: read, audited, less what is excluded, and divided. No torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agebench.config.cards.base import DatasetCard
from agebench.data.digests import add_digests
from agebench.data.exclusions import drop_excluded
from agebench.data.readers import Reader
from agebench.data.samples import Samples
from agebench.data.storage.importer import open_dataset_reader
from agebench.runs.config import RunConfig
from agebench.runs.splits import FoldSplits, make_run_splits


@dataclass(frozen=True)
class LoadedDataset:
    """A dataset of the run: its card, its reader and its audited samples."""

    card: DatasetCard
    reader: Reader
    samples: Samples


def open_dataset(card: DatasetCard) -> LoadedDataset:
    """Find, read and audit a dataset."""
    reader = open_dataset_reader(card)
    return LoadedDataset(card, reader, add_digests(reader, reader.read(), name=card.name))


def apply_exclusions(
    datasets: Mapping[str, LoadedDataset], files: Sequence[str], *, complete: bool = True
) -> tuple[dict[str, Samples], dict[str, Any]]:
    """Return each dataset's samples less what the lists name, and for the manifest what the lists left out.

    Args:
        datasets: by name.
        files: the lists, see `without_excluded`.
        complete: whether `datasets` are all datasets of the run.
    """
    samples, found = drop_excluded(
        {name: dataset.samples for name, dataset in datasets.items()}, files, complete=complete
    )
    return samples, {"excluded": found} if found else {}


def split_train_dataset(config: RunConfig, home: LoadedDataset, samples: dict[str, Samples]) -> FoldSplits:
    """Who trains, validates and tests, by the protocol that the config names."""
    protocol = home.card.protocol(config.data.protocol)
    return make_run_splits(config.data, samples, seed=config.seed, protocol=protocol, root=home.reader.root)
