"""TorchScript: deprecated upstream and still the file that most programs, also in C++, can load."""

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from agebench.errors import UserError
from agebench.export.model import ExportedModel
from agebench.export.opened import ExportedFile


def write_torchscript(module: ExportedModel, faces: torch.Tensor, card: dict[str, Any], path: Path) -> None:
    """Trace the network, script the rest, save both with the card as the archive's extra file card.json.

    Args:
        module: in evaluation mode, on the CPU; its network is replaced by the trace.
        faces: (n, 3, S, S) uint8, to trace with.
        card: see `make_card`.
        path: written as it is; the caller makes it atomic.
    """
    with warnings.catch_warnings(), torch.inference_mode(False), torch.no_grad():
        warnings.simplefilter("ignore")  # TorchScript's deprecation is not the reader's concern.
        module.backbone = torch.jit.trace(module.backbone, module.normalised(faces[:2]))  # type: ignore[no-untyped-call]
        scripted = torch.jit.script(module)
        torch.jit.save(scripted, str(path), _extra_files={"card.json": json.dumps(card)})


class TorchScriptFile(ExportedFile):
    """A TorchScript file; opening it can run its code."""

    def __init__(self, path: Path, card: dict[str, Any], device: str) -> None:
        super().__init__(path, card)
        self.device = torch.device(device)
        self.module = _load(path, self.device)

    def run(self, images: np.ndarray) -> tuple[np.ndarray, ...]:
        """See `ExportedFile`."""
        with torch.inference_mode():
            return tuple(part.cpu().numpy() for part in self.module(torch.from_numpy(images).to(self.device)))


def _load(path: Path, device: torch.device) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return torch.jit.load(str(path), map_location=device).eval()  # type: ignore[no-untyped-call,no-any-return]
        except (RuntimeError, ValueError) as error:
            raise UserError(f"{path}: not readable as a TorchScript model: {str(error).splitlines()[0]}") from error
