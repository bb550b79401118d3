"""The time saved by computing a frozen backbone's features once, in one run.

Three times are measured on the same images: an epoch that sends each image through the frozen backbone again, the features
(of every face and its mirror image) computed once, and an epoch on them. From these follows the ratio for many heads.

python benchmarks/perf/frozen.py [--model efficientnet_lite0] [--images 512] [--heads 14] [--epochs 10] [--rounds 3]
"""

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from agebench.config.cards.model import ModelCard, Recipe
from agebench.data.faces.cache import FaceCache
from agebench.models.age_model import create_model
from agebench.registry.catalog import load_catalog
from agebench.training.augmentation import normalize
from agebench.training.callbacks import NullCallback
from agebench.training.dataloader import FaceDataset, iter_batches
from agebench.training.device import autocast, resolve_device
from agebench.training.frozen_features import frozen_features
from agebench.training.optim import create_optimizer
from agebench.training.trainer import Trainer


def every_time(card: ModelCard, recipe: Recipe, faces: FaceDataset, device: torch.device) -> float:
    """Seconds of an epoch through the frozen backbone."""
    model = create_model(card).to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    model.backbone.requires_grad_(False)
    optimiser = create_optimizer(model, recipe)
    started = time.perf_counter()
    for pixels, ages in iter_batches(faces, np.arange(len(faces)), recipe.batch_size, device):
        with autocast(device, recipe.precision):
            with torch.no_grad():
                features = model.backbone(normalize(pixels, card.mean, card.std))
            logits = model.head(features)
        loss = model.head.loss(logits.float(), ages)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
    float(loss.detach())  # waits for the device
    return time.perf_counter() - started


def once(
    card: ModelCard, recipe: Recipe, faces: FaceDataset, device: torch.device, folder: Path
) -> tuple[float, float]:
    """Seconds for the features, and of an epoch on them through the engine."""
    os.environ["AGEBENCH_CACHE"] = str(folder)
    model = create_model(card)
    started = time.perf_counter()
    found = frozen_features(
        model, FaceCache(faces.pixels, {}, {}, "bench"), card, mirrored=True, device=device, precision=recipe.precision
    )
    computed = time.perf_counter() - started
    data = FaceDataset(found.pixels, faces.rows, faces.ages)
    trainer = Trainer(model, card, recipe, seed=0, device=device, folder=folder)
    trainer.train_epoch(data, 1, NullCallback())
    started = time.perf_counter()
    trainer.train_epoch(data, 2, NullCallback())
    return computed, time.perf_counter() - started


def main() -> None:
    """Print the times of every round and the median ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="efficientnet_lite0")
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--heads", type=int, default=14)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    card, device = load_catalog().network(options.model), resolve_device(options.device)
    recipe = Recipe.model_validate({**card.train.model_dump(mode="json"), "freeze": "backbone"})
    count = options.images // recipe.batch_size * recipe.batch_size
    pixels = np.random.default_rng(0).integers(0, 256, (count, card.size, card.size, 3), dtype=np.uint8)
    faces = FaceDataset(pixels, np.arange(count), np.linspace(1, 90, count, dtype=np.float32))
    passes = options.heads * options.epochs
    epoch, whole = [], []
    for number in range(options.rounds):
        with tempfile.TemporaryDirectory() as folder:
            again = every_time(card, recipe, faces, device)
            computed, fast = once(card, recipe, faces, device, Path(folder))
        print(
            f"round {number + 1}: epoch {again:.2f} s; features {computed:.2f} s, epoch on them {fast:.3f} s",
            flush=True,
        )
        epoch.append(again / fast)
        whole.append(passes * again / (computed + passes * fast))
    print(
        f"{card.name} at {card.size} px, {count} images, {device}: an epoch is {statistics.median(epoch):.0f} times as fast;"
    )
    print(
        f"{options.heads} heads of {options.epochs} epochs, features included: {statistics.median(whole):.0f} times (computed)"
    )


if __name__ == "__main__":
    main()
