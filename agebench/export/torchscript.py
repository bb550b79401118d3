"""TorchScript: one file that takes pictures of faces and returns ages, preprocessing inside."""

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from agebench.data.augment import normalise
from agebench.errors import AgebenchError
from agebench.files import atomic
from agebench.models.age_model import AgeModel
from agebench.models.heads import Head
from agebench.registry.cards import Architecture

# Years. Traced float32 convolutions may be fused and ordered differently; anything above is a wrong export.
TOLERANCE = 0.01

CONTRACT = (
    "uint8 RGB faces (N, 3, H, W), H and W from 32 to 1024, framed like the training faces: eye centres at (29.75 %, 30.5 %) and "
    "(68.25 %, 30.25 %) of width and height, nose base at (49 %, 59 %). Returns (N,) float32 years."
)
BODIES = (
    " Of a model that sees bodies (N, 6, H, W): after the face the whole person, unstretched, in the middle of black; whichever "
    "of the two is not there is black."
)


class ExportedModel(nn.Module):
    """Resizing, normalisation, network and decoding in one scriptable module."""

    mean: Tensor
    std: Tensor

    def __init__(self, backbone: nn.Module, head: Head, card: Architecture) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.size, self.channels, self.features = card.size, card.channels, head.in_features
        for name, values in (("mean", card.mean), ("std", card.std)):
            self.register_buffer(name, torch.tensor(values).repeat(card.channels // 3).view(1, -1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) uint8 -> (N,) float32 years."""
        if images.dtype != torch.uint8 or images.dim() != 4 or images.size(1) != self.channels:
            raise ValueError("images must be uint8 RGB of shape (N, 3, H, W); with bodies (N, 6, H, W), the face first")
        if min(images.size(2), images.size(3)) < 32 or max(images.size(2), images.size(3)) > 1024:
            raise ValueError("images must be 32 to 1024 pixels wide and high")
        pixels = images.to(self.mean.dtype)
        if images.size(2) != self.size or images.size(3) != self.size:
            pixels = F.interpolate(pixels, [self.size, self.size], mode="bilinear", align_corners=False, antialias=True)
        features = self.backbone((pixels / 255.0 - self.mean) / self.std)
        return self.head.decode(self.head(features[:, : self.features])).age


def export_torchscript(
    model: AgeModel, card: Architecture, metrics: dict[str, Any], examples: np.ndarray, path: Path
) -> float:
    """Write `path`, checked against the model itself on `examples` (n, S, S, 3) uint8; returns the largest difference, years.

    The extra files of the archive are card.json, metrics.json and contract.txt.

    Raises:
        AgebenchError: the exported file says something else than the model.
    """
    model = model.cpu().eval()
    faces = torch.from_numpy(np.ascontiguousarray(examples)).permute(0, 3, 1, 2)
    with warnings.catch_warnings(), torch.inference_mode(False), torch.no_grad():
        warnings.simplefilter("ignore")  # TorchScript's deprecation is not the reader's concern.
        traced = torch.jit.trace(  # type: ignore[no-untyped-call]
            model.backbone, normalise(torch.from_numpy(examples[:2]), card.mean, card.std)
        )
        scripted = torch.jit.script(ExportedModel(traced, model.head, card).eval())
        extra = {
            "card.json": card.model_dump_json(indent=2),
            "metrics.json": json.dumps(metrics),
            "contract.txt": CONTRACT + BODIES * card.bodies,
        }
        with atomic(path) as temporary:
            torch.jit.save(scripted, str(temporary), _extra_files=extra)
            exported = torch.jit.load(str(temporary))  # type: ignore[no-untyped-call]
            difference = _difference(model, card, examples, exported, faces)
    return difference


def _difference(model: AgeModel, card: Architecture, examples: np.ndarray, exported: nn.Module, faces: Tensor) -> float:
    expected = model.predict(normalise(torch.from_numpy(examples), card.mean, card.std)).age
    difference = float((exported(faces) - expected).abs().max())
    if not difference <= TOLERANCE:
        raise AgebenchError(
            f"the exported model differs from the trained one by up to {difference:.3g} years on {len(faces)} faces "
            f"(allowed: {TOLERANCE}); the checkpoint in the run folder is right, the export was not kept"
        )
    return difference
