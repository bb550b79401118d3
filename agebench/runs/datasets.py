"""The datasets of a run: read, audited, less what is excluded, and divided. No torch."""

from collections.abc import Mapping, Sequence
from typing import Any

from agebench.data.dataset import Dataset
from agebench.data.dataset import open_dataset as open_dataset
from agebench.data.exclusions import drop_excluded
from agebench.data.samples import Samples
from agebench.runs.config import RunConfig
from agebench.runs.splits import FoldSplits, make_run_splits

# The name in this package for a dataset of the run: its card, its reader and its samples with digests.
LoadedDataset = Dataset


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
