"""Describe a run without starting it: its settings, its datasets, and its folder."""

from dataclasses import asdict, dataclass
from pathlib import Path

from agebench.config.run import RunConfig
from agebench.data.storage.locate import open_dataset_reader
from agebench.registry.catalog import Catalog
from agebench.reports.formatting import format_count, markdown_table
from agebench.runs.datasets import AnyConfig, limit_samples
from agebench.runs.gates import differs_in_gates
from agebench.runs.remote_dir import is_url
from agebench.runs.run_dir import RunDir
from agebench.types import RunState


@dataclass(frozen=True)
class PlannedDataset:
    """A dataset as the run would read it, before its images are checked.

    Attributes:
        name: the dataset's name.
        role: `train`, `test` or `train and test`.
        n_images: usable images, within --limit.
        n_rejected: images that the reader rejects; those that --limit leaves out do not count.
    """

    name: str
    role: str
    n_images: int
    n_rejected: int


@dataclass(frozen=True)
class DryRun:
    """Plan of a run that is not started.

    Attributes:
        out: the folder or URL that it would write to.
        state: the state of that folder; "" at a URL, which is not read.
        datasets: the datasets that it would read.
        config: the content of its config.toml.
    """

    out: str
    state: str
    datasets: tuple[PlannedDataset, ...]
    config: str

    def to_dict(self) -> dict[str, object]:
        """Return the plan as plain values for JSON."""
        return asdict(self)

    def to_text(self) -> str:
        """Return the plan for the terminal."""
        rows = [
            [dataset.name, dataset.role, format_count(dataset.n_images), format_count(dataset.n_rejected)]
            for dataset in self.datasets
        ]
        table = markdown_table(["dataset", "used for", "images", "rejected by the reader"], rows)
        state = f" ({self.state})" if self.state else ""
        return f"folder: {self.out}{state}\n\n{table}\n\n{self.config}"


def plan_run(config: AnyConfig, catalog: Catalog, out: Path | str) -> DryRun:
    """Resolve what a run or test would do. Reads labels and lists, but no image; writes nothing.

    Args:
        config: the settings.
        catalog: the cards of the datasets.
        out: the run's folder or URL.

    Raises:
        UserError: a dataset is missing, or `out` contains another run.
    """
    datasets = []
    for name in config.datasets():
        samples = open_dataset_reader(catalog.datasets.get(name)).read()
        n_rejected = len(samples.rejected)
        samples = limit_samples(samples, config.data.limit, name=name, seed=config.seed)
        datasets.append(PlannedDataset(name, _role(config, name), len(samples), n_rejected))
    return DryRun(
        str(out), "" if is_url(out) else str(_state(RunDir(Path(out)), config)), tuple(datasets), config.to_toml()
    )


def _role(config: AnyConfig, name: str) -> str:
    is_train = isinstance(config, RunConfig) and name == config.data.train
    if is_train and name in config.data.test:
        return "train and test"
    return "train" if is_train else "test"


def _state(folder: RunDir, config: AnyConfig) -> RunState:
    if differs_in_gates(folder, config) or folder.finished(config):
        return RunState.DONE
    return RunState.INCOMPLETE if folder.started() else RunState.PENDING
