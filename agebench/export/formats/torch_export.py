"""torch.export: what PyTorch puts in TorchScript's place, a .pt2 file."""

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.export import Dim, ExportedProgram
from torch.export.passes import move_to_device_pass

from agebench.errors import UserError
from agebench.estimators.external.model_files import first_line, temporary_env
from agebench.export.base import INPUT_SIDE_RANGE, ExportedFile, SaveFn
from agebench.export.wrapper import ExportWrapper

MAX_BATCH_SIZE = 65535


def exported_program(module: ExportWrapper) -> ExportedProgram:
    """The module as a graph of which batch, height and width are free.

    It is traced on a picture of another shape than the network's: equal sides would be taken for a rule.
    """
    images = torch.zeros(3, module.channels, module.size + 8, module.size + 24, dtype=torch.uint8)
    free = {0: Dim("N", min=1, max=MAX_BATCH_SIZE), 2: Dim("H", min=INPUT_SIDE_RANGE[0], max=INPUT_SIDE_RANGE[1])}
    free[3] = Dim("W", min=INPUT_SIDE_RANGE[0], max=INPUT_SIDE_RANGE[1])
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        return torch.export.export(module, (images,), dynamic_shapes=(free,))


def build_pt2(module: ExportWrapper) -> SaveFn:
    """Export the module; the card becomes the archive's extra file card.json.

    Args:
        module: in evaluation mode, on the CPU.
    """
    program = exported_program(module)

    def save(path: Path, card: dict[str, Any]) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.export.save(program, path, extra_files={"card.json": json.dumps(card)})

    return save


class TorchExportFile(ExportedFile):
    """A .pt2 file; opening it can run its code."""

    def __init__(self, path: Path, card: dict[str, Any], device: str) -> None:
        super().__init__(path, card)
        self.device = torch.device(device)
        try:
            # torch.export.load falls back to full unpickling by itself; this forbids it.
            with temporary_env("TORCH_FORCE_WEIGHTS_ONLY_LOAD", "1"), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                program = torch.export.load(path)
                if self.device.type != "cpu":
                    program = move_to_device_pass(program, self.device)
                self.module = program.module()
        except Exception as error:  # It raises kinds of its own.
            raise UserError(f"{path}: not readable as a torch.export model: {first_line(error)}") from error

    def run(self, images: np.ndarray) -> tuple[np.ndarray, ...]:
        """See `ExportedFile`."""
        with torch.inference_mode():
            return tuple(part.cpu().numpy() for part in self.module(torch.from_numpy(images).to(self.device)))
