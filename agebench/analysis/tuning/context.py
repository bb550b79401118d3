"""What every step of tuning stands on: the training set's training and validation part, and nothing of any test set."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from agebench.data.faces.cache import FaceCache
from agebench.data.samples import Samples
from agebench.errors import UserError
from agebench.models.age_model import AgeModel
from agebench.registry.catalog import Catalog
from agebench.runs.config import RunConfig
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
        config: of the run that is being tuned.
        division: train and val, as that run divides them; its `tests` are empty: no step can read one.
        small: the same with at most `images` training images, for the many short trials.
        faces: of the training set.
        device: to compute on.
        home: the search's folder.
        inputs: digests of the data, for the manifest of the long run.
    """

    config: RunConfig
    division: RunSplits
    subset: RunSplits
    faces: FaceCache
    device: torch.device
    home: Path
    inputs: Inputs

    def training(self) -> FaceDataset:
        """The whole training part."""
        return make_face_dataset(self.faces, self.division.train)

    def validation(self) -> FaceDataset:
        """The validation part."""
        return make_face_dataset(self.faces, self.division.val)

    def build_model(self) -> AgeModel:
        """The untrained model, as a run starts from it, on the device."""
        model, _ = initial_model(self.config)
        model.head.init_from_ages(torch.from_numpy(self.training().ages))
        placed: AgeModel = model.to(self.device)
        return placed


def prepare_context(config: RunConfig, catalogue: Catalog, home: Path, *, images: int) -> SearchContext:
    """Read, divide and prepare the training set alone.

    Raises:
        UserError: the dataset is missing or too small, the device is not there, the protocol has several folds, or the
            backbone is frozen.
    """
    device = resolve_device(config.device)
    name = config.data.train
    if config.train.freeze:
        raise UserError(f"train.freeze = {config.train.freeze}: a search is for whole models; leave it out here")
    dataset = open_dataset(catalogue.datasets.get(name), limit=config.data.limit, seed=config.seed)
    own = config.model_copy(update={"data": config.data.model_copy(update={"test": (name,)})})
    samples, excluded = apply_exclusions({name: dataset}, config.data.exclude, complete=False)
    divisions = split_train_dataset(own, dataset, samples)
    if len(divisions) > 1:
        raise UserError(
            f"the protocol '{config.data.protocol}' has {len(divisions)} folds; search on one division: leave --protocol out"
        )
    inputs = input_digests(own, RunData({name: dataset}, samples, excluded), divisions)
    # Kept where the long run will stand: who goes on from there to the tests compares it, too.
    require_unchanged(RunDir(home / "run", str(home)), inputs)
    faces = prepare_faces(config, dataset, samples[name])
    division = replace(divisions.drop_rejected({name: faces})[0], tests={}, overlap={})
    small = replace(division, train=_some(division.train, images, config.seed))
    return SearchContext(config, division, small, faces, device, home, inputs)


def _some(samples: Samples, count: int, seed: int) -> Samples:
    if count >= len(samples):
        return samples
    chosen = np.random.default_rng(derive_seed(seed, "tune")).permutation(len(samples))[:count]
    return Samples(samples.table.iloc[np.sort(chosen)].reset_index(drop=True), samples.groups)
