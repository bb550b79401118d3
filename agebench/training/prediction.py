"""Ages for many faces."""

import numpy as np
import torch

from agebench.config.cards.base import Architecture
from agebench.models.age_model import AgeModel
from agebench.models.estimates import AgeEstimates
from agebench.training import distributed
from agebench.training.dataloader import FaceDataset, iter_batches
from agebench.training.device import autocast
from agebench.training.frozen_features import model_input
from agebench.utils.progress import progress

BATCH_SIZE = 128


def predict(
    model: AgeModel,
    data: FaceDataset,
    card: Architecture,
    device: torch.device,
    *,
    precision: str = "auto",
    label: str = "",
) -> AgeEstimates:
    """Run `model` in evaluation and inference mode over `data`, in its order."""
    training = model.training
    model.eval()
    found, others = [], []
    order = np.arange(len(data))[distributed.shard_rows(len(data))]
    with torch.inference_mode(), progress(total=len(order), label=label, unit="img") as bar:
        for faces, _ in iter_batches(data, order, BATCH_SIZE, device):
            with autocast(device, precision):
                logits = model(model_input(faces, card))
            of_age, of_tasks = model.split(logits.float())
            found.append((*model.head.decode(of_age), *(of_tasks[name].softmax(dim=1) for name in model.classes)))
            bar.update(len(faces))
    model.train(training)
    own = [None if part[0] is None else torch.cat(part).cpu().numpy() for part in zip(*found, strict=True)]
    age, probs, std, *others = distributed.gather_rows(own, len(data))
    assert age is not None
    tasks = {name: of for name, of in zip(model.classes, others, strict=True) if of is not None}
    return AgeEstimates(age, std, probs, model.head.ages[0], tasks=tasks)
