from pathlib import Path

import numpy as np
import pytest
import torch

from agebench.config.cards.model import Architecture, Augment, Recipe
from agebench.errors import AgebenchError, UserError
from agebench.models.age_model import create_model
from agebench.training.callbacks import NullCallback, TrainState
from agebench.training.checkpoint import load_weights, save_weights
from agebench.training.dataloader import FaceDataset, iter_batches
from agebench.training.device import resolve_device
from agebench.training.optim import learning_rate
from agebench.training.prediction import predict
from agebench.training.trainer import History, Trainer

CPU = torch.device("cpu")
CARD = Architecture(name="tiny", title="Tiny", backbone="agebench.tiny", size=32)
RECIPE = Recipe(epochs=3, batch_size=8, lr=3e-3)


def bright_means_old(count: int, seed: int) -> FaceDataset:
    """Faces whose brightness is their age: what any model learns."""
    generator = np.random.default_rng(seed)
    ages = generator.uniform(5, 80, count).astype(np.float32)
    pixels = generator.integers(0, 60, (count, 32, 32, 3)) + ages[:, None, None, None] * 2
    return FaceDataset(pixels.astype(np.uint8), np.arange(count), ages)


TRAIN, VAL = bright_means_old(64, 0), bright_means_old(24, 1)


def trainer(folder: Path, recipe: Recipe = RECIPE, **options: float) -> Trainer:
    torch.manual_seed(5)
    card = CARD.model_copy(update={"head_options": options})
    model = create_model(card)
    model.head.init_from_ages(torch.from_numpy(TRAIN.ages))
    return Trainer(model, card, recipe, seed=7, device=CPU, folder=folder)


class KilledAfter(NullCallback):
    """A process that dies after some epoch, or in the middle of one."""

    def __init__(self, *, epoch: int = 0, step: int = 0, between_files: int = 0) -> None:
        self.epoch, self.step, self.between_files = epoch, step, between_files
        self.validations = 0

    def on_validation(self, data: FaceDataset, ages: np.ndarray) -> None:
        self.validations += 1
        if self.validations == self.between_files:  # best.safetensors is written, last.safetensors is not
            raise KeyboardInterrupt

    def on_epoch_end(self, entry: dict[str, float], epochs: int) -> None:
        if entry["epoch"] == self.epoch:
            raise KeyboardInterrupt

    def on_step(self, state: TrainState) -> None:
        if state.step == self.step:
            raise KeyboardInterrupt


def ages(trained: Trainer) -> np.ndarray:
    return predict(trained.model, VAL, CARD, CPU).age


@pytest.mark.parametrize(
    "killed", [KilledAfter(epoch=1), KilledAfter(epoch=2), KilledAfter(step=16), KilledAfter(between_files=2)]
)
def test_a_resumed_run_ends_where_an_undisturbed_one_does(tmp_path: Path, killed: KilledAfter) -> None:
    whole = trainer(tmp_path / "whole", dropout=0.2)
    whole.fit(TRAIN, VAL, NullCallback())
    with pytest.raises(KeyboardInterrupt):
        trainer(tmp_path / "cut", dropout=0.2).fit(TRAIN, VAL, killed)
    resumed = trainer(tmp_path / "cut", dropout=0.2)
    assert resumed.resume()
    resumed.fit(TRAIN, VAL, NullCallback())
    assert (ages(resumed) == ages(whole)).all()
    assert [entry["val_mae"] for entry in resumed.history.epochs] == [
        entry["val_mae"] for entry in whole.history.epochs
    ]


def test_two_runs_of_one_seed_are_identical(tmp_path: Path) -> None:
    first, second = trainer(tmp_path / "a"), trainer(tmp_path / "b")
    first.fit(TRAIN, VAL, NullCallback())
    second.fit(TRAIN, VAL, NullCallback())
    assert (ages(first) == ages(second)).all()


@pytest.mark.slow
@pytest.mark.parametrize("optimiser", ["adamw", "sgd"])
@pytest.mark.parametrize("schedule", ["one-cycle", "cosine"])
def test_it_learns(tmp_path: Path, optimiser: str, schedule: str) -> None:
    plain = Augment(flip=0.5, rotate=0, brightness=0, saturation=0, hue=0)
    rate = 3e-3 if optimiser == "adamw" else 0.05
    recipe = Recipe(epochs=15, batch_size=8, lr=rate, optimiser=optimiser, schedule=schedule, augment=plain)
    history = trainer(tmp_path, recipe).fit(TRAIN, VAL, NullCallback())
    floor = np.abs(VAL.ages - np.median(TRAIN.ages)).mean()
    assert min(entry["val_mae"] for entry in history.epochs) < floor / 2


def test_the_best_epoch_is_kept_by_validation(tmp_path: Path) -> None:
    run = trainer(tmp_path)
    history = run.fit(TRAIN, VAL, NullCallback())
    about = load_weights(tmp_path / "best.safetensors", run.model)
    assert about["epoch"] == history.best_epoch
    assert np.abs(ages(run) - VAL.ages).mean() == pytest.approx(min(entry["val_mae"] for entry in history.epochs))


def test_resuming_beside_older_best_weights_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        trainer(tmp_path).fit(TRAIN, VAL, KilledAfter(epoch=2))
    best, resumed = tmp_path / "best.safetensors", trainer(tmp_path)
    save_weights(best, resumed.model, {"epoch": 0})
    with pytest.raises(
        AgebenchError, match=r"the weights of epoch 0, but epoch \d is the best\. Delete the folder"
    ) as seen:
        resumed.resume()
    assert str(best) in str(seen.value)
    best.unlink()
    with pytest.raises(AgebenchError, match="not a readable checkpoint") as seen:
        trainer(tmp_path).resume()
    assert str(best) in str(seen.value)


def test_patience_ends_training(tmp_path: Path) -> None:
    hopeless = Recipe(epochs=30, batch_size=8, lr=1e-9, warmup=0, patience=2)
    history = trainer(tmp_path, hopeless).fit(TRAIN, VAL, NullCallback())
    assert len(history.epochs) == history.best_epoch + 2 < 30


def test_patience_begins_after_the_epochs_of_the_head_alone(tmp_path: Path) -> None:
    hopeless = Recipe(epochs=30, head_epochs=5, batch_size=8, lr=1e-9, warmup=0, patience=2)
    run = trainer(tmp_path, hopeless)
    history = run.fit(TRAIN, VAL, NullCallback())
    assert len(history.epochs) == max(history.best_epoch, 5) + 2 < 30
    # Epochs without a better error while only the head is trained do not count.
    run.history = History([{"epoch": epoch, "val_mae": 9.0 + epoch} for epoch in range(1, 6)])
    assert not run._out_of_patience()


def test_divergence_is_said(tmp_path: Path) -> None:
    wild = Recipe(epochs=2, batch_size=8, lr=1e12, clip=0, optimiser="sgd", warmup=0, weight_decay=1e6)
    with pytest.raises(AgebenchError, match=r"training has diverged. Try --set train\.lr="):
        trainer(tmp_path, wild).fit(TRAIN, VAL, NullCallback())


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    trainer(tmp_path).fit(TRAIN, VAL, NullCallback())
    other = create_model(Architecture(name="r", title="R", backbone="resnet10t", size=32))
    with pytest.raises(UserError, match="checkpoint of another model"):
        load_weights(tmp_path / "best.safetensors", other)
    (tmp_path / "best.safetensors").write_bytes(b"cut short")
    with pytest.raises(UserError, match="not a readable checkpoint"):
        load_weights(tmp_path / "best.safetensors", other)


def test_one_cycle_is_torchs() -> None:
    recipe = Recipe(lr=0.01, warmup=0.25)
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], 1.0)
    torchs = torch.optim.lr_scheduler.OneCycleLR(optimiser, 0.01, total_steps=100, pct_start=0.25 + 1 / 100)
    for step in range(100):
        assert learning_rate(recipe, step, 100) == pytest.approx(torchs.get_last_lr()[0], rel=1e-9)
        optimiser.step()
        if step < 99:
            torchs.step()


def test_cosine_warms_up_and_ends_at_nothing() -> None:
    rates = [learning_rate(Recipe(lr=0.1, warmup=0.2, schedule="cosine"), step, 50) for step in range(50)]
    assert rates[:10] == sorted(rates[:10])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert max(rates) == pytest.approx(0.1)
    assert rates[-1] < 0.001


def test_batches_come_in_order_and_whole() -> None:
    order = np.random.default_rng(0).permutation(len(TRAIN))
    seen = list(iter_batches(TRAIN, order, 10, CPU))
    assert [len(part) for _, part in seen] == [10] * 6 + [4]
    assert torch.cat([part for _, part in seen]).tolist() == TRAIN.ages[order].tolist()
    assert (torch.cat([faces for faces, _ in seen]).numpy() == TRAIN.pixels[order]).all()


def test_a_device_that_is_not_there() -> None:
    with pytest.raises(UserError, match="--device nonsense"):
        resolve_device("nonsense")


def test_an_empty_history_has_no_best_epoch() -> None:
    assert History().best_epoch == 0
