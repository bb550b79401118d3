"""The datasets of a run: read, audited, less what is excluded, and divided. No torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agebench.data.audit import audit
from agebench.data.exclude import without_excluded
from agebench.data.readers import Reader
from agebench.data.samples import Samples
from agebench.data.store import reader_for
from agebench.registry.cards import DatasetCard
from agebench.runs.config import RunConfig
from agebench.runs.division import Divisions, divide


@dataclass(frozen=True)
class Dataset:
    """A dataset of the run: its card, its reader and its audited samples."""

    card: DatasetCard
    reader: Reader
    samples: Samples


def open_dataset(card: DatasetCard) -> Dataset:
    """Find, read and audit a dataset."""
    reader = reader_for(card)
    return Dataset(card, reader, audit(reader, reader.read(), name=card.name))


def exclude(
    datasets: Mapping[str, Dataset], files: Sequence[str], *, complete: bool = True
) -> tuple[dict[str, Samples], dict[str, Any]]:
    """Return each dataset's samples less what the lists name, and for the manifest what the lists left out.

    Args:
        datasets: by name.
        files: the lists, see `without_excluded`.
        complete: whether `datasets` are all datasets of the run.
    """
    samples, found = without_excluded(
        {name: dataset.samples for name, dataset in datasets.items()}, files, complete=complete
    )
    return samples, {"excluded": found} if found else {}


def divide_home(config: RunConfig, home: Dataset, samples: dict[str, Samples]) -> Divisions:
    """Who trains, validates and tests, by the protocol that the config names."""
    protocol = home.card.protocol(config.data.protocol)
    return divide(config.data, samples, seed=config.seed, protocol=protocol, root=home.reader.root)
