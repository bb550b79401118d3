"""Read, audit, limit and split the datasets of a run. Imports no torch."""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from agebench.config.cards.dataset import DatasetCard
from agebench.config.evaluate import ExternalConfig, PublishedConfig
from agebench.config.run import RunConfig
from agebench.data.dataset import Dataset
from agebench.data.digests import add_digests
from agebench.data.exclusions import drop_excluded
from agebench.data.samples import Samples
from agebench.data.storage.locate import open_dataset_reader
from agebench.errors import RejectReason
from agebench.metrics.groups import age_bands
from agebench.registry.catalog import Catalog
from agebench.runs.manifest import ExclusionList
from agebench.runs.splits import FoldSplits, make_run_splits

AnyConfig = RunConfig | ExternalConfig | PublishedConfig


@dataclass(frozen=True)
class RunData:
    """All datasets of a run.

    Attributes:
        datasets: name -> dataset.
        samples: name -> audited samples that no exclusion list names.
        exclusions: file of --exclude -> its effect.
    """

    datasets: dict[str, Dataset]
    samples: dict[str, Samples]
    exclusions: dict[str, ExclusionList] = field(default_factory=dict)

    @property
    def cards(self) -> dict[str, DatasetCard]:
        """The dataset cards by name."""
        return {name: dataset.card for name, dataset in self.datasets.items()}


def open_run_data(config: AnyConfig, catalog: Catalog) -> RunData:
    """Open all datasets of a run or test, and apply --limit and --exclude.

    Args:
        config: the settings.
        catalog: the cards of the datasets.

    Raises:
        UserError: a dataset is missing, or an exclusion list does not fit.
    """
    limit, seed = config.data.limit, config.seed
    datasets = {name: open_dataset(catalog.datasets.get(name), limit=limit, seed=seed) for name in config.datasets()}
    samples, exclusions = apply_exclusions(datasets, config.data.exclude)
    return RunData(datasets, samples, exclusions)


def open_dataset(card: DatasetCard, *, limit: int = 0, seed: int = 0) -> Dataset:
    """Find, read and audit a dataset.

    Args:
        card: the dataset's card.
        limit: the number of images to keep, see `limit_samples`; 0: all.
        seed: seed of the subset.
    """
    reader = open_dataset_reader(card)
    samples = limit_samples(reader.read(), limit, name=card.name, seed=seed)
    return Dataset(card, reader, add_digests(reader, samples, name=card.name))


def limit_samples(samples: Samples, limit: int, *, name: str, seed: int = 0) -> Samples:
    """Keep a random subset with the dataset's shares of age bands; the rest is rejected as excluded.

    The subset depends on the sample ids, the ages, `name` and `seed`, and not on the order of rows.

    Args:
        samples: the samples of one dataset.
        limit: the number of images to keep; 0: all.
        name: the dataset's name.
        seed: seed of the subset.
    """
    if not limit or limit >= len(samples):
        return samples
    table = samples.table[["sample_id", "age"]].sort_values("sample_id")
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    # The k-th of n images of a band gets the position (k + u) / n: every stretch of positions has each band's share.
    shuffled = table.iloc[rng.permutation(len(table))]
    codes = age_bands(shuffled["age"].to_numpy(np.float64)).codes
    bands = shuffled.groupby(codes)
    sizes = bands["age"].transform("size").to_numpy()
    positions = (bands.cumcount().to_numpy() + rng.random(codes.max() + 1)[codes]) / sizes
    subset = shuffled["sample_id"].iloc[np.argsort(positions, kind="stable")[:limit]]
    reason = f"not in the subset of {limit:,} images (data.limit)"
    return samples.reject(~samples.table["sample_id"].isin(subset), reason, RejectReason.EXCLUDED)


def apply_exclusions(
    datasets: Mapping[str, Dataset], files: Sequence[str], *, complete: bool = True
) -> tuple[dict[str, Samples], dict[str, ExclusionList]]:
    """Return each dataset's samples that no list names, and the effect of each list.

    Args:
        datasets: name -> dataset.
        files: CSV files of sample ids, see `drop_excluded`.
        complete: whether `datasets` are all datasets of the run.
    """
    samples, exclusions = drop_excluded(
        {name: dataset.samples for name, dataset in datasets.items()}, files, complete=complete
    )
    return samples, {file: ExclusionList.model_validate(effect) for file, effect in exclusions.items()}


def split_train_dataset(config: RunConfig, data: RunData) -> FoldSplits:
    """Split the training set by the protocol that the config names, and select the test sets.

    Args:
        config: the run's settings.
        data: the training set and the test sets.
    """
    dataset = data.datasets[config.data.train]
    return make_run_splits(
        config.data,
        data.samples,
        seed=config.seed,
        protocol=dataset.card.protocol(config.data.protocol),
        root=dataset.reader.root,
        same_people=frozenset(name for name, card in data.cards.items() if card.shares_people(dataset.card)),
    )
