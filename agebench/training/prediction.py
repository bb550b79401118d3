"""Prediction of ages for a whole dataset."""

import numpy as np
import torch

from agebench.config.cards.model import Architecture
from agebench.models.age_model import AgeModel
from agebench.models.estimates import AgeEstimates
from agebench.training import distributed
from agebench.training.dataloader import FaceDataset, iter_batches
from agebench.training.device import autocast
from agebench.training.frozen_features import model_views
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
    """Run a model in evaluation and inference mode over a dataset.

    Args:
        model: the model, on `device`.
        data: the faces, or features of a frozen backbone; estimates come in their order.
        card: the normalization of the input.
        device: where to compute.
        precision: "auto", "float32" or "bf16".
        label: the label of the progress bar.
    """
    was_training = model.training
    model.eval()
    outputs = []
    order = np.arange(len(data))[distributed.shard_rows(len(data))]
    with torch.inference_mode(), progress(total=len(order), label=label, unit="img") as bar:
        for faces, _ in iter_batches(data, order, BATCH_SIZE, device):
            with autocast(device, precision):
                view_logits = [model(view) for view in model_views(faces, card, mirrored=model.flip_tta)]
            estimate, task_probs = model.decode([logits.float() for logits in view_logits])
            outputs.append((*estimate, *(task_probs[name] for name in model.classes)))
            bar.update(len(faces))
    model.train(was_training)
    shard = [None if parts[0] is None else torch.cat(parts).cpu().numpy() for parts in zip(*outputs, strict=True)]
    age, probs, std, *task_columns = distributed.gather_rows(shard, len(data))
    assert age is not None
    tasks = {name: column for name, column in zip(model.classes, task_columns, strict=True) if column is not None}
    return AgeEstimates(age, std, probs, model.head.ages[0], tasks=tasks)
