"""Training through the whole engine against the bare model on tensors in memory, in one run.

    python benchmarks/perf/training.py [--model efficientnet_lite0] [--batches 20] [--rounds 5]

Bare: forward, backward and optimizer step on one batch that is normalized already. Through the engine: the same, from a
memory-mapped face cache, with augmentation, clipping and logging. Rounds alternate, so that both see the same machine.
"""

import argparse
import statistics
import tempfile
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import torch

from agebench.config.cards.model import ModelCard
from agebench.models.age_model import create_model
from agebench.registry.catalog import load_catalog
from agebench.training.callbacks import ConsoleCallback
from agebench.training.dataloader import FaceDataset
from agebench.training.device import autocast, resolve_device
from agebench.training.optim import create_optimizer
from agebench.training.trackers import TensorBoardTracker
from agebench.training.trainer import Trainer


def bare(card: ModelCard, device: torch.device, batches: int) -> float:
    """Images a second of the bare model."""
    model = create_model(card).to(device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    optimiser = create_optimizer(model, card.train)
    size = card.train.batch_size
    images = torch.randn(size, 3, card.size, card.size, device=device).contiguous(memory_format=torch.channels_last)
    ages = torch.rand(size, device=device) * 80

    def step() -> None:
        with autocast(device, card.train.precision):
            logits = model(images)
        loss = model.head.loss(logits.float(), ages)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()

    for _ in range(3):
        step()
    start = time.perf_counter()
    for _ in range(batches):
        step()
    float(next(model.parameters()).detach().sum())  # waits for the device
    return batches * size / (time.perf_counter() - start)


def through_the_engine(card: ModelCard, device: torch.device, batches: int, folder: Path) -> float:
    """Images a second of an epoch as `agebench run` trains it."""
    count = batches * card.train.batch_size
    path = folder / "faces.u8"
    shape = (count, card.size, card.size, 3)
    np.memmap(path, np.uint8, "w+", shape=shape)[:] = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    data = FaceDataset(
        np.memmap(path, np.uint8, "r", shape=shape), np.arange(count), np.linspace(1, 90, count, dtype=np.float32)
    )
    warm = FaceDataset(data.pixels, data.rows[: 3 * card.train.batch_size], data.ages[: 3 * card.train.batch_size])
    trainer = Trainer(create_model(card), card, card.train, seed=0, device=device, folder=folder)
    with (
        closing(TensorBoardTracker(folder / "tensorboard")) as tracker,
        ConsoleCallback([tracker], quiet=True) as events,
    ):
        trainer.train_epoch(warm, 1, events)
        return trainer.train_epoch(data, 2, events)["images_per_s"]


def main() -> None:
    """Print both speeds and their ratio, the median over the rounds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="efficientnet_lite0")
    parser.add_argument("--batches", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    card, device = load_catalog().network(options.model), resolve_device(options.device)
    pairs = []
    for number in range(options.rounds):
        with tempfile.TemporaryDirectory() as folder:
            pairs.append(
                (bare(card, device, options.batches), through_the_engine(card, device, options.batches, Path(folder)))
            )
        print(
            f"round {number + 1}: bare {pairs[-1][0]:.1f} images/s, through the engine {pairs[-1][1]:.1f}", flush=True
        )
    ratio = statistics.median(engine / model for model, engine in pairs)
    print(f"{card.name} at {card.size} px, batch {card.train.batch_size}, {device}: engine / bare = {ratio:.3f}")


if __name__ == "__main__":
    main()
