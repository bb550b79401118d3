"""Features of a frozen backbone: what the model would see, computed once, and nothing of the backbone moves."""

from pathlib import Path

import numpy as np
import pytest
import torch

from agebench.config.cards.model import Architecture, Augment, Recipe
from agebench.data.faces.cache import FaceCache
from agebench.models.age_model import AgeModel, create_model
from agebench.training import frozen_features as module
from agebench.training.callbacks import NullCallback
from agebench.training.dataloader import FaceDataset
from agebench.training.frozen_features import frozen_features
from agebench.training.prediction import predict
from agebench.training.trainer import Trainer
from agebench.utils.paths import cache_home

CPU = torch.device("cpu")
CARD = Architecture(name="tiny", title="Tiny", backbone="agebench.tiny", size=32)
RECIPE = Recipe(epochs=2, batch_size=8, freeze="backbone")
PIXELS = np.random.default_rng(0).integers(0, 256, (300, 32, 32, 3), dtype=np.uint8)
FACES = FaceCache(PIXELS, {str(row): row for row in range(300)}, {}, "faces-key")
AGES = np.linspace(1, 90, 300, dtype=np.float32)


def model(seed: int = 0, head: str = "regression") -> AgeModel:
    torch.manual_seed(seed)
    return create_model(CARD.model_copy(update={"head": head}))


def features(of: AgeModel, *, mirrored: bool = True, faces: FaceCache = FACES) -> FaceCache:
    return frozen_features(of, faces, CARD, mirrored=mirrored, device=CPU, precision="float32")


def as_set(faces: FaceCache) -> FaceDataset:
    return FaceDataset(faces.pixels, np.arange(300), AGES)


def test_a_head_says_the_same_of_features_as_of_faces() -> None:
    one = model()
    assert (
        np.abs(predict(one, as_set(features(one)), CARD, CPU).age - predict(one, as_set(FACES), CARD, CPU).age).max()
        < 1e-3
    )
    turned = FaceCache(PIXELS[:, :, ::-1].copy(), FACES.row_by_id, {}, "turned")
    assert np.allclose(features(one).pixels[:, 1], features(one, faces=turned).pixels[:, 0], atol=1e-4)


def test_training_moves_the_head_alone(tmp_path: Path) -> None:
    one = model()
    before = {name: value.clone() for name, value in one.state_dict().items()}
    data = as_set(features(one))
    Trainer(one, CARD, RECIPE, seed=1, device=CPU, folder=tmp_path).fit(data, data, NullCallback())
    moved = {name.split(".")[0] for name, value in one.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {"head"}


def test_heads_share_and_whatever_made_them_tells_them_apart() -> None:
    assert features(model()).key == features(model(head="coral")).key
    other = FaceCache(PIXELS, FACES.row_by_id, {}, "other-key")
    keys = {features(model()).key, features(model(1)).key, features(model(), mirrored=False).key}
    assert len(keys | {features(model(), faces=other).key}) == 4


def test_what_was_computed_is_not_computed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = np.array(features(model()).pixels)
    file = next((cache_home() / "features").glob("*/features.f32"))
    file.write_bytes(file.read_bytes()[: 170 * 2 * 160 * 4 + 13])  # killed in the middle of a row
    asked = []
    gather = module.iter_batches
    monkeypatch.setattr(
        module, "iter_batches", lambda data, rows, *rest: asked.append(len(rows)) or gather(data, rows, *rest)
    )
    assert np.allclose(features(model()).pixels, whole, atol=1e-5)
    features(model())
    assert asked == [300 - 128]  # whole batches, as each has one digest


def test_damaged_features_are_computed_again(caplog: pytest.LogCaptureFixture) -> None:
    whole = np.array(features(model()).pixels)
    file = next((cache_home() / "features").glob("*/features.f32"))
    content = bytearray(file.read_bytes())
    content[1000] ^= 0x40
    file.write_bytes(content)
    assert np.array_equal(features(model()).pixels, whole)
    assert "features.f32: 1 of 3 blocks of features" in caplog.text


def test_only_mirroring_is_left_of_augmentation() -> None:
    recipe = Recipe(freeze="backbone", augment=Augment(flip=0.3, rotate=20))
    assert recipe.augment == Augment(flip=0.3, rotate=0, brightness=0, saturation=0, hue=0)
    assert "freeze" not in Recipe().model_dump(mode="json")
    assert Recipe.model_validate(recipe.model_dump(mode="json")) == recipe
