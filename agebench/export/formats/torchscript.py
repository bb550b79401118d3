"""Export to TorchScript: deprecated upstream, but most programs can load it, C++ included."""

import json
from collections.abc import Mapping
from pathlib import Path

import torch

from agebench.estimators.exported.torch_files import ignore_warnings
from agebench.export.wrapper import ExportWrapper, SaveFn


def build_torchscript(module: ExportWrapper, faces: torch.Tensor) -> SaveFn:
    """Trace the network and script the rest; the card becomes the archive's extra file card.json.

    Args:
        module: the module, in evaluation mode, on the CPU; its network is replaced by the trace.
        faces: (n, 3, S, S) uint8 example faces for the trace.
    """
    with ignore_warnings(), torch.inference_mode(False), torch.no_grad():
        module.backbone = torch.jit.trace(module.backbone, module.normalized(faces[:2]))  # type: ignore[no-untyped-call]
        scripted = torch.jit.script(module)

    def save(path: Path, card: Mapping[str, object]) -> None:
        with ignore_warnings():
            torch.jit.save(scripted, str(path), _extra_files={"card.json": json.dumps(card)})

    return save
