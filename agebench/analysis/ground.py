"""What every step of tuning stands on: the training set's training and validation part, and nothing of any test set."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from agebench.data.cache import Faces
from agebench.data.samples import Samples
from agebench.engine.devices import choose_device
from agebench.engine.loader import FaceSet, derived_seed, face_set
from agebench.errors import UserError
from agebench.models.age_model import AgeModel
from agebench.registry.catalogue import Catalogue
from agebench.runs.config import RunConfig
from agebench.runs.datasets import divide_home, exclude, open_dataset
from agebench.runs.division import Division
from agebench.runs.folder import RunFolder
from agebench.runs.inputs import Inputs, inputs_of, refuse_changed
from agebench.runs.pipeline import initial_model, prepare_faces


@dataclass(frozen=True)
class Ground:
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
    division: Division
    small: Division
    faces: Faces
    device: torch.device
    home: Path
    inputs: Inputs

    def training(self) -> FaceSet:
        """The whole training part."""
        return face_set(self.faces, self.division.train)

    def validation(self) -> FaceSet:
        """The validation part."""
        return face_set(self.faces, self.division.val)

    def fresh_model(self) -> AgeModel:
        """The untrained model, as a run starts from it, on the device."""
        model, _ = initial_model(self.config)
        model.head.prepare(torch.from_numpy(self.training().ages))
        placed: AgeModel = model.to(self.device)
        return placed


def prepare(config: RunConfig, catalogue: Catalogue, home: Path, *, images: int) -> Ground:
    """Read, divide and prepare the training set alone.

    Raises:
        UserError: the dataset is missing or too small, the device is not there, the protocol has several folds, or the
            backbone is frozen.
    """
    device = choose_device(config.device)
    name = config.data.train
    if config.train.freeze:
        raise UserError(f"train.freeze = {config.train.freeze}: a search is for whole models; leave it out here")
    dataset = open_dataset(catalogue.datasets.get(name))
    own = config.model_copy(update={"data": config.data.model_copy(update={"test": (name,)})})
    samples, excluded = exclude({name: dataset}, config.data.exclude, complete=False)
    divisions = divide_home(own, dataset, samples)
    if len(divisions) > 1:
        raise UserError(
            f"the protocol '{config.data.protocol}' has {len(divisions)} folds; search on one division: leave --protocol out"
        )
    inputs = inputs_of(own, {name: dataset}, samples, excluded, divisions)
    # Kept where the long run will stand: who goes on from there to the tests compares it, too.
    refuse_changed(RunFolder(home / "run", str(home)), inputs)
    faces = prepare_faces(config, dataset, samples[name])
    division = replace(divisions.with_faces({name: faces})[0], tests={}, overlap={})
    small = replace(division, train=_some(division.train, images, config.seed))
    return Ground(config, division, small, faces, device, home, inputs)


def _some(samples: Samples, count: int, seed: int) -> Samples:
    if count >= len(samples):
        return samples
    chosen = np.random.default_rng(derived_seed(seed, "tune")).permutation(len(samples))[:count]
    return Samples(samples.table.iloc[np.sort(chosen)].reset_index(drop=True), samples.groups)
