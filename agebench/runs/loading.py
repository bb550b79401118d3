"""A run that has been trained, opened again: its model, and the faces of a test set prepared as in the run."""

import torch

from agebench.data.faces.cache import FaceCache
from agebench.data.samples import Samples
from agebench.data.splits.splits import drop_overlapping
from agebench.errors import UserError
from agebench.estimators.trained import TrainedEstimator
from agebench.models.age_model import AgeModel, create_model
from agebench.models.heads import heads
from agebench.registry.catalog import Catalog
from agebench.runs.config import RunConfig, read_settings
from agebench.runs.datasets import open_dataset
from agebench.runs.run import prepare_faces
from agebench.runs.run_dir import RunDir
from agebench.training.checkpoint import check_size, check_weights, load_weights
from agebench.training.dataloader import FaceDataset, make_face_dataset
from agebench.training.device import resolve_device
from agebench.utils.integrity import checked, read_table


def load_run(folder: RunDir, device: str, *, stranger: bool = False) -> tuple[RunConfig, TrainedEstimator]:
    """A run's config and its best model, ready to be asked.

    Args:
        folder: the run's.
        device: `auto`, `cpu`, `cuda`, …
        stranger: somebody else wrote the config: before anything is allocated, its model has to be that of the checkpoint.

    Raises:
        UserError: no run of ours stands there, it has no checkpoint, or the checkpoint is damaged or another model's.
    """
    if not (folder.path / "config.toml").exists():
        raise UserError(f"{folder.path}: no run stands here (no config.toml); give the folder that `agebench run` made")
    data = read_settings(folder.path / "config.toml").get("data", {})
    if isinstance(data, dict) and "train" not in data:
        raise UserError(
            f"{folder.path}: this run tests a model that is not ours and keeps no checkpoint; only models that "
            "`agebench run` trained can be opened"
        )
    config = folder.config()
    checkpoint = folder.checkpoints / "best.safetensors"
    if not checkpoint.exists():
        raise UserError(
            f"{checkpoint}: no such checkpoint: the run was not trained to its first epoch's end, or its checkpoints were "
            f"deleted; `agebench run --config {folder.path / 'config.toml'} --out DIR` makes it again"
        )
    place = resolve_device(device)
    if config.model.bodies:
        raise UserError(
            f"{folder.path}: its model sees bodies beside faces; only models that see faces alone can be opened"
        )
    if stranger:
        # Imports a plugin's module; tensors that it makes then stay off the meta device.
        heads.get(config.model.head)
        with torch.device("meta"):
            check_weights(checkpoint, _model(config, folder))
    model = _model(config, folder)
    check_size(checkpoint)
    load_weights(checked(folder.path, "checkpoints/best.safetensors"), model)
    model = model.to(place).eval()
    return config, TrainedEstimator(model, config.model, place, config.train.precision, config.faces.coverage)


def _model(config: RunConfig, folder: RunDir) -> AgeModel:
    """With random weights, and with the tasks that it learned."""
    model = create_model(config.model)
    model.flip_tta = config.train.flip_tta
    for task, classes in (folder.manifest().get("model") or {}).get("classes", {}).items():
        model.add_task(task, classes)
    return model


def load_test_set(config: RunConfig, folder: RunDir, catalogue: Catalog, name: str) -> tuple[Samples, FaceDataset]:
    """A test set's samples and faces, prepared as in the run.

    A test set of the run is the very images that the run tested. Any other dataset is taken whole, less what the run was
    trained or validated on: the same images, and of the training set the same people.

    Raises:
        UserError: no such dataset, or nothing of it is left or has a face.
    """
    if name not in catalogue.datasets.names() and name not in catalogue.datasets.broken():
        raise UserError(
            f"--test {name}: no dataset of this name. This run's test sets: {', '.join(config.data.test)}; any dataset of "
            "`agebench list datasets` can be prepared as in the run"
        )
    dataset = open_dataset(catalogue.datasets.get(name))
    chosen = _chosen(folder, config.data.train, name, dataset.samples)
    # The cache of the whole dataset serves every run; with excluded images, whose faces are not prepared, there is none.
    faces: FaceCache = prepare_faces(config, dataset, chosen if config.data.exclude else None)
    kept = faces.drop_rejected(chosen)
    if not len(kept):
        raise UserError(
            f"--test {name}: no image is left to look at: of {len(dataset.samples):,}, {len(chosen):,} are not in the training "
            f"set and none of these has a face; does `faces` on the card of '{name}' fit?"
        )
    return kept, make_face_dataset(faces, kept)


def _chosen(folder: RunDir, home: str, name: str, samples: Samples) -> Samples:
    tested = folder.path / "samples" / f"{name}-test.parquet"
    if tested.exists():
        ids = read_table(folder.path, f"samples/{tested.name}", ["sample_id"])["sample_id"]
        return samples.reject(~samples.table["sample_id"].isin(ids), "not in the run's test part")
    seen = [
        Samples(read_table(folder.path, name))
        for part in ("train", "val")
        if (folder.path / (name := f"samples/{home}-{part}.parquet")).exists()
    ]
    if not seen:
        raise UserError(
            f"{folder.path}: its samples/ are gone, so what it was trained on is not known; nothing can be tested fairly"
        )
    left, _ = drop_overlapping(samples, seen)
    people = {person for part in seen if name == home for person in part.table["subject"].dropna()}
    return left.reject(left.table["subject"].isin(people), "their person is in the training set")
