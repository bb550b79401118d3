"""Every head learns 64 real faces by heart."""

import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch

from agebench.config.cards.model import Architecture, Augment, Recipe
from agebench.data.faces.alignment import AlignmentSpec, align_or_crop
from agebench.data.image_io import open_image
from agebench.models import heads
from agebench.models.age_model import create_model
from agebench.training.callbacks import NullCallback
from agebench.training.dataloader import FaceDataset
from agebench.training.prediction import predict
from agebench.training.trainer import Trainer

STILL = Augment(flip=0, rotate=0, brightness=0, saturation=0, hue=0)


@pytest.fixture(scope="module")
def faces(test_data: Path) -> FaceDataset:
    pixels, ages = [], []
    with tarfile.open(test_data / "UTKFace.tar.gz") as archive:
        for number, member in enumerate(archive):
            if number % 350 == 300 and len(ages) < 64:
                file = archive.extractfile(member)
                assert file is not None
                pixels.append(align_or_crop(open_image(file.read()), AlignmentSpec("none", 32)))
                ages.append(float(Path(member.name).name.split("_")[0]))
    assert max(ages) <= 100  # what the heads can say
    return FaceDataset(np.stack(pixels), np.arange(64), np.array(ages, dtype=np.float32))


@pytest.mark.slow
@pytest.mark.parametrize("name", heads.names())
def test_a_head_learns_64_faces_by_heart(name: str, faces: FaceDataset, tmp_path: Path) -> None:
    card = Architecture(name="tiny", title="Tiny", backbone="agebench.tiny", head=name, size=32)
    recipe = Recipe(epochs=150, batch_size=32, lr=4e-3, weight_decay=0, warmup=0.1, augment=STILL)
    torch.manual_seed(0)
    model = create_model(card)
    model.head.init_from_ages(torch.from_numpy(faces.ages))
    trainer = Trainer(model, card, recipe, seed=0, device=torch.device("cpu"), folder=tmp_path)
    error = np.inf
    for epoch in range(1, recipe.epochs + 1):
        trainer.train_epoch(faces, epoch, NullCallback())
        if epoch % 10 == 0:
            ages = predict(model, faces, card, torch.device("cpu")).age
            error = np.abs(ages - faces.ages).mean()
        if error < 1:
            break
    assert error < 1
