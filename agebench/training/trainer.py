"""Training over the face cache.

Model selection uses the validation split of the training set alone.
"""

import math
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from agebench.config.cards.model import Architecture, Recipe
from agebench.errors import Damaged, TrainingDivergedError, UserError
from agebench.models.age_model import AgeModel
from agebench.training import distributed
from agebench.training.augmentation import Augmenter
from agebench.training.callbacks import Callback, TrainState
from agebench.training.checkpoint import load_state, load_weights, save_state, save_weights
from agebench.training.dataloader import FaceDataset, balanced_order, derive_seed, epoch_order, iter_batches
from agebench.training.device import autocast, set_deterministic
from agebench.training.frozen_features import FeatureFlip
from agebench.training.mixing import Mix, draw_mix
from agebench.training.optim import (
    WeightAverage,
    backbone_layers,
    create_optimizer,
    freeze_first_layers,
    learning_rate,
    set_learning_rate,
)
from agebench.training.prediction import predict
from agebench.utils.integrity import checkpoint_metadata

# Optimizer steps between two reads of the loss; a read waits for the device.
LOG_EVERY_STEPS = 20


@dataclass
class History:
    """The record of all epochs.

    Attributes:
        epochs: one entry per epoch, the content of history.json: epoch (from 1), loss (mean), train_mae (years; mean over the
            epoch's steps, hence of augmented images and of weights that still change), val_mae (years), lr (at the end of the
            epoch), images_per_s, seconds, and the mean of each metric of the head.
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


@dataclass(frozen=True)
class Batch:
    """One batch, on the training device.

    In a run over several processes, each holds its shard of the faces and ages.

    Attributes:
        faces: (B / processes, S, S, C) uint8 faces, or (B / processes, views, D) features of a frozen backbone.
        ages: (B / processes,) float32 years.
        labels: auxiliary target -> (B,) class indices of the whole batch.
        seed: seed of augmentation, mixing and dropout.
    """

    faces: Tensor
    ages: Tensor
    labels: dict[str, Tensor]
    seed: int


@dataclass(frozen=True)
class StepOutput:
    """The result of the forward pass and the loss of one batch.

    Attributes:
        loss: the weighted sum of all losses, with its graph.
        metrics: scalars to log, without graph: loss, train_mae (years), the loss of each auxiliary target, and the metrics
            of the head.
    """

    loss: Tensor
    metrics: dict[str, Tensor]


def configure_model(model: AgeModel, recipe: Recipe) -> list[nn.Module]:
    """Apply the options of a recipe that change the model; return the modules of its frozen layers.

    Call it before data preparation, so that an unsupported recipe fails early.

    Args:
        model: the model to train.
        recipe: the recipe.

    Raises:
        UserError: the head or the backbone does not support an option of the recipe.
    """
    if recipe.label_smoothing:
        model.head.smooth_labels(recipe.label_smoothing)
    if (recipe.mixup or recipe.cutmix) and not model.head.supports_mixing:
        raise UserError(
            f"train.{'mixup' if recipe.mixup else 'cutmix'}: {type(model.head).__name__} needs one age per face and cannot train "
            "on mixed images. Leave the option out or choose another head"
        )
    if recipe.layer_decay < 1:
        backbone_layers(model.backbone)
    model.flip_tta = recipe.flip_tta
    return freeze_first_layers(model.backbone, recipe.frozen_layers)


class Trainer:
    """One training run that can stop after any epoch and resume to the same result.

    Every random decision is a function of (seed, epoch, step), and the learning rate is a function of the step.
    `<folder>/last.safetensors` holds the remaining state. `<folder>/best.safetensors` holds the weights with the lowest
    validation MAE; with `ema_decay` these are averaged weights.

    Args:
        model: the model to train; it is moved to `device`.
        card: input normalization and weights of the auxiliary targets.
        recipe: the hyperparameters.
        seed: seed of all random decisions.
        device: the training device.
        folder: the folder of the checkpoints.

    Raises:
        UserError: the head or the backbone does not support an option of the recipe.
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
        self._frozen_modules = configure_model(model, recipe)
        self.recipe, self.card, self.seed, self.device, self.folder = recipe, card, seed, device, folder
        self.model: AgeModel = model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizer = create_optimizer(self.model, recipe)
        self.average = WeightAverage(self.model, recipe.ema_decay) if recipe.ema_decay else None
        self._trainable = [parameter for parameter in self.model.backbone.parameters() if parameter.requires_grad]
        self._is_frozen = False
        self._parallel = distributed.wrap_ddp(self.model)
        self.augment: Augmenter | FeatureFlip = (
            FeatureFlip(recipe.augment.flip) if recipe.freeze else Augmenter(recipe.augment, card.mean, card.std)
        )
        self.history = History()

    def resume(self) -> bool:
        """Load `last.safetensors` if it exists; return whether it does.

        Raises:
            UserError: the file is damaged or belongs to another model, or `best.safetensors` is not of its best epoch.
        """
        path = self.folder / "last.safetensors"
        distributed.broadcast_file(path)
        if not path.exists():
            return False
        metadata = load_state(path, self.model, self.optimizer, self._average_state())
        self.history = History(_history(path, metadata))
        distributed.broadcast_from_main(self._require_usable_best)  # only the first process has the run's folder
        return True

    def load_best(self) -> None:
        """Load the weights of the epoch with the lowest validation MAE.

        Raises:
            UserError: the file is missing, damaged, or of another epoch.
        """
        path = self.folder / "best.safetensors"
        distributed.broadcast_file(path)
        self._require_best_epoch(path, load_weights(path, self.model).get("epoch"))

    def _require_usable_best(self) -> None:
        """Compare `best.safetensors` with the history, before further epochs are trained in vain."""
        if not self.history.epochs:
            return  # the first epoch writes the file
        path = self.folder / "best.safetensors"
        epoch = checkpoint_metadata(path).get("epoch")
        # A process that was killed between its writes of both files left the best weights of an epoch that is trained again.
        if not (isinstance(epoch, int) and len(self.history.epochs) < epoch <= self.recipe.epochs):
            self._require_best_epoch(path, epoch)

    def _require_best_epoch(self, path: Path, epoch: object) -> None:
        """Refuse weights of an epoch other than the best of the history."""
        if epoch != self.history.best_epoch:
            raise Damaged(
                f"{path}: the file contains the weights of epoch {epoch}, but epoch {self.history.best_epoch} is the best. Delete "
                f"the folder {self.folder} and repeat the run"
            )

    def steps_done(self, training: FaceDataset) -> int:
        """Return the number of optimizer steps in the epochs of the history.

        Args:
            training: the training faces.
        """
        return len(self.history.epochs) * self._epoch_size(training)[0]

    def fit(self, training: FaceDataset, validation: FaceDataset, callback: Callback) -> History:
        """Train until the recipe's last epoch or until its patience ends.

        Args:
            training: the training faces.
            validation: the faces that select the best epoch.
            callback: hooks for progress and validation.

        Raises:
            TrainingDivergedError: the loss is not finite.
            AgebenchError: a checkpoint cannot be written.
        """
        if not self.history.epochs:
            self._save_last()  # detects a folder that is not writable before the first epoch
        for epoch in range(len(self.history.epochs) + 1, self.recipe.epochs + 1):
            if self._out_of_patience():
                break
            entry = self.train_epoch(training, epoch, callback)
            with self.evaluation_weights():
                ages = predict(self.model, validation, self.card, self.device, precision=self.recipe.precision).age
                entry["val_mae"] = float(np.abs(ages.astype(np.float64) - validation.ages).mean())
                self.history.epochs.append(entry)
                if self.history.best_epoch == epoch and distributed.get_rank() == 0:
                    metadata = {"epoch": epoch, "val_mae": entry["val_mae"]}
                    save_weights(self.folder / "best.safetensors", self.model, metadata)
            callback.on_validation(validation, ages)
            self._save_last()
            callback.on_epoch_end(entry, self.recipe.epochs)
        return self.history

    def evaluation_weights(self) -> AbstractContextManager[None]:
        """Return a context in which the model has the weights to evaluate.

        With `ema_decay` these are the averaged weights.
        """
        return nullcontext() if self.average is None else self.average.applied()

    def train_epoch(self, training: FaceDataset, epoch: int, callback: Callback) -> dict[str, float]:
        """Train one epoch; return its entry of the history without the validation MAE.

        Args:
            training: the training faces.
            epoch: the epoch, from 1.
            callback: hooks for progress.

        Raises:
            TrainingDivergedError: the loss is not finite.
        """
        self.model.train()
        for module in self._frozen_modules:
            module.eval()  # keeps the statistics of batch normalization
        self._freeze_backbone(epoch <= self.recipe.head_epochs)
        self.optimizer.zero_grad(set_to_none=True)
        n_steps, n_batches = self._epoch_size(training)
        per_step, size, n_processes = self.recipe.accumulate_steps, self.recipe.batch_size, distributed.get_world_size()
        order = self._order(training, epoch)[: n_batches * size]
        shard = distributed.shard_order(order, size)
        totals: dict[str, Tensor] = {}
        started, n_images, lr = time.perf_counter(), 0, 0.0
        for index, (faces, ages) in enumerate(iter_batches(training, shard, size // n_processes, self.device)):
            labels = self._labels(training, order[index * size : (index + 1) * size])
            seed = derive_seed(self.seed, "step", (epoch - 1) * n_batches + index)
            output = self.training_step(Batch(faces, ages, labels, seed))
            step = index // per_step + 1
            n_accumulated = min(per_step, n_batches - (step - 1) * per_step)  # the last step may have fewer batches
            (output.loss / n_accumulated).backward()  # type: ignore[no-untyped-call]
            for name, value in output.metrics.items():
                totals[name] = totals.get(name, torch.zeros((), device=self.device)) + value
            n_images += len(ages) * n_processes
            if (index + 1) % per_step and index + 1 < n_batches:
                continue
            lr = self._optimizer_step((epoch - 1) * n_steps + step - 1, self.recipe.epochs * n_steps)
            if step % LOG_EVERY_STEPS == 0 or step == n_steps:
                loss = self._require_finite(float(totals["loss"]) / (index + 1), epoch, step, lr)
                speed = n_images / (time.perf_counter() - started)
                steps_done, total_steps = (epoch - 1) * n_steps + step, self.recipe.epochs * n_steps
                callback.on_step(TrainState(epoch, steps_done, total_steps, loss, lr, speed))
        seconds = time.perf_counter() - started
        means = {name: float(value) / n_batches for name, value in totals.items()}
        return {"epoch": epoch, **means, "lr": lr, "images_per_s": n_images / seconds, "seconds": seconds}

    def training_step(self, batch: Batch) -> StepOutput:
        """Compute the loss of one batch.

        The caller does the backward pass and the optimizer step.

        Args:
            batch: the faces, ages and labels, and the seed of all random decisions.
        """
        torch.manual_seed(batch.seed)
        shard = (distributed.get_rank(), distributed.get_world_size())
        images = self.augment(batch.faces, torch.Generator().manual_seed(batch.seed), shard)
        mix = draw_mix(
            len(images) * shard[1],
            images.shape[-1],
            mixup=self.recipe.mixup,
            cutmix=self.recipe.cutmix,
            seed=batch.seed,
        )
        with autocast(self.device, self.recipe.precision), distributed.sync_batch_stats():
            logits = self._parallel(images if mix is None else mix.apply(images))
        logits, ages = distributed.gather_batch(logits.float()), distributed.gather_batch(batch.ages)
        losses, ages = self._losses(logits, ages, batch.labels, mix)
        loss = losses.pop("age")
        for name, task_loss in losses.items():
            loss = loss + self.card.targets.get(name, 1.0) * task_loss
        with torch.no_grad():
            age_logits = self.model.split(logits.detach())[0]
            error = (self.model.head.decode(age_logits).age - ages).abs().mean()
            metrics = {"loss": loss.detach(), "train_mae": error}
            metrics |= {f"loss_{name}": value.detach() for name, value in losses.items()}
            return StepOutput(loss, metrics | self.model.head.metrics(age_logits, ages))

    def _losses(
        self, logits: Tensor, ages: Tensor, labels: dict[str, Tensor], mix: Mix | None
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Return the losses and the ages (B,); of mixed images, the convex combinations of those of both images."""
        losses = self.model.losses(logits, ages, labels)
        if mix is None:
            return losses, ages
        partner = mix.partner.to(self.device)
        partner_losses = self.model.losses(
            logits, ages[partner], {name: codes[partner] for name, codes in labels.items()}
        )
        mixed = {name: mix.weight * loss + (1 - mix.weight) * partner_losses[name] for name, loss in losses.items()}
        return mixed, mix.weight * ages + (1 - mix.weight) * ages[partner]

    def _order(self, training: FaceDataset, epoch: int) -> np.ndarray:
        """Return the order of the faces in one epoch."""
        if self.recipe.age_balance:
            return balanced_order(training.ages, self.recipe.age_balance, seed=self.seed, epoch=epoch)
        return epoch_order(len(training), seed=self.seed, epoch=epoch)

    def _freeze_backbone(self, frozen: bool) -> None:
        """Freeze the backbone, with its batch-normalization statistics, or release it."""
        if frozen:
            self.model.backbone.eval()
        if frozen == self._is_frozen:
            return
        for parameter in self._trainable:
            parameter.requires_grad_(not frozen)
        self._is_frozen = frozen
        self._parallel = distributed.wrap_ddp(self.model)  # the parameters whose gradients are averaged have changed

    def _optimizer_step(self, step: int, total_steps: int) -> float:
        """Do optimizer step `step` (from 0) with the accumulated gradients; return its learning rate."""
        lr = learning_rate(self.recipe, step, total_steps)
        set_learning_rate(self.optimizer, lr)
        if self.recipe.clip:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.update(step)
        return lr

    def _epoch_size(self, training: FaceDataset) -> tuple[int, int]:
        """Return the number of optimizer steps of an epoch, and the number of its batches.

        Only whole batches count, because a last batch of a single image would break batch normalization.
        """
        n_batches = max(1, len(training) // self.recipe.batch_size)
        return math.ceil(n_batches / self.recipe.accumulate_steps), n_batches

    def _labels(self, data: FaceDataset, rows: np.ndarray) -> dict[str, Tensor]:
        """Return the auxiliary labels of the faces of one batch, over all processes."""
        return {name: torch.from_numpy(codes[rows]).to(self.device) for name, codes in data.labels.items()}

    def _require_finite(self, loss: float, epoch: int, step: int, lr: float) -> float:
        """Return the loss, or raise `TrainingDivergedError` if it is not finite."""
        if math.isfinite(loss):
            return loss
        raise TrainingDivergedError(
            f"the loss is {loss} in epoch {epoch}, step {step} (learning rate {lr:.2g}): training has diverged. "
            f"Try --set train.lr={self.recipe.lr / 3:.1g}, or --set train.clip=1."
        )

    def _out_of_patience(self) -> bool:
        """Return whether the patience has ended; it begins when the whole network is trained."""
        begin = max(self.history.best_epoch, self.recipe.head_epochs)
        return bool(self.recipe.patience) and len(self.history.epochs) - begin >= self.recipe.patience

    def _average_state(self) -> dict[str, Tensor] | None:
        return None if self.average is None else self.average.state

    def _save_last(self) -> None:
        if distributed.get_rank():
            return
        path, metadata = self.folder / "last.safetensors", {"history": self.history.epochs}
        save_state(path, self.model, self.optimizer, metadata, self._average_state())


# Keys of a history entry that computations use.
_REQUIRED_KEYS = ("epoch", "val_mae", "seconds", "images_per_s")


def _history(path: Path, metadata: dict[str, Any]) -> list[dict[str, float]]:
    """Return the epochs in the metadata of the checkpoint at `path`."""
    epochs = metadata.get("history")
    if not isinstance(epochs, list) or not all(
        isinstance(entry, dict) and all(isinstance(entry.get(key), int | float) for key in _REQUIRED_KEYS)
        for entry in epochs
    ):
        raise Damaged(
            f"{path}: the metadata contain no history of epochs. Restore the file from a copy, or delete the folder "
            f"{path.parent} and repeat the run"
        )
    return epochs
