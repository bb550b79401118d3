"""Training: epochs over the face cache, judged on the validation part of the training set alone."""

import math
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from agebench.config.cards.base import Architecture, Recipe
from agebench.errors import Damaged, TrainingDivergedError
from agebench.models.age_model import AgeModel
from agebench.training import distributed
from agebench.training.augmentation import Augmenter
from agebench.training.callbacks import Callback
from agebench.training.checkpoint import load_state, load_weights, save_state, save_weights
from agebench.training.dataloader import FaceDataset, derive_seed, epoch_order, iter_batches
from agebench.training.device import autocast, set_deterministic
from agebench.training.frozen_features import FeatureFlip
from agebench.training.optim import create_optimizer, learning_rate
from agebench.training.prediction import predict

# Steps between two looks at the loss: looking waits for the device.
LOG_EVERY_STEPS = 20


@dataclass
class History:
    """What happened, epoch by epoch; `epochs` is history.json.

    Attributes:
        epochs: one entry an epoch: epoch (from 1), loss (mean), train_mae (years; mean over its steps, so of augmented images
            and of a network that was still learning), val_mae (years), lr (at its end), images_per_s, seconds, and the mean
            of whatever the head logs.
    """

    epochs: list[dict[str, float]] = field(default_factory=list)

    @property
    def best_epoch(self) -> int:
        """The first epoch with the lowest validation MAE, from 1; 0 before the first."""
        return int(min(self.epochs, key=lambda entry: entry["val_mae"])["epoch"]) if self.epochs else 0

    @property
    def images_per_s(self) -> float:
        """Training throughput over all epochs."""
        seconds = sum(entry["seconds"] for entry in self.epochs)
        return sum(entry["images_per_s"] * entry["seconds"] for entry in self.epochs) / max(seconds, 1e-9)


class Trainer:
    """One training run that can stop after any epoch and go on to the same result.

    Every random decision comes from (seed, epoch, step), the learning rate from the step alone, and
    `<folder>/last.safetensors` holds the rest. `<folder>/best.safetensors` are the weights with the lowest validation MAE.
    """

    def __init__(
        self,
        model: AgeModel,
        card: Architecture,
        recipe: Recipe,
        *,
        seed: int,
        device: torch.device,
        folder: Path,
    ) -> None:
        set_deterministic()
        self.recipe, self.card, self.seed, self.device, self.folder = recipe, card, seed, device, folder
        self.model: AgeModel = model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimiser = create_optimizer(self.model, recipe)
        self._parallel = distributed.wrap_ddp(self.model)
        self.augment: Augmenter | FeatureFlip = (
            FeatureFlip(recipe.augment.flip) if recipe.freeze else Augmenter(recipe.augment, card.mean, card.std)
        )
        self.history = History()

    def resume(self) -> bool:
        """Go on from `last.safetensors` if it is there."""
        path = self.folder / "last.safetensors"
        distributed.broadcast_file(path)
        if not path.exists():
            return False
        about = load_state(path, self.model, self.optimiser)
        self.history = History(_history(path, about))
        return True

    def load_best(self) -> None:
        """Take the weights of the epoch with the lowest validation MAE.

        Raises:
            UserError: the file is missing, damaged, or of another epoch.
        """
        path = self.folder / "best.safetensors"
        distributed.broadcast_file(path)
        epoch = load_weights(path, self.model).get("epoch")
        if epoch != self.history.best_epoch:
            raise Damaged(
                f"{path}: holds weights of epoch {epoch}, and epoch {self.history.best_epoch} is the best. Delete the folder "
                f"{self.folder} and repeat the run"
            )

    def steps_done(self, training: FaceDataset) -> int:
        """The optimiser's steps behind the history."""
        return len(self.history.epochs) * self._steps(training)

    def fit(self, training: FaceDataset, validation: FaceDataset, events: Callback) -> History:
        """Train until the recipe's epochs or its patience end.

        Raises:
            Diverged: the loss is no longer a finite number.
            AgebenchError: a checkpoint cannot be written.
        """
        if not self.history.epochs:
            self._save_last()  # a folder that cannot be written is better found before an epoch than after it
        for epoch in range(len(self.history.epochs) + 1, self.recipe.epochs + 1):
            if self._out_of_patience():
                break
            entry = self.train_epoch(training, epoch, events)
            ages = predict(self.model, validation, self.card, self.device, precision=self.recipe.precision).age
            entry["val_mae"] = float(np.abs(ages.astype(np.float64) - validation.ages).mean())
            events.validated(validation, ages)
            self.history.epochs.append(entry)
            if self.history.best_epoch == epoch and distributed.get_rank() == 0:
                save_weights(
                    self.folder / "best.safetensors", self.model, {"epoch": epoch, "val_mae": entry["val_mae"]}
                )
            self._save_last()
            events.epoch_done(entry, self.recipe.epochs)
        return self.history

    def _steps(self, training: FaceDataset) -> int:
        """Whole batches in an epoch: a last one of a single image would break batch normalisation."""
        return max(1, len(training) // self.recipe.batch_size)

    def train_epoch(self, training: FaceDataset, epoch: int, events: Callback) -> dict[str, float]:
        """Train one epoch; returns its entry of the history but for the validation MAE."""
        self.model.train()
        steps = self._steps(training)
        size = self.recipe.batch_size
        order = epoch_order(len(training), seed=self.seed, epoch=epoch)[: steps * size]
        own, share = distributed.shard_order(order, size), size // distributed.get_world_size()
        totals: dict[str, Tensor] = {}
        started, done, rate = time.perf_counter(), 0, 0.0
        for step, (faces, ages) in enumerate(iter_batches(training, own, share, self.device)):
            overall = (epoch - 1) * steps + step
            rate = learning_rate(self.recipe, overall, self.recipe.epochs * steps)
            labels = self._labels(training, order[step * size : (step + 1) * size])  # of the whole batch, as the loss
            for name, value in self._step(faces, ages, labels, rate, derive_seed(self.seed, "step", overall)).items():
                totals[name] = totals.get(name, torch.zeros((), device=self.device)) + value.detach()
            done += len(ages) * distributed.get_world_size()
            if step % LOG_EVERY_STEPS == LOG_EVERY_STEPS - 1 or step == steps - 1:
                loss = float(totals["loss"]) / (step + 1)
                if not math.isfinite(loss):
                    raise TrainingDivergedError(
                        f"the loss is {loss} in epoch {epoch}, step {step + 1} (learning rate {rate:.2g}): training has diverged. "
                        f"Try --set train.lr={self.recipe.lr / 3:.1g}, or --set train.clip=1."
                    )
                events.step_done(
                    overall + 1, self.recipe.epochs * steps, loss, rate, done / (time.perf_counter() - started)
                )
        seconds = time.perf_counter() - started
        means = {name: float(value) / steps for name, value in totals.items()}
        return {"epoch": epoch, **means, "lr": rate, "images_per_s": done / seconds, "seconds": seconds}

    def _labels(self, data: FaceDataset, chosen: np.ndarray) -> dict[str, Tensor]:
        """Of the targets beside age, for the faces of one batch, those of all processes."""
        return {name: torch.from_numpy(codes[chosen]).to(self.device) for name, codes in data.labels.items()}

    def _step(
        self, faces: Tensor, ages: Tensor, labels: dict[str, Tensor], rate: float, seed: int
    ) -> dict[str, Tensor]:
        torch.manual_seed(seed)
        images = self.augment(
            faces, torch.Generator().manual_seed(seed), (distributed.get_rank(), distributed.get_world_size())
        )
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        with autocast(self.device, self.recipe.precision), distributed.sync_batch_stats():
            logits = self._parallel(images)
        logits, ages = distributed.gather_batch(logits.float()), distributed.gather_batch(ages)
        losses = self.model.losses(logits, ages, labels)
        loss = losses.pop("age")
        for name, of_task in losses.items():
            loss = loss + self.card.targets.get(name, 1.0) * of_task
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        if self.recipe.clip:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip)
        self.optimiser.step()
        with torch.no_grad():
            of_age = self.model.split(logits.detach())[0]
            error = (self.model.head.decode(of_age).age - ages).abs().mean()
            of_tasks = {f"loss_{name}": value for name, value in losses.items()}
            return {"loss": loss, "train_mae": error, **of_tasks, **self.model.head.metrics(of_age, ages)}

    def _out_of_patience(self) -> bool:
        return bool(self.recipe.patience) and len(self.history.epochs) - self.history.best_epoch >= self.recipe.patience

    def _save_last(self) -> None:
        if distributed.get_rank():
            return
        about: dict[str, Any] = {"history": self.history.epochs}
        save_state(self.folder / "last.safetensors", self.model, self.optimiser, about)


# What is computed with of each epoch.
_ENTRY = ("epoch", "val_mae", "seconds", "images_per_s")


def _history(path: Path, about: dict[str, Any]) -> list[dict[str, float]]:
    """The epochs in a checkpoint's metadata."""
    epochs = about.get("history")
    if not isinstance(epochs, list) or not all(
        isinstance(entry, dict) and all(isinstance(entry.get(key), int | float) for key in _ENTRY) for entry in epochs
    ):
        raise Damaged(
            f"{path}: its metadata hold no history of epochs. Restore it from a copy, or delete the folder {path.parent} and "
            "repeat the run"
        )
    return epochs
