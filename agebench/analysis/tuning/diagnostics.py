"""Diagnostics before a search: initial loss, overfitting a small subset, and a learning-rate range test."""

import math
import shutil
import warnings
from contextlib import suppress

import numpy as np
import torch
from torch.utils.tensorboard import SummaryWriter

from agebench.analysis.tuning.context import SearchContext
from agebench.analysis.tuning.schema import InitialLoss, OverfitEpoch, OverfitResult, RangeTestResult, StepResult
from agebench.config.cards.model import Augment
from agebench.data.image_grid import make_contact_sheet
from agebench.errors import TrainingDivergedError
from agebench.models.age_model import AgeModel
from agebench.training.augmentation import Augmenter, normalize
from agebench.training.callbacks import ConsoleCallback
from agebench.training.dataloader import FaceDataset, derive_seed, epoch_order, iter_batches, subsample_by_age
from agebench.training.device import autocast
from agebench.training.optim import create_optimizer, freeze_first_layers, set_learning_rate
from agebench.training.prediction import predict
from agebench.training.trackers import RunTrackers
from agebench.training.trainer import Trainer

N_PROBE_BATCHES = 6  # batches for the initial loss
OVERFIT_SUBSET_SIZE = 64  # images
# Range test: first learning rate, number of steps, and last learning rate by optimizer.
MIN_LR, N_LR_STEPS = 1e-6, 100
MAX_LR = {"adamw": 1.0, "sgd": 10.0}
_NO_AUGMENTATION = Augment(flip=0, rotate=0, brightness=0, saturation=0, hue=0)


_NO_REGULARIZATION = {
    "ema_decay": 0.0,
    "accumulate_steps": 1,
    "mixup": 0.0,
    "cutmix": 0.0,
    "label_smoothing": 0.0,
    "flip_tta": False,
    "age_balance": 0.0,
    "frozen_layers": 0,
    "head_epochs": 0,
}


def check_initial_loss(context: SearchContext) -> InitialLoss:
    """Compare the loss of the untrained model with the loss of its head on all-zero features.

    A head is initialized from the ages of the training set (`Head.init_from_ages`), so both losses should be similar. A much
    higher loss indicates too large features or ages in the wrong unit; a much lower loss indicates that the age leaks into
    the input.

    Args:
        context: the data and settings of the search.

    Returns:
        The losses and the verdict.
    """
    training, size = context.training(), context.config.train.batch_size
    model, card = context.build_model().train(), context.config.model
    order = epoch_order(len(training), seed=context.config.seed, epoch=1)[: N_PROBE_BATCHES * size]
    torch.manual_seed(derive_seed(context.config.seed, "untrained"))
    losses, expected, errors = [], [], []
    with torch.no_grad():
        for faces, ages in iter_batches(training, order, size, context.device):
            if len(ages) < 2:
                continue  # batch normalization needs two images
            logits = model(normalize(faces, card.mean, card.std)).float()
            losses.append(float(model.head.loss(logits, ages)))
            errors.append(float((model.head.decode(logits).age - ages).abs().mean()))
            zeros = torch.zeros(len(ages), model.head.in_features, device=context.device)
            expected.append(float(model.head.loss(model.head(zeros).float(), ages)))
    baseline_mae = float(np.abs(training.ages - float(np.median(training.ages))).mean())
    _write_tensorboard(context, model, training)
    judgment = _judge_initial_loss(losses, expected)
    return InitialLoss(
        losses=losses,
        expected=expected,
        loss=float(np.mean(losses)),
        should_be=float(np.mean(expected)),
        mae=float(np.mean(errors)),
        mae_of_the_median=baseline_mae,
        good=judgment.good,
        verdict=judgment.verdict,
    )


def _judge_initial_loss(losses: list[float], expected_losses: list[float]) -> StepResult:
    loss, expected = float(np.mean(losses)), float(np.mean(expected_losses))
    standard_error = float(np.std(expected_losses) / math.sqrt(len(expected_losses)))
    tolerance = 0.3 * max(abs(expected), 0.1) + 3 * standard_error
    if not math.isfinite(loss):
        return StepResult(good=False, verdict=f"The initial loss is {loss}: check the head and the scale of the input.")
    summary = f"The initial loss is {loss:.3f}, expected {expected:.3f}"
    if loss > expected + tolerance:
        advice = "It is too high; the first epoch will be spent reducing it. Use a smaller head initialization."
        return StepResult(good=False, verdict=f"{summary}. {advice}")
    if loss < expected - tolerance:
        advice = "It is lower than the age distribution allows, so the age may leak into the input."
        return StepResult(good=False, verdict=f"{summary}. {advice}")
    return StepResult(good=True, verdict=f"{summary}: correct for an untrained model.")


def overfit_small_subset(context: SearchContext, *, epochs: int = 60) -> OverfitResult:
    """Train on 64 images only, without augmentation and weight decay; a working model overfits them.

    Args:
        context: the data and settings of the search.
        epochs: the number of epochs.

    Returns:
        The training curve and the verdict.
    """
    subset = subsample_by_age(context.training(), OVERFIT_SUBSET_SIZE)
    size = max(2, min(16, len(subset)))
    recipe = context.config.train.model_copy(
        update={
            "epochs": epochs,
            "batch_size": size,
            "augment": _NO_AUGMENTATION,
            "weight_decay": 0.0,
            "schedule": "cosine",
            "warmup": 0.1,
            **_NO_REGULARIZATION,
        }
    )
    folder = context.home / "by-heart"
    shutil.rmtree(folder, ignore_errors=True)  # training is too short to be worth resuming
    model, card = context.build_model(recipe), context.config.model
    trainer = Trainer(model, card, recipe, seed=context.config.seed, device=context.device, folder=folder)
    curve: list[OverfitEpoch] = []
    mae = math.nan
    with (
        RunTrackers().training(folder / "tensorboard") as trackers,
        ConsoleCallback(trackers, quiet=True) as events,
        suppress(TrainingDivergedError),
    ):
        for epoch in range(1, epochs + 1):
            entry = trainer.train_epoch(subset, epoch, events)
            curve.append(OverfitEpoch(epoch=epoch, loss=entry["loss"], mae=entry["train_mae"]))
        ages = predict(trainer.model, subset, card, context.device, precision=recipe.precision).age
        mae = float(np.abs(ages - subset.ages).mean())
    baseline_mae = float(np.abs(subset.ages - np.median(subset.ages)).mean())
    diverged = not math.isfinite(mae)
    good = mae < 0.25 * baseline_mae
    if diverged:
        verdict = (
            f"Training on {len(subset)} images diverged after {len(curve)} of {epochs} epochs, at a learning rate of "
            f"{recipe.lr:g}: "
        )
    else:
        verdict = (
            f"After {epochs} epochs the MAE on the {len(subset)} training images is {mae:.1f} years, compared with "
            f"{baseline_mae:.1f} for the median-age baseline: "
        )
    verdict += (
        "the model can overfit a small subset."
        if good
        else "the model cannot overfit even a small subset. Check labels, loss and learning rate first."
    )
    return OverfitResult(
        images=len(subset),
        curve=curve,
        mae=None if diverged else mae,
        mae_of_the_median=baseline_mae,
        good=good,
        verdict=verdict,
    )


def lr_range_test(context: SearchContext) -> RangeTestResult:
    """Increase the learning rate exponentially over 100 steps and record the loss (Smith 2017, section 3.3).

    The loss of an untrained head on all-zero features with the same ages is subtracted from the loss of each batch, and its
    mean is added, because batches differ more by their ages than by the effect of 100 steps.

    Args:
        context: the data and settings of the search.

    Returns:
        The losses, and a tenth of the learning rate with the lowest smoothed loss.
    """
    recipe = context.config.train
    rates = MIN_LR * (MAX_LR[recipe.optimiser] / MIN_LR) ** (np.arange(N_LR_STEPS) / (N_LR_STEPS - 1))
    losses = _range_test_losses(context, rates)
    rates = rates[: len(losses)]
    suggested, decreases = suggest_lr(rates, losses)
    verdict = (
        f"The loss is lowest at a learning rate of about {10 * suggested:.1g}; the search is centered on a tenth of this value."
        if decreases
        else f"The loss decreases at no learning rate; the search is centered on the recipe's value, {recipe.lr:g}."
    )
    return RangeTestResult(
        rates=rates.tolist(),
        losses=losses,
        suggested=suggested if decreases else recipe.lr,
        good=decreases,
        verdict=verdict,
    )


def _range_test_losses(context: SearchContext, rates: np.ndarray) -> list[float]:
    """Train one step at each rate; return the adjusted losses, fewer than the rates if the loss diverges."""
    recipe, card, seed = context.config.train, context.config.model, context.config.seed
    training = context.training()
    order, size = _range_test_order(len(training), recipe.batch_size, seed)
    model = context.build_model().train()
    for module in freeze_first_layers(model.backbone, recipe.frozen_layers):
        module.eval()  # as in training
    optimizer, augment = create_optimizer(model, recipe), Augmenter(recipe.augment, card.mean, card.std)
    initial_head = context.build_model().head
    values: list[float] = []
    initial_losses: list[float] = []
    adjusted: list[float] = []
    writer = SummaryWriter(str(context.home / "tensorboard" / "range-test"))
    for step, (faces, ages) in enumerate(iter_batches(training, order, size, context.device)):
        torch.manual_seed(derive_seed(seed, "range", step))
        set_learning_rate(optimizer, float(rates[step]))
        images = augment(faces, torch.Generator().manual_seed(derive_seed(seed, "range", step)))
        with autocast(context.device, recipe.precision):
            logits = model(images)
        loss = model.head.loss(logits.float(), ages)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        if recipe.clip:
            torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
        optimizer.step()
        value = float(loss.detach())
        if not math.isfinite(value):
            break
        with torch.no_grad():
            zeros = torch.zeros(len(ages), initial_head.in_features, device=context.device)
            initial_losses.append(float(initial_head.loss(initial_head(zeros).float(), ages)))
        values.append(value)
        adjusted = [*(np.array(values) - initial_losses + np.mean(initial_losses)).tolist()]
        writer.add_scalar("range-test/loss", adjusted[-1], step)
        writer.add_scalar("range-test/learning_rate", rates[step], step)
        if _has_diverged(adjusted):
            break
    writer.close()
    return adjusted


def _range_test_order(count: int, batch_size: int, seed: int) -> tuple[np.ndarray, int]:
    """Return the rows of all steps, from as many epochs as they need, and the batch size."""
    size = min(batch_size, count)
    per_epoch = count // size * size
    epochs = math.ceil(N_LR_STEPS * size / per_epoch)
    orders = [epoch_order(count, seed=seed, epoch=epoch + 1)[:per_epoch] for epoch in range(epochs)]
    return np.concatenate(orders)[: N_LR_STEPS * size], size


def _has_diverged(losses: list[float]) -> bool:
    """Return whether the loss has left the range of its decrease; further steps would only compress the plot."""
    smooth = ema(losses)
    return bool(
        len(losses) > 21 and smooth[-1] - smooth.min() > 3 * max(smooth[0] - smooth.min(), abs(smooth[0]) * 0.1)
    )


def ema(values: list[float], decay: float = 0.9) -> np.ndarray:
    """Compute the exponential moving average of `values` with bias correction."""
    averages, mean = [], 0.0
    for step, value in enumerate(values, 1):
        mean = decay * mean + (1 - decay) * value
        averages.append(mean / (1 - decay**step))
    return np.array(averages)


def suggest_lr(rates: np.ndarray, losses: list[float]) -> tuple[float, bool]:
    """Suggest a learning rate from a range test.

    Args:
        rates: (n,) increasing learning rates.
        losses: the n losses at these learning rates.

    Returns:
        A tenth of the learning rate with the lowest smoothed loss, and whether the loss decreases before it.
    """
    smooth = ema(losses)
    lowest = 10 + int(smooth[10:].argmin()) if len(smooth) > 20 else 0
    if not lowest or smooth[5:20].mean() - smooth[lowest] < 0.03 * abs(smooth[5:20].mean()):
        return float(rates[lowest]) if len(rates) else MIN_LR, False
    return float(rates[lowest]) / 10, True


def _write_tensorboard(context: SearchContext, model: AgeModel, training: FaceDataset) -> None:
    """Write training faces with their ages and, if it can be traced, the network's graph."""
    writer = SummaryWriter(str(context.home / "tensorboard" / "untrained"))
    examples = subsample_by_age(training, 32)
    sheet = make_contact_sheet(examples.pixels[examples.rows], [f"{age:g} years" for age in examples.ages], columns=8)
    writer.add_image("train/faces", np.asarray(sheet), 0, dataformats="HWC")
    card = context.config.model
    batch = normalize(torch.from_numpy(examples.pixels[examples.rows[:2]]).to(context.device), card.mean, card.std)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            writer.add_graph(model.eval(), batch)
    except Exception as error:  # tracing third-party code can raise anything; the graph is optional
        writer.add_text("graph", f"The network cannot be traced: {type(error).__name__}")
    writer.close()
