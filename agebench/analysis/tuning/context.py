"""Data and settings that the steps of a search share: training and validation splits, but no test data."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from agebench.config.cards.model import Recipe
from agebench.config.run import RunConfig
from agebench.data.faces.cache import FaceCache
from agebench.data.samples import Samples
from agebench.errors import UserError
from agebench.models.age_model import AgeModel
from agebench.registry.catalog import Catalog
from agebench.runs.datasets import RunData, apply_exclusions, open_dataset, split_train_dataset
from agebench.runs.provenance import Inputs, input_digests, require_unchanged
from agebench.runs.run import initial_model, prepare_faces
from agebench.runs.run_dir import RunDir
from agebench.runs.splits import RunSplits
from agebench.training.dataloader import FaceDataset, derive_seed, make_face_dataset
from agebench.training.device import resolve_device


@dataclass(frozen=True)
class SearchContext:
    """The data and settings of a search.

    Attributes:
        config: the config of the run that is tuned.
        division: the training and validation splits of that run; `tests` is empty, so that no step can read a test set.
        subset: the same splits with a limited number of training images, for short trials.
        faces: the aligned faces of the training set.
        device: the device of the computations.
        home: the folder of the search.
        inputs: digests of the data, for the manifest of the full training.
    """

    config: RunConfig
    division: RunSplits
    subset: RunSplits
    faces: FaceCache
    device: torch.device
    home: Path
    inputs: Inputs

    def training(self) -> FaceDataset:
        """Return the faces of the training split."""
        return make_face_dataset(self.faces, self.division.train)

    def validation(self) -> FaceDataset:
        """Return the faces of the validation split."""
        return make_face_dataset(self.faces, self.division.val)

    def build_model(self, recipe: Recipe | None = None) -> AgeModel:
        """Build the untrained model of a run, on the device.

        Args:
            recipe: the recipe, whose options may freeze layers or smooth labels; None: that of the run.
        """
        model, _ = initial_model(self.config.model_copy(update={"train": recipe or self.config.train}))
        model.head.init_from_ages(torch.from_numpy(self.training().ages))
        on_device: AgeModel = model.to(self.device)
        return on_device


def prepare_context(config: RunConfig, catalog: Catalog, home: Path, *, images: int) -> SearchContext:
    """Read and split the training dataset and align its faces.

    Args:
        config: the config of the run that is tuned.
        catalog: the available datasets and models.
        home: the folder of the search.
        images: the maximum number of training images of a trial.

    Returns:
        The data and settings of the search.

    Raises:
        UserError: the dataset is missing or too small, the device is not available, the protocol has several folds, or the
            backbone is frozen.
    """
    device = resolve_device(config.device)
    name = config.data.train
    if config.train.freeze:
        raise UserError(f"train.freeze = {config.train.freeze}: a search trains the whole model; remove this setting")
    dataset = open_dataset(catalog.datasets.get(name), limit=config.data.limit, seed=config.seed)
    own_config = config.model_copy(update={"data": config.data.model_copy(update={"test": (name,)})})
    samples, excluded = apply_exclusions({name: dataset}, config.data.exclude, complete=False)
    data = RunData({name: dataset}, samples, excluded)
    divisions = split_train_dataset(own_config, data)
    if len(divisions) > 1:
        raise UserError(
            f"the protocol '{config.data.protocol}' has {len(divisions)} folds, but a search needs a single split; omit --protocol"
        )
    inputs = input_digests(own_config, data, divisions)
    # The full training uses the same folder, so that a resumed run checks the same digests.
    require_unchanged(RunDir(home / "run", str(home)), inputs)
    faces = prepare_faces(config, dataset, samples[name])
    division = replace(divisions.drop_rejected({name: faces})[0], tests={}, overlap={})
    subset = replace(division, train=_subsample(division.train, images, config.seed))
    return SearchContext(config, division, subset, faces, device, home, inputs)


def _subsample(samples: Samples, count: int, seed: int) -> Samples:
    if count >= len(samples):
        return samples
    chosen = np.random.default_rng(derive_seed(seed, "tune")).permutation(len(samples))[:count]
    return Samples(samples.table.iloc[np.sort(chosen)].reset_index(drop=True), samples.groups)
