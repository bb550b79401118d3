"""TorchScript: deprecated upstream, and still what most programs can load, C++ ones too."""

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from agebench.errors import UserError
from agebench.estimators.external.model_files import first_line, load_torchscript
from agebench.export.base import ExportedFile, SaveFn
from agebench.export.wrapper import ExportWrapper


def build_torchscript(module: ExportWrapper, faces: torch.Tensor) -> SaveFn:
    """Trace the network, script the rest; the card becomes the archive's extra file card.json.

    Args:
        module: in evaluation mode, on the CPU; its network is replaced by the trace.
        faces: (n, 3, S, S) uint8, to trace with.
    """
    with _quiet(), torch.inference_mode(False), torch.no_grad():
        module.backbone = torch.jit.trace(module.backbone, module.normalised(faces[:2]))  # type: ignore[no-untyped-call]
        scripted = torch.jit.script(module)

    def save(path: Path, card: dict[str, Any]) -> None:
        with _quiet():
            torch.jit.save(scripted, str(path), _extra_files={"card.json": json.dumps(card)})

    return save


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
    with _quiet():
        try:
            module = load_torchscript(path, str(device)).eval()
            return torch.jit.freeze(module)  # type: ignore[no-any-return]  # convolutions take in their normalisation: a fifth faster
        except (RuntimeError, ValueError) as error:
            raise UserError(f"{path}: not readable as a TorchScript model: {first_line(error)}") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """TorchScript's deprecation is not the reader's concern."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
