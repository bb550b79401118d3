"""Ages for many faces."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import torch

from agebench.engine import ranks
from agebench.engine.devices import autocast
from agebench.engine.features import as_input
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
    order = np.arange(len(data))[ranks.own_rows(len(data))]
    with torch.inference_mode(), progress(total=len(order), label=label, unit="img") as bar:
        for faces, _ in batches(data, order, BATCH, device):
            with autocast(device, precision):
                logits = model(as_input(faces, card))
            of_age, of_tasks = model.split(logits.float())
            found.append((*model.head.decode(of_age), *(of_tasks[name].softmax(dim=1) for name in model.classes)))
            bar.update(len(faces))
    model.train(training)
    own = [None if part[0] is None else torch.cat(part).cpu().numpy() for part in zip(*found, strict=True)]
    age, probs, std, *others = ranks.all_rows(own, len(data))
    assert age is not None
    tasks = {name: of for name, of in zip(model.classes, others, strict=True) if of is not None}
    return Estimates(age, probs, std, tasks)
