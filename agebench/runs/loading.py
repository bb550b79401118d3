"""Open a trained run: its model, and the faces of a test set prepared as in the run."""

import torch

from agebench.config.run import RunConfig
from agebench.config.toml_io import read_settings
from agebench.data.faces.cache import FaceCache
from agebench.data.samples import Samples
from agebench.data.splits.splits import drop_overlapping
from agebench.errors import UserError
from agebench.estimators.trained import TrainedEstimator
from agebench.models.age_model import AgeModel, create_model
from agebench.models.heads import heads
from agebench.registry.catalog import Catalog
from agebench.runs.datasets import open_dataset
from agebench.runs.run import prepare_faces
from agebench.runs.run_dir import RunDir
from agebench.training.checkpoint import check_size, check_weights, load_weights
from agebench.training.dataloader import FaceDataset, make_face_dataset
from agebench.training.device import resolve_device
from agebench.utils.integrity import checked, read_table


def load_run(folder: RunDir, device: str, *, trusted: bool = True) -> tuple[RunConfig, TrainedEstimator]:
    """Load a run's settings and its best model in evaluation mode.

    Args:
        folder: the run's folder.
        device: `auto`, `cpu`, `cuda`, …
        trusted: False if the folder is from a third party: its model must match the checkpoint before memory is allocated.

    Raises:
        UserError: the folder contains no trained run or no checkpoint, or the checkpoint is damaged or of another model.
    """
    if not (folder.path / "config.toml").exists():
        raise UserError(
            f"{folder.path}: the folder contains no run (no config.toml); give the folder of an `agebench run`"
        )
    data = read_settings(folder.path / "config.toml").get("data", {})
    if isinstance(data, dict) and "train" not in data:
        raise UserError(
            f"{folder.path}: this run tests an external model and has no checkpoint; only models that `agebench run` "
            "trained can be opened"
        )
    config = folder.config()
    checkpoint = folder.checkpoints / "best.safetensors"
    if not checkpoint.exists():
        raise UserError(
            f"{checkpoint}: no such checkpoint: the run completed no epoch, or its checkpoints were deleted; "
            f"`agebench run --config {folder.path / 'config.toml'} --out DIR` repeats the run"
        )
    torch_device = resolve_device(device)
    if config.model.bodies:
        raise UserError(
            f"{folder.path}: its model sees bodies beside faces; only models that see faces alone can be opened"
        )
    if not trusted:
        # Imports a plugin's module; tensors that it makes then stay off the meta device.
        heads.get(config.model.head)
        with torch.device("meta"):
            check_weights(checkpoint, _model(config, folder))
    model = _model(config, folder)
    check_size(checkpoint)
    load_weights(checked(folder.path, "checkpoints/best.safetensors"), model)
    model = model.to(torch_device).eval()
    faces = config.faces
    return config, TrainedEstimator(
        model, config.model, torch_device, config.train.precision, faces.coverage, faces.offset, faces.visible
    )


def _model(config: RunConfig, folder: RunDir) -> AgeModel:
    """Build the run's model with random weights and the heads of its auxiliary targets."""
    model = create_model(config.model)
    model.flip_tta = config.train.flip_tta
    for task, classes in (folder.manifest().get("model") or {}).get("classes", {}).items():
        model.add_task(task, classes)
    return model


def load_test_set(config: RunConfig, folder: RunDir, catalog: Catalog, name: str) -> tuple[Samples, FaceDataset]:
    """Return a test set's samples and faces, prepared as in the run.

    A test set of the run contains exactly the images that the run tested. Any other dataset is used without the images that
    the run was trained or validated on; of the training set, and of cards with the same `people`, also without the same
    subjects.

    Args:
        config: the run's settings.
        folder: the run's folder.
        catalog: the cards of the datasets.
        name: the dataset.

    Raises:
        UserError: the dataset does not exist, or no image with a face remains.
    """
    if name not in catalog.datasets.names() and name not in catalog.datasets.broken():
        raise UserError(
            f"--test {name}: no dataset of this name. This run's test sets: {', '.join(config.data.test)}; any dataset of "
            "`agebench list datasets` can be prepared as in the run"
        )
    dataset, home = open_dataset(catalog.datasets.get(name)), config.data.train
    same_people = name == home or (
        home in catalog.datasets.names() and dataset.card.shares_people(catalog.datasets.get(home))
    )
    chosen = _test_samples(folder, home, name, dataset.samples, same_people=same_people)
    # The cache of the complete dataset serves every run; images that are left out are not prepared.
    faces: FaceCache = prepare_faces(config, dataset, chosen if config.data.exclude or config.data.limit else None)
    remaining = faces.drop_rejected(chosen)
    if not len(remaining):
        raise UserError(
            f"--test {name}: no image is left to look at: of {len(dataset.samples):,}, {len(chosen):,} are not in the training "
            f"set and none of these has a face; does `faces` on the card of '{name}' fit?"
        )
    return remaining, make_face_dataset(faces, remaining)


def _test_samples(folder: RunDir, home: str, name: str, samples: Samples, *, same_people: bool) -> Samples:
    test_file = folder.path / "samples" / f"{name}-test.parquet"
    if test_file.exists():
        ids = read_table(folder.path, f"samples/{test_file.name}", ["sample_id"])["sample_id"]
        return samples.reject(~samples.table["sample_id"].isin(ids), "not in the run's test part")
    train_val = [
        Samples(read_table(folder.path, name))
        for part in ("train", "val")
        if (folder.path / (name := f"samples/{home}-{part}.parquet")).exists()
    ]
    if not train_val:
        raise UserError(
            f"{folder.path}: samples/ is missing, so the training images cannot be determined and the test set cannot be "
            "de-duplicated against them"
        )
    return drop_overlapping(samples, train_val, same_people=same_people)[0]
