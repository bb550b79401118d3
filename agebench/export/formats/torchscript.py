"""Export to TorchScript: deprecated upstream, but most programs can load it, C++ included."""

import inspect
import json
from pathlib import Path

import torch

from agebench.errors import UserError
from agebench.estimators.exported.card import ExportCard
from agebench.estimators.exported.torch_files import ignore_warnings
from agebench.export.wrapper import ExportWrapper, SaveFn
from agebench.models.heads import Head


def require_source(head: Head) -> None:
    """Check that Python has the source code of a head, which TorchScript compiles after the training.

    Args:
        head: the head.

    Raises:
        UserError: it does not, as for a class that was typed at an interactive prompt.
    """
    try:
        for method in (type(head).forward, type(head).decode):
            inspect.getsource(method)
    except (OSError, TypeError) as error:
        raise UserError(
            f"head class {type(head).__name__}: Python does not have its source code, which the run's TorchScript file needs; "
            "classes typed at a prompt have none. Put the class into a file and import it, or run a script or a notebook"
        ) from error


def build_torchscript(module: ExportWrapper, faces: torch.Tensor) -> SaveFn:
    """Trace the network and script the rest; the card becomes the archive's extra file card.json.

    Args:
        module: the module, in evaluation mode, on the CPU; its network is replaced by the trace.
        faces: (n, 3, S, S) uint8 example faces for the trace.
    """
    with ignore_warnings(), torch.inference_mode(False), torch.no_grad():
        module.backbone = torch.jit.trace(module.backbone, module.normalized(faces[:2]))  # type: ignore[no-untyped-call]
        scripted = torch.jit.script(module)

    def save(path: Path, card: ExportCard) -> None:
        with ignore_warnings():
            torch.jit.save(scripted, str(path), _extra_files={"card.json": json.dumps(card.to_json())})

    return save
