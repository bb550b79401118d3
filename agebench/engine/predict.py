"""Ages for many faces."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import torch

from agebench.data.augment import normalise
from agebench.engine.devices import autocast
from agebench.engine.loader import FaceSet, batches
from agebench.models.age_model import AgeModel
from agebench.progress import progress
from agebench.registry.cards import Architecture

BATCH = 128


class Estimates(NamedTuple):
    """What a model says about N faces.

    Attributes:
        age: (N,) float32 years.
        probs: (N, A) where the head has them.
        std: (N,) where the head has it.
        tasks: target beside age -> (N, C) float32 probabilities of its classes.
    """

    age: np.ndarray
    probs: np.ndarray | None
    std: np.ndarray | None
    tasks: Mapping[str, np.ndarray] = MappingProxyType({})


def predict(
    model: AgeModel,
    data: FaceSet,
    card: Architecture,
    device: torch.device,
    *,
    precision: str = "auto",
    label: str = "",
) -> Estimates:
    """Run `model` in evaluation and inference mode over `data`, in its order."""
    training = model.training
    model.eval()
    found, others = [], []
    order = np.arange(len(data))
    with torch.inference_mode(), progress(total=len(data), label=label, unit="img") as bar:
        for faces, _ in batches(data, order, BATCH, device):
            with autocast(device, precision):
                logits = model(normalise(faces, card.mean, card.std))
            of_age, of_tasks = model.split(logits.float())
            found.append(model.head.decode(of_age))
            others.append({name: of.softmax(dim=1) for name, of in of_tasks.items()})
            bar.update(len(faces))
    model.train(training)
    age, probs, std = (None if part[0] is None else torch.cat(part).cpu().numpy() for part in zip(*found, strict=True))
    assert age is not None
    tasks = {name: torch.cat([batch[name] for batch in others]).cpu().numpy() for name in model.classes}
    return Estimates(age, probs, std, tasks)
