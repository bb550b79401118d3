"""One trained model as one file, which is kept only if it says what the model says."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from agebench.data.augment import normalise
from agebench.errors import AgebenchError
from agebench.export.model import ExportedModel
from agebench.export.opened import ExportedFile, open_exported
from agebench.export.torchscript import write_torchscript
from agebench.files import atomic
from agebench.models.age_model import AgeModel
from agebench.registry.cards import Architecture

# Years. float32 convolutions may be fused and ordered differently; anything above is a wrong export.
TOLERANCE = 0.01

WRITERS = {"torchscript": write_torchscript}
ENDINGS = {"torchscript": ".ts"}


def export_model(
    model: AgeModel, architecture: Architecture, card: dict[str, Any], examples: np.ndarray, path: Path, kind: str
) -> float:
    """Write `path`, checked against the model itself on `examples` (n, S, S, 3) uint8; returns the largest difference, years.

    Raises:
        AgebenchError: the exported file says something else than the model; it is not kept.
    """
    model = copy.deepcopy(model).cpu().eval()
    module = ExportedModel(model.backbone, model.head, architecture, torch.float32).eval()
    with atomic(path) as temporary:
        WRITERS[kind](module, _planar(examples), card, temporary)
        return difference(model, architecture, examples, open_exported(temporary, trusted=True))


def difference(model: AgeModel, architecture: Architecture, examples: np.ndarray, exported: ExportedFile) -> float:
    """The largest difference of their ages, years.

    Raises:
        AgebenchError: more than `TOLERANCE`.
    """
    with torch.inference_mode():
        expected = model.predict(normalise(torch.from_numpy(examples), architecture.mean, architecture.std)).age
    found = float(np.abs(exported.estimate(examples).age - expected.numpy()).max())
    if not found <= TOLERANCE:
        raise AgebenchError(
            f"the exported model differs from the trained one by up to {found:.3g} years on {len(examples)} faces "
            f"(allowed: {TOLERANCE}); the checkpoint in the run folder is right, the export was not kept"
        )
    return found


def _planar(faces: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(faces)).permute(0, 3, 1, 2)
