"""Before any tuning: does the untrained model lose what it should, can it learn by heart, which learning rates move it?"""

import math
import shutil
import warnings
from typing import Any

import numpy as np
import torch
from torch.utils.tensorboard import SummaryWriter

from agebench.analysis.tuning.context import SearchContext
from agebench.config.cards.base import Augment
from agebench.data.image_grid import make_contact_sheet
from agebench.models.age_model import AgeModel
from agebench.training.augmentation import Augmenter, normalize
from agebench.training.callbacks import ConsoleCallback
from agebench.training.dataloader import FaceDataset, derive_seed, epoch_order, iter_batches, subsample_by_age
from agebench.training.device import autocast
from agebench.training.optim import create_optimizer, set_learning_rate
from agebench.training.prediction import predict
from agebench.training.trainer import Trainer

N_PROBE_BATCHES = 6  # batches that the untrained model is shown
OVERFIT_SUBSET_SIZE = 64  # images
FEWEST, STEPS = 1e-6, 100  # of the range test: its first rate, and how many
LAST = {"adamw": 1.0, "sgd": 10.0}
_NO_CHANGE = Augment(flip=0, rotate=0, brightness=0, saturation=0, hue=0)


_NO_REGULARIZATION = {
    "ema_decay": 0.0,
    "accumulate_steps": 1,
    "mixup": 0.0,
    "cutmix": 0.0,
    "label_smoothing": 0.0,
    "flip_tta": False,
}


def check_initial_loss(ground: SearchContext) -> dict[str, Any]:
    """The loss of the untrained model beside that of its head on blank features: what it must lose that knows no face.

    A head starts from the training set's ages (`Head.prepare`), so a model that has learned nothing loses what that start
    does. Far more means features that swamp the head, or ages in the wrong unit; far less, that the age leaks in.
    """
    training, size = ground.training(), ground.config.train.batch_size
    model, card = ground.build_model().train(), ground.config.model
    order = epoch_order(len(training), seed=ground.config.seed, epoch=1)[: N_PROBE_BATCHES * size]
    torch.manual_seed(derive_seed(ground.config.seed, "untrained"))
    seen, blank, errors = [], [], []
    with torch.no_grad():
        for faces, ages in iter_batches(training, order, size, ground.device):
            if len(ages) < 2:
                continue  # batch normalisation needs two
            logits = model(normalize(faces, card.mean, card.std)).float()
            seen.append(float(model.head.loss(logits, ages)))
            errors.append(float((model.head.decode(logits).age - ages).abs().mean()))
            nothing = torch.zeros(len(ages), model.head.in_features, device=ground.device)
            blank.append(float(model.head.loss(model.head(nothing).float(), ages)))
    middle = float(np.median(training.ages))
    floor = float(np.abs(training.ages - middle).mean())
    found = {"losses": seen, "expected": blank, "loss": float(np.mean(seen)), "should_be": float(np.mean(blank))}
    _to_tensorboard(ground, model, training)
    return found | {"mae": float(np.mean(errors)), "mae_of_the_median": floor, **_judge_start(found)}


def _judge_start(found: dict[str, Any]) -> dict[str, Any]:
    loss, should = found["loss"], found["should_be"]
    room = 0.3 * max(abs(should), 0.1) + 3 * float(np.std(found["expected"]) / math.sqrt(len(found["expected"])))
    if not math.isfinite(loss):
        return {
            "good": False,
            "verdict": f"The untrained model's loss is {loss}: look at the head and at the input's scale.",
        }
    if loss > should + room:
        text = "It answers wildly before it has seen anything: the first epoch goes into unlearning that. A smaller start of the "
        return {"good": False, "verdict": f"Loss {loss:.3f}, where {should:.3f} is right. {text}head's weights helps."}
    if loss < should - room:
        text = "An untrained model that knows better than the ages' own distribution is being told the age somewhere."
        return {"good": False, "verdict": f"Loss {loss:.3f}, where {should:.3f} is right. {text}"}
    return {
        "good": True,
        "verdict": f"Loss {loss:.3f}, where {should:.3f} is right for a model that knows no face: as it should be.",
    }


def overfit_small_subset(ground: SearchContext, *, epochs: int = 60) -> dict[str, Any]:
    """Train on 64 images and nothing else, without augmentation and weight decay: a sound network learns them by heart."""
    few = subsample_by_age(ground.training(), OVERFIT_SUBSET_SIZE)
    size = max(2, min(16, len(few)))
    recipe = ground.config.train.model_copy(
        update={
            "epochs": epochs,
            "batch_size": size,
            "augment": _NO_CHANGE,
            "weight_decay": 0.0,
            "schedule": "cosine",
            "warmup": 0.1,
            **_NO_REGULARIZATION,
        }
    )
    folder = ground.home / "by-heart"
    shutil.rmtree(folder, ignore_errors=True)  # it takes less time than going on would be worth
    model, card = ground.build_model(), ground.config.model
    trainer = Trainer(model, card, recipe, seed=ground.config.seed, device=ground.device, folder=folder)
    curve = []
    with ConsoleCallback(folder / "tensorboard", quiet=True) as events:
        for epoch in range(1, epochs + 1):
            entry = trainer.train_epoch(few, epoch, events)
            curve.append({"epoch": epoch, "loss": entry["loss"], "mae": entry["train_mae"]})
    ages = predict(trainer.model, few, card, ground.device, precision=recipe.precision).age
    left = float(np.abs(ages - few.ages).mean())
    floor = float(np.abs(few.ages - np.median(few.ages)).mean())
    good = left < 0.25 * floor
    verdict = (
        f"After {epochs} epochs it is off by {left:.1f} years on the {len(few)} images it trains on, where the median would be "
        f"off by {floor:.1f}: "
    )
    verdict += (
        "it can learn them by heart."
        if good
        else "it cannot learn even these. Look at labels, loss and learning rate before training on more."
    )
    return {
        "images": len(few),
        "curve": curve,
        "mae": left,
        "mae_of_the_median": floor,
        "good": good,
        "verdict": verdict,
    }


def lr_range_test(ground: SearchContext) -> dict[str, Any]:
    """Raise the learning rate from nothing to far too much within 100 steps and watch the loss (Smith 2017, section 3.3).

    Of each batch's loss, what an untrained head on blank features loses with the same ages is taken off (and its mean put
    back): batches differ more by their ages than by what 100 steps teach. `suggested` is a tenth of the rate at which the
    smoothed loss is lowest.
    """
    recipe, card = ground.config.train, ground.config.model
    training, size = ground.training(), min(recipe.batch_size, len(ground.training()))
    last = LAST[recipe.optimiser]
    rates = FEWEST * (last / FEWEST) ** (np.arange(STEPS) / (STEPS - 1))
    whole = len(training) // size * size
    epochs, seed = math.ceil(STEPS * size / whole), ground.config.seed
    orders = [epoch_order(len(training), seed=seed, epoch=epoch + 1)[:whole] for epoch in range(epochs)]
    order = np.concatenate(orders)[: STEPS * size]
    model = ground.build_model().train()
    optimiser, augment = create_optimizer(model, recipe), Augmenter(recipe.augment, card.mean, card.std)
    blank = ground.build_model().head
    values: list[float] = []
    blanks: list[float] = []
    seen: list[float] = []
    writer = SummaryWriter(str(ground.home / "tensorboard" / "range-test"))
    for step, (faces, ages) in enumerate(iter_batches(training, order, size, ground.device)):
        torch.manual_seed(derive_seed(seed, "range", step))
        set_learning_rate(optimiser, float(rates[step]))
        images = augment(faces, torch.Generator().manual_seed(derive_seed(seed, "range", step)))
        with autocast(ground.device, recipe.precision):
            logits = model(images)
        loss = model.head.loss(logits.float(), ages)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        if recipe.clip:
            torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
        optimiser.step()
        value = float(loss.detach())
        if not math.isfinite(value):
            break
        with torch.no_grad():
            nothing = torch.zeros(len(ages), blank.in_features, device=ground.device)
            blanks.append(float(blank.loss(blank(nothing).float(), ages)))
        values.append(value)
        seen = [*(np.array(values) - blanks + np.mean(blanks)).tolist()]
        writer.add_scalar("range-test/loss", seen[-1], step)
        writer.add_scalar("range-test/learning_rate", rates[step], step)
        smooth = ema(seen)
        if step > 20 and smooth[-1] - smooth.min() > 3 * max(smooth[0] - smooth.min(), abs(smooth[0]) * 0.1):
            break  # it has clearly left: more of it would only flatten the picture
    writer.close()
    suggested, falls = suggest_lr(rates[: len(seen)], seen)
    found = {"rates": [float(rate) for rate in rates[: len(seen)]], "losses": seen, "suggested": suggested}
    verdict = (
        f"The loss is lowest at a learning rate of about {10 * suggested:.1g}; the sweep goes about a tenth of that."
        if falls
        else f"The loss hardly falls at any learning rate; the recipe's own, {recipe.lr:g}, is the middle of the sweep."
    )
    if not falls:
        found["suggested"] = recipe.lr
    return found | {"good": falls, "verdict": verdict}


def ema(values: list[float], keep: float = 0.9) -> np.ndarray:
    """An exponential moving average, corrected for its start."""
    made, mean = [], 0.0
    for step, value in enumerate(values, 1):
        mean = keep * mean + (1 - keep) * value
        made.append(mean / (1 - keep**step))
    return np.array(made)


def suggest_lr(rates: np.ndarray, losses: list[float]) -> tuple[float, bool]:
    """A tenth of the rate at which the smoothed loss is lowest; and whether the loss falls at all before it."""
    smooth = ema(losses)
    lowest = 10 + int(smooth[10:].argmin()) if len(smooth) > 20 else 0
    if not lowest or smooth[5:20].mean() - smooth[lowest] < 0.03 * abs(smooth[5:20].mean()):
        return float(rates[lowest]) if len(rates) else FEWEST, False
    return float(rates[lowest]) / 10, True


def _to_tensorboard(ground: SearchContext, model: AgeModel, training: FaceDataset) -> None:
    """Some training faces with their ages, and the network's graph where it can be traced."""
    writer = SummaryWriter(str(ground.home / "tensorboard" / "untrained"))
    some = subsample_by_age(training, 32)
    sheet = make_contact_sheet(some.pixels[some.rows], [f"{age:g} years" for age in some.ages], columns=8)
    writer.add_image("train/faces", np.asarray(sheet), 0, dataformats="HWC")
    card = ground.config.model
    example = normalize(torch.from_numpy(some.pixels[some.rows[:2]]).to(ground.device), card.mean, card.std)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            writer.add_graph(model.eval(), example)
    except Exception as error:  # whatever tracing somebody's network leads to: the graph is a picture, not a result
        writer.add_text("graph", f"The network cannot be traced: {type(error).__name__}")
    writer.close()
